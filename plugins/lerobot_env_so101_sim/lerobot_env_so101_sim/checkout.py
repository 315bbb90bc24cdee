# SPDX-License-Identifier: Apache-2.0
"""Where the packages of this project are: in LeRobot's environment nobody has installed them.

What the plug-ins use of them needs no ROS, and the simulation is worth nothing beside another version of the arm. So
they are taken from the checkout that the plug-in was installed from (`pip install -e`), or that SO101_ROOT names.
"""

from importlib.util import find_spec
import os
from pathlib import Path
import sys

ROOT = 'SO101_ROOT'
WANTED = 'so101_sim'


def find_checkout() -> Path:
    """Return the folder of the checkout.

    Raises:
        ImportError: there is none.
    """
    places = [Path(os.environ[ROOT])] if os.environ.get(ROOT) else list(Path(__file__).resolve().parents)
    for place in places:
        if (place / 'src' / WANTED / WANTED / '__init__.py').exists():
            return place
    raise ImportError(
        f'expected the checkout of the SO-101 project, found none above {__file__}; install the plug-in from it with '
        f'pip install -e, or name its folder in {ROOT}'
    )


def use_checkout() -> None:
    """Put the packages of the checkout behind everything else that can be imported, unless they can be already.

    Raises:
        ImportError: there is no checkout.
    """
    if find_spec(WANTED) is None:
        sys.path += [str(path.parent) for path in sorted(find_checkout().glob('src/*/package.xml'))]
