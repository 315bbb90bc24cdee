# SPDX-License-Identifier: Apache-2.0
"""For the tests of the plug-ins: they need no ROS, so nothing is kept apart here."""

from importlib.util import find_spec
from pathlib import Path
import sys
import types

import pytest


@pytest.fixture(scope='session')
def packages():
    """Without LeRobot the packages of the plug-ins stand bare, so that those of their modules import that need none."""
    if find_spec('lerobot') is None:
        for folder in sorted(Path(__file__).parent.glob('*/pyproject.toml')):
            name = folder.parent.name
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = [str(folder.parent / name)]


@pytest.fixture(scope='session')
def renders():
    """Skip where pictures cannot be drawn at all."""
    from so101_sim import render
    from so101_sim.errors import RenderError

    try:
        render.backend()
    except RenderError as error:
        pytest.skip(str(error))
