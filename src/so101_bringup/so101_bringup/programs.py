# SPDX-License-Identifier: Apache-2.0
"""One process of the stack, where its program lies, and the arguments it is started with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import os
from pathlib import Path
import signal
import sys

from so101_bringup.options import OptionError

Parameter = bool | int | float | str | Sequence[float] | Sequence[str]


@dataclass(frozen=True)
class NodeSpec:
    """One process of the stack.

    Attributes:
        name: Node name, and the label of its output.
        package: Package of the executable.
        executable: Name of the executable in that package.
        config: Parameter file in config/, or empty.
        parameters: Parameters that override the file. In these and in the arguments, {config} stands for the folder of
            the configuration.
        arguments: Plain command-line arguments; a process that is no ROS node has only these.
        is_ros: False for a process that is no ROS node.
        required: Its end stops the whole stack. Otherwise it is started again.
        outlives: It is stopped after all others have ended: the bus that an arm parks on.
        niceness: How far it steps back, when the machine is busy, behind those that move the arm.
        finishes: Its end with exit code 0 is the end of the work: the whole stack ends with 0.
        patient: It takes interrupts that came before it could; see `tied`.
    """

    name: str
    package: str
    executable: str
    config: str = ''
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    is_ros: bool = True
    required: bool = False
    outlives: bool = False
    finishes: bool = False
    niceness: int = 0
    patient: bool = False


def prefixes() -> list[Path]:
    """Where packages are installed, the nearest first."""
    return [Path(entry) for entry in os.environ.get('AMENT_PREFIX_PATH', '').split(':') if entry]


def has_package(name: str) -> bool:
    """Whether a ROS package is installed."""
    return any(
        (prefix / 'share/ament_index/resource_index/packages' / name).exists() for prefix in prefixes()
    )


def executable_path(node: NodeSpec) -> Path:
    """Path of a node's program.

    Raises:
        OptionError: it is not installed.
    """
    paths = [prefix / 'lib' / node.package / node.executable for prefix in prefixes()]
    for path in paths:
        if path.exists():
            return path
    raise OptionError(
        f'{node.name} needs lib/{node.package}/{node.executable}, which is in none of: {prefixes()}.'
    )


def ros_arguments(node: NodeSpec, namespace: str, config_directory: str) -> list[str]:
    """Command-line arguments of one node, as ros2 launch would give them."""
    arguments = [str(filled(word, config_directory)) for word in node.arguments]
    if not node.is_ros:
        return arguments
    arguments += ['--ros-args', '-r', f'__node:={node.name}']
    if namespace:
        arguments += ['-r', f'__ns:=/{namespace.strip("/")}']
    if node.config:
        arguments += ['--params-file', f'{config_directory}/{node.config}']
    for name, value in node.parameters.items():
        arguments += ['-p', f'{name}:={_yaml(filled(value, config_directory))}']
    return arguments


_TIED = (
    'import ctypes, os, signal, sys\n'
    'parent, patient, *command = sys.argv[1:]\n'
    'how = signal.SIG_BLOCK if patient == "True" else signal.SIG_UNBLOCK\n'
    f'signal.pthread_sigmask(how, [{int(signal.SIGINT)}])\n'
    f'ctypes.CDLL(None).prctl(1, {int(signal.SIGINT)}, 0, 0, 0)\n'  # PR_SET_PDEATHSIG
    'if os.getppid() != int(parent): sys.exit(1)\n'
    'os.execvp(command[0], command)'
)


def tied(node: NodeSpec) -> tuple[str, ...]:
    """Return words before a node's command that have the kernel interrupt it once this process is gone.

    However that went: nobody could stop the arm otherwise. Between fork and exec it would be shorter, but is not safe
    beside threads. A patient program starts with SIGINT blocked: Ctrl-C waits until it can end in order.
    """
    nice = ('nice', '-n', str(node.niceness)) if node.niceness else ()
    return sys.executable, '-I', '-S', '-c', _TIED, str(os.getpid()), str(node.patient), *nice


def filled(value: Parameter, config_directory: str) -> Parameter:
    """Return a value with the folder of the configuration in its place."""
    if isinstance(value, str):
        return value.replace('{config}', config_directory)
    return list(value) if isinstance(value, tuple) else value


def _yaml(value: Parameter) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f'[{", ".join(map(_yaml, value))}]'
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
