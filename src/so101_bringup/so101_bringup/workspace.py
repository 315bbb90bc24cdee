# SPDX-License-Identifier: Apache-2.0
"""Makes the workspace: a virtual environment, the locked packages, the colcon build, the variables to run in.

`./so101` runs this module with the system's Python before anything is installed, so it and what it imports
use the standard library alone. Each step leaves a stamp with the hash of what it was made from, and is
skipped while the stamp matches. An interrupted step has no stamp and starts again: Ctrl-C does no harm.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
import ctypes.util
import fcntl
import hashlib
from importlib.util import find_spec
import os
from pathlib import Path
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time

from so101_bringup.commands import CommandError, run_logged, say

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
            # What is run by hand stays on this machine too; so101_interfaces_py/graph.py says why in these words.
            'case "${FASTRTPS_DEFAULT_PROFILES_FILE:-}:${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}:'
            '${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}" in',
            '    :rmw_fastrtps*:LOCALHOST) export ROS_AUTOMATIC_DISCOVERY_RANGE=SYSTEM_DEFAULT ;;',
            '    *) export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}" ;;',
            'esac',
            f'export FASTRTPS_DEFAULT_PROFILES_FILE="${{FASTRTPS_DEFAULT_PROFILES_FILE:-{profile}}}"',
            '',
        ]
    )


def fix_cmake_paths(venv: Path) -> None:
    """Make the wheels' CMake files name Python and NumPy of this environment instead of those that built them."""
    include = sysconfig.get_paths()['include']
    site = str(site_packages(venv))
    core = (
        '_core' if Path(site, 'numpy/_core/include').is_dir() else 'core'
    )  # NumPy 1 has its headers elsewhere
    for path in venv.glob('share/**/*.cmake'):
        text = path.read_text()
        fixed = re.sub(r'/opt/python/cp\d+-cp\d+/include/python3\.\d+', include, text)
        fixed = re.sub(r'/opt/python/cp\d+-cp\d+/lib/python3\.\d+/site-packages', site, fixed)
        fixed = re.sub(r'/numpy/_?core/include\b', f'/numpy/{core}/include', fixed)
        if fixed != text:
            path.write_text(fixed)


# Packages that apt brings along with ROS 2; a second copy from PyPI beside apt's extension modules crashes.
FROM_ROS = frozenset({'numpy', 'opencv-python-headless', 'pyyaml'})
# PyPI's own torch is the CUDA build; this index has the one for machines without a GPU.
TORCH_CPU_INDEX = 'https://download.pytorch.org/whl/cpu'
NVIDIA_DRIVER = Path('/proc/driver/nvidia/version')


def main(argv: Sequence[str]) -> int:
    """Prepare the workspace at argv[0]; `--dev` adds what the tests need."""
    workspace = Workspace(
        Path(argv[0]).resolve(),
        has_ros=bool(os.environ.get('SO101_ROS_PREFIX')),
        native=bool(os.environ.get('SO101_NATIVE')),
    )
    try:
        workspace.prepare(dev='--dev' in argv)
    except (CommandError, EnvironmentFileError, PrerequisiteError) as error:
        say(f'so101: {error}')
        return 1
    except OSError as error:
        say(
            f'so101: expected to write in {workspace.root}, got "{error.strerror or error}" ({error.filename}); '
            f'make it yours (chown), free space there, or clone to another place.'
        )
        return 1
    except KeyboardInterrupt:
        say('so101: interrupted; the same command goes on where this one stopped.')
        return 130
    return 0


