# SPDX-License-Identifier: Apache-2.0
"""One process of the stack, where its program lies, and the arguments it is started with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
import os
from pathlib import Path

from so101_bringup.options import OptionError

Parameter = bool | int | float | str


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


def filled(value: Parameter, config_directory: str) -> Parameter:
    """Return a value with the folder of the configuration in its place."""
    return value.replace('{config}', config_directory) if isinstance(value, str) else value


def _yaml(value: Parameter) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
