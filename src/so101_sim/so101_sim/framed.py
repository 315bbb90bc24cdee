# SPDX-License-Identifier: Apache-2.0
"""What every environment of the contract does alike: frames, their stack, pictures of cameras, spaces of actions.

A subclass says what one frame is (`_frame`) and how its physics goes on. Observations are `state` (T, D) float32 and
one (T, 3, S, S) uint8 image stack per camera, oldest first; actions are in network units.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import mujoco
import numpy as np
import numpy.typing as npt

from so101_contract.action import ActionSpec
from so101_contract.image import preprocess
from so101_contract.observation import Observation, stack_window
from so101_contract.observation_spec import ObservationSpec
from so101_sim.errors import PresetError
from so101_sim.render import Renderer

OVERSAMPLING = 2
"""Pictures are drawn this many times larger than networks see them and averaged down, as a camera's are: without it
edges are jagged where the real picture's are smooth (33 instead of 42 dB from a 640 x 480 frame's crop)."""

FILM_SIZE = (640, 480)

Observed = dict[str, npt.NDArray[Any]]


class FramedEnv(gym.Env[Observed, npt.NDArray[np.float32]]):
    """The base of the environments.

    Attributes:
        observation_spec: what is observed.
        action_spec: what an action means.
        reset_options: names of what `reset` takes as options.
    """

    reset_options: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        observation: ObservationSpec,
        action: ActionSpec,
        physics: tuple[mujoco.MjModel, mujoco.MjData],
        render_mode: str | None,
    ) -> None:
        """Prepare.

        Args:
            observation: what is observed.
            action: what an action means.
            physics: model and state, to draw.
            render_mode: 'rgb_array' for `render`.
        """
        self.observation_spec, self.action_spec, self.render_mode = observation, action, render_mode
        self._model, self._data = physics
        self._renderers: dict[tuple[int, int], Renderer] = {}
        self._frames: list[Observed] = []
        self._over = True
        self.action_space = gym.spaces.Box(
            action.low.astype(np.float32), action.high.astype(np.float32), dtype=np.float32
        )

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observed, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: makes this and the following episodes repeatable.
            options: what is given instead of drawn, see `reset_options`.

        Raises:
            PresetError: there is no such option.
        """
        super().reset(seed=seed)
        given = {} if options is None else options
        unknown = sorted(set(given) - self.reset_options)
        if unknown:
            raise PresetError(
                f'expected reset options among {", ".join(sorted(self.reset_options))}, got {unknown}; leave them out'
            )
        info = self._restart(given)
        self._over = False
        self._frames = [self._frame()]
        return self._observed(), info

    @property
    def is_over(self) -> bool:
        """Whether the episode has ended, or none has begun."""
        return self._over

    def observation(self) -> Observation:
        """Return the present observation in the form that policies take."""
        window = stack_window(self._frames, self.observation_spec.frame_stack)
        return Observation(
            state=np.stack([frame['state'] for frame in window]),
            images={
                name: np.stack([frame[name] for frame in window])
                for name in self.observation_spec.camera_names
            },
        )

    def picture(self, camera: str, width: int, height: int) -> npt.NDArray[np.uint8]:
        """Return what a camera of the scene sees now (height, width, 3), RGB."""
        size = width, height
        if size not in self._renderers:
            self._renderers[size] = Renderer(self._model, *size)
        return self._renderers[size].draw(self._data, camera)

    def close(self) -> None:
        """Free what drawing needs."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    # ---- for subclasses ----------------------------------------------------------------------------------

    def _frame(self) -> Observed:
        """Return the frame of this moment: `state`, and what `_images` gives."""
        raise NotImplementedError

    def _restart(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Put everything where an episode begins, with some of it given; return what `reset` tells besides."""
        raise NotImplementedError

    def _surfaces_changed(self) -> None:
        """Draw with the textures that the model has now."""
        for renderer in self._renderers.values():
            renderer.upload_textures()

    def _go_on(self) -> Observed:
        """Add the frame of this moment."""
        self._frames = [*self._frames[-self.observation_spec.frame_stack :], self._frame()]
        return self._observed()

    def _require_running(self) -> None:
        if self._over:
            raise gym.error.ResetNeeded('expected reset before step: there is no running episode; call reset')

    def _observed(self) -> Observed:
        seen = self.observation()
        return {'state': seen.state, **seen.images}

    def _images(self) -> Observed:
        images: Observed = {}
        for camera in self.observation_spec.cameras:
            size = camera.size * OVERSAMPLING
            # A crop is of the picture that a camera gives; without one only the centre square is drawn.
            width, height = (size, size) if camera.crop is None else FILM_SIZE
            images[camera.name] = preprocess(
                self.picture(camera.name, width, height), size=camera.size, crop=camera.box
            )
        return images


def image_spaces(spec: ObservationSpec) -> dict[str, gym.spaces.Space[Any]]:
    """Return the space of each camera's stack."""
    return {
        camera.name: gym.spaces.Box(0, 255, (spec.frame_stack, 3, camera.size, camera.size), np.uint8)
        for camera in spec.cameras
    }