class Workspace:
    """The virtual environment and the colcon build of one checkout.

    Args:
        root: The checkout.
        has_ros: True where a ROS 2 is sourced; else ROS 2 comes from PyPI wheels.
        native: Install NumPy and OpenCV as apt has them beside a ROS 2, although there is none.
    """

    def __init__(self, root: Path, has_ros: bool = False, native: bool = False) -> None:
        self.root = root
        self.has_ros = has_ros
        self.native = native
        self.venv = root / '.venv'
        self.python = self.venv / 'bin' / 'python'
        self.log = root / 'log' / 'so101.log'
        self._title = ''

    def prepare(self, dev: bool = False) -> None:
        """Bring every step up to date."""
        self.log.parent.mkdir(exist_ok=True)
        with self._lock():
            if self._begun('packages').exists():  # half-installed packages are not to be trusted
                self._stamp('environment').unlink(missing_ok=True)
            inputs = [sys.version, str(self.root), self.has_ros]
            self._step('environment', 'virtual environment', inputs, self._make_venv)
            inputs = [self._requirements(), self._read_stamp('environment')]
            self._step('packages', 'locked packages', inputs, self._install)
            base = self._read_stamp('packages')
            torch = self._lock_file('torch')
            self._step('torch', 'torch', [torch, NVIDIA_DRIVER.exists(), base], self._install_torch)
            if dev:
                lock = self._lock_file('dev')
                self._step('dev', 'test tools', [lock, base], lambda: self._install_tools(lock))
            self._step('build', 'colcon build', [self._build_inputs(), base], self._build)
            (self.venv / 'so101.env').write_text(environment_file(self.root, self.venv, self.has_ros))

    # --- the steps ---

    def _make_venv(self) -> None:
        check_prerequisites(self.has_ros)
        site = ['--system-site-packages'] if self.has_ros else []
        # Not the environment's own Python, where that is first on the PATH: it is about to be cleared.
        python = getattr(sys, '_base_executable', sys.executable)
        self._run([python, '-m', 'venv', '--clear', *site, str(self.venv)])

    def _install(self) -> None:
        self._begun('packages').parent.mkdir(parents=True, exist_ok=True)
        self._begun('packages').touch()
        self._pip(self._requirements())
        if not self.has_ros:
            fix_cmake_paths(self.venv)

    def _install_torch(self) -> None:
        """Install the CUDA build and its libraries where there is a GPU, else the far smaller CPU build."""
        (version,) = requirement_lines(self._lock_file('torch'))
        pip = [str(self.python), '-m', 'pip', 'install', '--disable-pip-version-check']
        if NVIDIA_DRIVER.exists():
            self._run([*pip, version])
            return
        cpu = [*pip, '--no-deps', f'{version}+cpu']
        try:
            self._run(cpu)  # where the machine's own index offers it
        except CommandError:
            self._run([*cpu, '--index-url', TORCH_CPU_INDEX])

    def _install_tools(self, lock: str) -> None:
        self._pip(lock)
        check_browser()

    def _build(self) -> None:
        compat = (
            [] if self.has_ros else sorted(path.parent for path in self.root.glob('compat/*/package.xml'))
        )
        total = len([*self.root.glob('src/*/package.xml'), *compat])
        command = [str(self.python), '-m', 'colcon', '--log-base', 'log', 'build']
        command += ['--base-paths', 'src', *(str(path.relative_to(self.root)) for path in compat)]
        command += ['--merge-install', '--symlink-install', '--event-handlers', 'console_cohesion+']
        command += ['--cmake-args', '-GNinja', '-DBUILD_TESTING=OFF', f'-DPython3_EXECUTABLE={self.python}']
        environment = os.environ | base_environment(self.venv, self.has_ros)
        self._run(command, environment, count=r'^Finished <<<', total=total)

    def _pip(self, requirements: str) -> None:
        path = self.log.parent / 'requirements.txt'
        path.write_text(requirements)
        command = [str(self.python), '-m', 'pip', 'install', '--no-deps', '--disable-pip-version-check']
        total = len(requirement_names(requirements))
        self._run([*command, '-r', str(path)], count=r'^(Collecting|Requirement already)', total=total)

    def _run(
        self,
        command: Sequence[str],
        environment: dict[str, str] | None = None,
        count: str = '',
        total: int = 0,
    ) -> None:
        run_logged(
            command,
            self.log,
            cwd=self.root,
            title=self._title,
            environment=environment,
            count=count,
            total=total,
        )

    # --- what the steps depend on ---

    def _lock_file(self, name: str) -> str:
        return (self.root / 'requirements' / f'{name}.txt').read_text()

    def _requirements(self) -> str:
        names = ('run', 'build') if self.has_ros else ('ros', 'run', 'build')
        lines = '\n'.join(map(self._lock_file, names)).splitlines()
        if self.has_ros or self.native:
            differs = self._lock_file('native')
            lines = [
                one for one in lines if not set(requirement_names(differs)) & set(requirement_names(one))
            ]
            lines += differs.splitlines()
        drop = FROM_ROS if self.has_ros else frozenset()
        return '\n'.join(line for line in lines if not drop.intersection(requirement_names(line))) + '\n'

    def _build_inputs(self) -> str:
        """What ./so101 compares to see whether anything must be done; it has the list."""
        words = ['sh', str(self.root / 'so101'), '--fingerprint']
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    # --- stamps and locks ---

    def _step(self, name: str, title: str, inputs: Sequence[object], action: Callable[[], None]) -> None:
        key = hashlib.sha256(repr(inputs).encode()).hexdigest()
        if self._read_stamp(name) == key:
            return
        started = time.monotonic()
        self._title = f'so101: {title} ...'
        say(self._title, end='')
        try:
            action()
        except BaseException:
            say('')
            raise
        self._stamp(name).parent.mkdir(parents=True, exist_ok=True)
        self._stamp(name).write_text(key)
        self._begun(name).unlink(missing_ok=True)
        back, rest = (f'\r{self._title}', '\033[K') if sys.stderr.isatty() else ('', '')
        say(f'{back} {time.monotonic() - started:.0f} s{rest}')

    def _stamp(self, name: str) -> Path:
        return self.venv / 'so101-stamps' / name

    def _begun(self, name: str) -> Path:
        return self.venv / 'so101-stamps' / f'{name}.begun'

    def _read_stamp(self, name: str) -> str:
        return self._stamp(name).read_text() if self._stamp(name).exists() else ''

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.log.parent / 'so101.lock').open('w') as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say('so101: another ./so101 is preparing this workspace; waiting for it.')
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def requirement_lines(text: str) -> list[str]:
    """The requirements in a file, without comments."""
    lines = (line.partition('#')[0].strip() for line in text.splitlines())
    return [line for line in lines if '==' in line]


