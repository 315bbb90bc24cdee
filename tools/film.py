# SPDX-License-Identifier: Apache-2.0
"""Films the scripted expert: `python tools/film.py lift.gif`, or a picture: `python tools/film.py wrist.png`.

A GIF shows an episode from the side, with shadows, and in a corner what a policy sees through the wrist camera.
A PNG shows, side by side, what the wrist camera sees on the way to the cube, over it, and with the cube lifted.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys

import cv2
import mujoco
import numpy as np
from PIL import Image

from so101_contract.image import preprocess
from so101_sim.env import ArmEnv, WRIST_CAMERA
from so101_sim.errors import SimulationError
from so101_sim.human.expert import Expert, Phase
from so101_sim.render import Renderer, UInt8Array
from so101_sim.scene.presets import PRESETS
from so101_sim.scene.scene import build_scene, OVERVIEW, SceneConfig
from so101_sim.scene.surroundings import SUN

SIZE = (480, 360)
INSET = 132
BORDER = 2
FRAMES_PER_S = 10.0
LAST_FRAMES = 8
COLOURS = 255  # and one for what has not changed
PALETTE_EVERY = 8
SAME = 2  # a pixel that has changed by no more in every channel counts as unchanged
SUPERSAMPLING = 2
SHADOW_MAP = 2048
WRIST_SIZE = 320


class Studio:
    """Draws a simulation with shadows and smooth edges; too slow for training."""

    def __init__(self, config: SceneConfig, width: int, height: int) -> None:
        """Build the same scene once more, with everything that makes it pretty."""
        spec = build_scene(config)
        spec.visual.quality.shadowsize = SHADOW_MAP
        spec.light(SUN).castshadow = True
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        self._size = width, height
        self._renderer = Renderer(self._model, width * SUPERSAMPLING, height * SUPERSAMPLING, shadows=True)

    def draw(self, env: ArmEnv, camera: str) -> UInt8Array:
        """Return a picture (height, width, 3) of the environment's scene."""
        source = env.simulation.model
        for name in ('geom_rgba', 'light_dir', 'light_diffuse', 'cam_pos', 'cam_quat'):
            getattr(self._model, name)[:] = getattr(source, name)
        self._data.qpos[:] = env.simulation.data.qpos
        mujoco.mj_forward(self._model, self._data)
        large = self._renderer.draw(self._data, camera)
        return np.asarray(cv2.resize(large, self._size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def close(self) -> None:
        """Free what drawing needs."""
        self._renderer.close()


def film(task: str, preset: str, seed: int) -> list[UInt8Array]:
    """Return the frames of one episode of the expert: the scene, and the wrist view in a corner."""
    env = ArmEnv(task=task, preset=preset, images=False)
    scene = Studio(env.preset.scene, *SIZE)
    expert = Expert(env.preset.task, env.action_spec)
    env.reset(seed=seed)
    expert.reset(np.random.default_rng(seed))
    frames, left = [], LAST_FRAMES
    while left:
        inset = preprocess(env.picture(WRIST_CAMERA, 2 * INSET, 2 * INSET), size=INSET).transpose(1, 2, 0)
        frames.append(with_inset(scene.draw(env, OVERVIEW), inset))
        if env.is_over:
            left -= 1
            continue
        action = expert.network_action(env.truth())
        env.step(action)
    scene.close()
    env.close()
    return frames


def wrist_pictures(task: str, preset: str, seed: int) -> UInt8Array:
    """Return what the wrist camera sees at three moments, side by side."""
    env = ArmEnv(task=task, preset=preset, images=False, render_mode='rgb_array')
    expert = Expert(env.preset.task, env.action_spec)
    env.reset(seed=seed)
    expert.reset(np.random.default_rng(seed))
    pictures: dict[Phase, UInt8Array] = {}
    while not env.is_over:
        action = expert.network_action(env.truth())
        # The first moment of approaching and closing, the last one of lifting.
        if expert.phase not in pictures or expert.phase is Phase.LIFT:
            pictures[expert.phase] = env.picture(WRIST_CAMERA, WRIST_SIZE * 4 // 3, WRIST_SIZE)
        env.step(action)
    env.close()
    return np.hstack([pictures[phase] for phase in (Phase.APPROACH, Phase.CLOSE, Phase.LIFT)])


def write_gif(path: Path, frames: Sequence[UInt8Array], frames_per_s: float) -> None:
    """Write an endless animation: one palette for all frames, and of each frame only what has changed.

    Args:
        path: the file.
        frames: (height, width, 3) RGB each, all of one size.
        frames_per_s: speed [1/s]; GIF knows hundredths of a second.
    """
    palette = Image.fromarray(np.concatenate(frames[::PALETTE_EVERY])).quantize(COLOURS)
    still, pictures = frames[0], []
    for frame in frames:
        same = (np.abs(frame.astype(np.int16) - still) <= SAME).all(axis=2)
        still = np.where(same[..., None], still, frame)
        pictures.append(Image.fromarray(still).quantize(palette=palette, dither=Image.Dither.NONE))
    first, *others = pictures
    first.save(path, save_all=True, append_images=others, duration=round(1000.0 / frames_per_s), loop=0)


def with_inset(picture: UInt8Array, inset: UInt8Array) -> UInt8Array:
    """Return the picture with another one in its upper left corner."""
    framed = cv2.copyMakeBorder(inset, *(BORDER,) * 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    out = picture.copy()
    out[8 : 8 + framed.shape[0], 8 : 8 + framed.shape[1]] = framed
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Film and write."""
    parser = argparse.ArgumentParser(prog='python tools/film.py', description=__doc__)
    parser.add_argument(
        'output', type=Path, help='a .gif for a film, a .png for pictures of the wrist camera'
    )
    parser.add_argument('--task', default='lift', help='name or file (default: %(default)s)')
    parser.add_argument('--preset', choices=sorted(PRESETS), default='easy')
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args(arguments)
    if options.output.suffix not in ('.gif', '.png'):
        parser.error(f'expected a .gif or a .png to write, got {options.output}')
    try:
        if options.output.suffix == '.gif':
            write_gif(options.output, film(options.task, options.preset, options.seed), FRAMES_PER_S)
        else:
            pictures = wrist_pictures(options.task, options.preset, options.seed)
            cv2.imwrite(str(options.output), cv2.cvtColor(pictures, cv2.COLOR_RGB2BGR))
    except SimulationError as error:
        sys.stderr.write(f'{error}\n')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
