# SPDX-License-Identifier: Apache-2.0
"""How pictures can be drawn on this machine without a screen: EGL where it works, else OSMesa.

A graphics library that is half installed may end the process instead of raising, so each way is tried in a process of
its own. The answer is remembered in the environment, so that child processes do not try again.
"""

from functools import lru_cache
import importlib
import logging
import os
import subprocess
import sys
from typing import Any

from so101_sim.errors import RenderError

BACKENDS = ('egl', 'osmesa')
REMEMBERED = 'SO101_GL'
"""Environment variable with the backend that works here; set it to skip the trial."""

CHOSEN_BY_USER = 'MUJOCO_GL'
"""MuJoCo's own variable. A backend named there is the only one tried."""

TRIAL_TIMEOUT_S = 60.0
_REMEDY = 'install Mesa (Debian, Ubuntu: apt install libegl1 libegl-mesa0, or: apt install libosmesa6)'
_TRIAL = """
import sys
from so101_sim.gl import make_context
context = make_context(sys.argv[1], 16, 16)
context.make_current()
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco/>')
mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
sys.stdout.write('works')
"""


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