def requirement_names(text: str) -> list[str]:
    """Names of the packages that a requirements file lists."""
    return [line.split('==')[0].lower() for line in requirement_lines(text)]


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
    if has_ros:
        require_its_python(os.environ.get('SO101_ROS_PREFIX', ''))
    wanted = missing_packages(has_ros) + missing_for_pictures()
    if wanted and os.geteuid() == 0 and shutil.which('apt-get'):
        say(f'\nso101: installing {" ".join(wanted)} with apt-get ...')
        _apt(['update', '-q'])
        _apt(['install', '-qy', '--no-install-recommends', *wanted])
    if missing_for_pictures():
        say(
            '\nso101: no OpenGL without a screen here, so the simulated camera stays dark; '
            f'for pictures: sudo apt install {" ".join(missing_for_pictures())}'
        )
    missing = missing_packages(has_ros)
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


def require_its_python(prefixes: str) -> None:
    """Refuse a Python that the sourced ROS 2 was not made for: its extension modules fit one version alone.

    Raises:
        PrerequisiteError: with the one that fits, where there is one.
    """
    found = [
        path for prefix in prefixes.split(':') if prefix for path in Path(prefix).glob('lib/python3*/*/rclpy')
    ]
    made_for = sorted({path.parts[-3] for path in found})
    ours = f'python3.{sys.version_info.minor}'
    if ours not in made_for:
        remedy = f'set SO101_PYTHON to {made_for[-1]}' if made_for else 'install ros-jazzy-rclpy'
        raise PrerequisiteError(
            f'expected rclpy for {ours} in the sourced ROS 2 ({prefixes.strip(":")}), found it for '
            f'{", ".join(made_for) or "none"}; {remedy}, or start a shell in which no ROS is sourced.'
        )


BESIDE_ROS = {'numpy': 'python3-numpy', 'cv2': 'python3-opencv', 'yaml': 'python3-yaml'}
"""Of modules that must be those of the system where its ROS is used, the Debian packages."""


def missing_packages(has_ros: bool = False) -> list[str]:
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
    if has_ros:
        missing += [package for module, package in BESIDE_ROS.items() if find_spec(module) is None]
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


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
