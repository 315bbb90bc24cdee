# SPDX-License-Identifier: Apache-2.0
"""What pip cannot bring: a compiler, Python's headers, the venv module, the right kind of machine."""

import ctypes.util
import os
from pathlib import Path
import platform
import shutil
import subprocess
import sys
import sysconfig

from so101_bringup.progress import say


class PrerequisiteError(Exception):
    """Something is missing; the message says what, and the command that brings it."""


def check_prerequisites(has_ros: bool) -> None:
    """Check that the workspace can be made here; as root on Debian or Ubuntu, install what is missing.

    Raises:
        PrerequisiteError: one sentence that names everything still missing.
    """
    machine = f'{platform.system()} on {platform.machine()}'
    if not has_ros and machine != 'Linux on x86_64':
        raise PrerequisiteError(
            f'the ROS 2 wheels exist for Linux on x86_64 only, this is {machine}; '
            'install ROS 2 Jazzy, source its setup file, and run this again.'
        )
    wanted = missing_packages() + missing_for_pictures()
    if wanted and os.geteuid() == 0 and shutil.which('apt-get'):
        say(f'\nso101: installing {" ".join(wanted)} with apt-get ...')
        _apt(['update', '-q'])
        _apt(['install', '-qy', '--no-install-recommends', *wanted])
    if missing_for_pictures():
        say(
            '\nso101: no OpenGL without a screen here, so the simulated camera stays dark; '
            f'for pictures: sudo apt install {" ".join(missing_for_pictures())}'
        )
    missing = missing_packages()
    if missing:
        raise PrerequisiteError(
            f'what pip cannot bring is missing; install it with: sudo apt install {" ".join(missing)}'
        )


def check_browser() -> None:
    """Look for the browser that the tests of the console drive, and as root on Debian install it; they skip without."""
    if shutil.which('chromium'):
        return
    if os.geteuid() == 0 and shutil.which('apt-get'):
        say('\nso101: installing chromium with apt-get ...')
        _apt(['update', '-q'])
        _apt(['install', '-qy', '--no-install-recommends', 'chromium', 'fonts-dejavu-core'])
    if not shutil.which('chromium'):
        say(
            "\nso101: no chromium here, so the console's browser tests are skipped; for them: sudo apt install chromium"
        )


def missing_packages() -> list[str]:
    """Debian packages that hold what is missing here."""
    version = f'python3.{sys.version_info.minor}'
    missing = []
    if not any(shutil.which(compiler) for compiler in ('c++', 'g++', 'clang++')):
        missing.append('g++')
    if not Path(sysconfig.get_paths()['include'], 'Python.h').exists():
        missing.append(f'{version}-dev')
    probe = subprocess.run([sys.executable, '-c', 'import venv, ensurepip'], capture_output=True, check=False)
    if probe.returncode != 0:
        missing.append(f'{version}-venv')
    return missing


def missing_for_pictures() -> list[str]:
    """Debian packages for drawing without a screen, where neither EGL nor OSMesa is there."""
    if ctypes.util.find_library('EGL') or ctypes.util.find_library('OSMesa'):
        return []
    return ['libegl1', 'libegl-mesa0', 'libgl1-mesa-dri']


def _apt(arguments: list[str]) -> None:
    environment = os.environ | {'DEBIAN_FRONTEND': 'noninteractive'}
    # What failed shows in the second look at what is missing.
    subprocess.run(['apt-get', *arguments], check=False, stdout=subprocess.DEVNULL, env=environment)
