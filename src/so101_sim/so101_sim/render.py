# SPDX-License-Identifier: Apache-2.0
"""Draws what a camera of the scene sees, without a screen: through EGL where it works, else through OSMesa.

A graphics library that is half installed may end the process instead of raising, so each way is tried in a process of
its own. The answer is remembered in the environment, so that child processes do not try again.
"""

from functools import lru_cache
import importlib
import logging
import os
import subprocess
import sys
from typing import Any, Self

import mujoco
import numpy as np
import numpy.typing as npt

from so101_sim.errors import RenderError

UInt8Array = npt.NDArray[np.uint8]
MAX_GEOMS = 400
MAX_SIZE = 4096
HIDDEN_GROUP = 5
BACKENDS = ('egl', 'osmesa')

REMEMBERED = 'SO101_GL'
"""Environment variable with the backend that works here; set it to skip the trial."""

CHOSEN_BY_USER = 'MUJOCO_GL'
"""MuJoCo's own variable. A backend named there is the only one tried."""

TRIAL_TIMEOUT_S = 60.0
_REMEDY = 'install Mesa (Debian, Ubuntu: apt install libegl1 libegl-mesa0, or: apt install libosmesa6)'
_TRIAL = """
import sys
from so101_sim.render import make_context
context = make_context(sys.argv[1], 16, 16)
context.make_current()
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco/>')
mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
sys.stdout.write('works')
"""


class Renderer:
    """Draws one size of picture of one model. Use it from the thread that made it, and close it there.

    Shadows and reflections stay off unless asked for: drawn on a processor, they take most of the time.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int, *, shadows: bool = False) -> None:
        """Open a context and upload the meshes.

        Args:
            model: the scene; colours, lights and cameras may change later, meshes may not; see `upload_textures`.
            width: [px].
            height: [px].
            shadows: draw shadows; needs a model with a shadow map.

        Raises:
            RenderError: pictures cannot be drawn on this machine, or not so large ones.
        """
        if not (1 <= width <= MAX_SIZE and 1 <= height <= MAX_SIZE):
            raise RenderError(
                f'expected a picture of 1 to {MAX_SIZE} px each way, got {width} x {height}; correct it'
            )
        self.width, self.height = width, height
        self._model = model
        self._shadows = shadows
        model.vis.global_.offwidth = max(width, int(model.vis.global_.offwidth))
        model.vis.global_.offheight = max(height, int(model.vis.global_.offheight))
        self._gl = make_context(backend(), width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, MAX_GEOMS)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._perturb = mujoco.MjvPerturb()
        self._viewport = mujoco.MjrRect(0, 0, width, height)
        self._pixels = np.empty((height, width, 3), dtype=np.uint8)
        self._groups = model.geom_group.copy()
        self._boundless = model.geom_rbound <= 0.0  # planes

    def draw(self, data: mujoco.MjData, camera: int | str) -> UInt8Array:
        """Return a new picture (height, width, 3), RGB.

        Args:
            data: the state to draw, positions computed.
            camera: a camera of the model, by index or name.
        """
        index = self._model.camera(camera).id if isinstance(camera, str) else camera
        self._camera.fixedcamid = index
        self._model.geom_group[:] = np.where(self._in_view(data, index), self._groups, HIDDEN_GROUP)
        try:
            mujoco.mjv_updateScene(
                self._model,
                data,
                self._option,
                self._perturb,
                self._camera,
                mujoco.mjtCatBit.mjCAT_ALL,
                self._scene,
            )
        finally:
            self._model.geom_group[:] = self._groups
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self._shadows
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._gl.make_current()
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._viewport, self._context)
        return np.ascontiguousarray(self._pixels[::-1])

    def upload_textures(self) -> None:
        """Take the textures of the model anew."""
        self._gl.make_current()
        for texture in range(self._model.ntex):
            mujoco.mjr_uploadTexture(self._model, self._context, texture)

    def _in_view(self, data: mujoco.MjData, camera: int) -> npt.NDArray[np.bool_]:
        """Return which geoms (n,) can be in the picture: their bounding sphere reaches into the camera's pyramid.

        A wrist camera does not see most of the arm that carries it, and every triangle that is not sent counts.
        """
        if self._shadows:  # what is out of view may throw a shadow into it
            return np.ones(self._model.ngeom, dtype=np.bool_)
        rotation = data.cam_xmat[camera].reshape(3, 3)
        right, up, back = ((data.geom_xpos - data.cam_xpos[camera]) @ rotation).T
        radius = self._model.geom_rbound
        half_y = np.radians(self._model.cam_fovy[camera]) / 2.0
        half_x = np.arctan(np.tan(half_y) * self.width / self.height)
        seen = -back > -radius
        for across, half in ((right, half_x), (up, half_y)):
            seen &= np.abs(across) * np.cos(half) + back * np.sin(half) < radius
        return np.asarray(seen | self._boundless)

    def close(self) -> None:
        """Give everything back; safe to call twice."""
        if self._gl is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._gl = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_context(backend: str, width: int, height: int) -> Any:
    """Make an OpenGL context; `make_current` and `free` are its methods.

    Args:
        backend: one of `BACKENDS`.
        width: largest width of a picture [px].
        height: largest height [px].
    """
    # PyOpenGL decides at its first import, and does not look at MuJoCo's variable.
    os.environ['PYOPENGL_PLATFORM'] = backend
    logging.getLogger('OpenGL').setLevel(logging.WARNING)  # it reports every missing accelerator
    return importlib.import_module(f'mujoco.{backend}').GLContext(width, height)


@lru_cache(maxsize=1)
def backend() -> str:
    """Return the backend to use.

    Raises:
        RenderError: none works; the message says what each of them lacks and what to install.
    """
    known = os.environ.get(REMEMBERED, '')
    if known in BACKENDS:
        return known
    wish = os.environ.get(CHOSEN_BY_USER, '').lower()
    if wish and wish not in BACKENDS:
        raise RenderError(
            f'expected {CHOSEN_BY_USER} as one of {BACKENDS}, or unset, got {wish!r}; only these draw without a screen'
        )
    reasons = []
    for candidate in (wish,) if wish else BACKENDS:
        reason = why_not(candidate)
        if not reason:
            os.environ[REMEMBERED] = candidate
            return candidate
        reasons.append(f'{candidate}: {reason}')
    raise RenderError(f'expected EGL or OSMesa to draw with, got neither ({"; ".join(reasons)}); {_REMEDY}')


def why_not(candidate: str) -> str:
    """Return why a backend does not work here, in a few words; empty if it does."""
    try:
        trial = subprocess.run(
            [sys.executable, '-c', _TRIAL, candidate],
            capture_output=True,
            text=True,
            timeout=TRIAL_TIMEOUT_S,
            check=False,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
        )
    except subprocess.TimeoutExpired:
        return f'no answer within {TRIAL_TIMEOUT_S:.0f} s'
    if trial.returncode == 0 and trial.stdout.endswith('works'):
        return ''
    if trial.returncode < 0:
        return f'ended by signal {-trial.returncode}'
    lines = [line.strip() for line in trial.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f'exit code {trial.returncode}'
