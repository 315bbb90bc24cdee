# SPDX-License-Identifier: Apache-2.0
"""The variables that a process of the workspace runs with, and the file that sets them."""

import os
from pathlib import Path
import re
import shlex
import subprocess
import sysconfig

# Shell variables that the set-up file of a colcon build changes.
BUILD_VARIABLES = ('AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH', 'LD_LIBRARY_PATH', 'PATH', 'PYTHONPATH')


class EnvironmentFileError(Exception):
    """The set-up file of the build could not be read."""


def site_packages(venv: Path) -> Path:
    """Folder of the packages of a virtual environment."""
    return next(venv.glob('lib/python3*/site-packages'))


def base_environment(venv: Path, has_ros: bool) -> dict[str, str]:
    """Variables to build with: they make the virtual environment a ROS 2 prefix, as a setup file would."""
    own = {'PATH': f'{venv / "bin"}:{os.environ.get("PATH", "")}', 'VIRTUAL_ENV': str(venv)}
    if has_ros:
        return own
    libraries = [venv / 'lib', *sorted(site_packages(venv).glob('ros_*.libs'))]
    return own | {
        'AMENT_PREFIX_PATH': str(venv),
        'CMAKE_PREFIX_PATH': str(venv),
        'LD_LIBRARY_PATH': ':'.join(map(str, libraries)),
        'PYTHONPATH': '',
        'ROS_DISTRO': 'jazzy',
        'ROS_VERSION': '2',
        'ROS_PYTHON_VERSION': '3',
        'RMW_IMPLEMENTATION': 'rmw_fastrtps_cpp',
        # The wheels restart every Python here to set LD_LIBRARY_PATH, unless this says that it is set.
        '_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1',
    }


def environment_file(root: Path, venv: Path, has_ros: bool) -> str:
    """Text of a shell file that sets everything to run with: `base_environment` and what colcon built.

    Sourcing colcon's own set-up file at every start would cost a second; its result is kept here instead.
    """
    base = base_environment(venv, has_ros)
    setup = root / 'install' / 'setup.sh'
    clean = {key: value for key, value in os.environ.items() if not key.startswith('COLCON_')}
    shell = subprocess.run(
        ['/bin/sh', '-c', f'. {shlex.quote(str(setup))} && env -0'],
        env=clean | base,
        capture_output=True,
        cwd=root,
        check=False,
    )
    if shell.returncode != 0:
        raise EnvironmentFileError(
            f'{setup} failed: {shell.stderr.decode().strip()}; remove install/ and build/, then try again.'
        )
    built = dict(item.split('=', 1) for item in shell.stdout.decode().split('\0') if '=' in item)
    values = base | {key: built[key] for key in BUILD_VARIABLES if built.get(key)}
    own_path = values.pop('PATH').removesuffix(os.environ.get('PATH', ''))
    profile = shlex.quote(str(root / 'config' / 'fastdds.xml'))
    return '\n'.join(
        [
            '# Made by ./so101 and sourced by it at every start. Source it to work in the same environment.',
            *(f'export {key}={shlex.quote(value)}' for key, value in sorted(values.items())),
            f'export PATH={shlex.quote(own_path)}"$PATH"',
            f'export SO101_ROOT={shlex.quote(str(root))}',
            f'export FASTRTPS_DEFAULT_PROFILES_FILE="${{FASTRTPS_DEFAULT_PROFILES_FILE:-{profile}}}"',
            '',
        ]
    )


def fix_cmake_paths(venv: Path) -> None:
    """Make the wheels' CMake files name this environment's Python instead of the one that built them."""
    include = sysconfig.get_paths()['include']
    site = str(site_packages(venv))
    for path in venv.glob('share/**/*.cmake'):
        text = path.read_text()
        fixed = re.sub(r'/opt/python/cp\d+-cp\d+/include/python3\.\d+', include, text)
        fixed = re.sub(r'/opt/python/cp\d+-cp\d+/lib/python3\.\d+/site-packages', site, fixed)
        if fixed != text:
            path.write_text(fixed)
