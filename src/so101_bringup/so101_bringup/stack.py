# SPDX-License-Identifier: Apache-2.0
"""The stack, said once as data: which nodes run, with which parameters, and what happens when one ends.

`launch/*.launch.py` turns it into launch actions, `./so101 up` into supervised processes. Same result.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
import os
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Option:
    """One thing that a person chooses when starting the stack: `name:=value`."""

    default: bool | str
    doc: str
    choices: tuple[str, ...] = ()


# As in so101_description.tcp; a test compares. Importing it here would load the whole model for `--help`.
TCPS = ('so101', 'so_arm100', 'pick101', 'menagerie')

OPTIONS: Mapping[str, Option] = {
    'namespace': Option('', 'Namespace of all nodes; a second arm gets another one.'),
    'sim': Option(True, 'A virtual arm on a pseudo-terminal instead of the real one.'),
    'port': Option('/dev/so101', 'Serial device of the real arm (sim:=false).'),
    'calibration': Option(
        '', 'Calibration file of the real arm; empty: the only one in ~/.config/so101/calibration.'
    ),
    'tcp': Option(
        'so101', 'Tool centre point that actions move; a policy must get the one it was trained with.', TCPS
    ),
    'camera': Option('', 'Wrist camera: device, file or URL; empty: no camera node.'),
    'tf': Option(
        'auto',
        'Who publishes /tf and robot_description: ros (robot_state_publisher), own (kinematics_node), off, '
        'or auto: the first of them that is installed.',
        ('auto', 'ros', 'own', 'off'),
    ),
}


class OptionError(ValueError):
    """An option that does not exist, or a value that it does not take."""


@dataclass(frozen=True)
class NodeSpec:
    """One process of the stack.

    Attributes:
        name: Node name, and the label of its output.
        package: Package of the executable.
        executable: Name of the executable in that package.
        config: Parameter file in config/, or empty.
        parameters: Parameters that override the file.
        arguments: Plain command-line arguments; a process that is no ROS node has only these.
        is_ros: False for a process that is no ROS node.
        required: Its end stops the whole stack. Otherwise it is started again.
        outlives: It is stopped after all others have ended: the bus that an arm parks on.
    """

    name: str
    package: str
    executable: str
    config: str = ''
    parameters: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    is_ros: bool = True
    required: bool = False
    outlives: bool = False


def parse_options(words: list[str]) -> dict[str, bool | str]:
    """Read `name:=value` words and fill in the defaults.

    Raises:
        OptionError: naming the word and what is possible.
    """
    values = {name: option.default for name, option in OPTIONS.items()}
    for word in words:
        name, separator, value = word.partition(':=')
        if not separator or name not in OPTIONS:
            raise OptionError(
                f'{word!r} is no option of the stack; write name:=value with one of: {", ".join(OPTIONS)}.'
            )
        option = OPTIONS[name]
        if option.choices and value not in option.choices:
            raise OptionError(f'{name}:={value} is not one of: {", ".join(option.choices)}.')
        values[name] = _boolean(name, value) if isinstance(option.default, bool) else value
    return values


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in ('true', 'false'):
        raise OptionError(f'{name}:={value} is neither true nor false.')
    return value.lower() == 'true'


def driver(options: Mapping[str, bool | str]) -> list[NodeSpec]:
    """The arm, real or virtual, and its camera."""
    nodes = []
    parameters = {'port': options['port'], 'calibration': options['calibration']}
    if options['sim']:
        port = virtual_port(str(options['namespace']))
        parameters |= {'port': port, 'calibration': f'{port}.json', 'enable_at_start': True}
        arguments = ('--link', port, '--calibration', f'{port}.json')
        arm = NodeSpec('virtual_arm', 'so101_driver', 'virtual_arm', arguments=arguments, is_ros=False)
        nodes.append(replace(arm, required=True, outlives=True))
    # The arm is never started again by itself: an arm that re-enables unasked is a hazard.
    nodes.append(NodeSpec('arm_node', 'so101_driver', 'arm_node', 'driver.yaml', parameters, required=True))
    if options['camera']:
        nodes.append(
            NodeSpec(
                'camera_node', 'so101_driver', 'camera_node', 'camera.yaml', {'source': options['camera']}
            )
        )
    return nodes


def hilserl(options: Mapping[str, bool | str]) -> list[NodeSpec]:
    """The whole stack, as far as it exists."""
    nodes = driver(options)
    publisher = has_package('robot_state_publisher') if options['tf'] == 'auto' else options['tf'] == 'ros'
    if publisher:
        from so101_description.urdf import urdf_text

        package = 'robot_state_publisher'
        nodes.append(
            NodeSpec(
                package,
                package,
                package,
                parameters={'robot_description': urdf_text(tcp=str(options['tcp']))},
            )
        )
    parameters = {'publish_tf': not publisher and options['tf'] != 'off', 'tcp': options['tcp']}
    kinematics = NodeSpec(
        'kinematics_node', 'so101_kinematics', 'kinematics_node', 'kinematics.yaml', parameters, required=True
    )
    return [*nodes, kinematics]


STACKS: Mapping[str, Callable[[Mapping[str, bool | str]], list[NodeSpec]]] = {
    'driver': driver,
    'hilserl': hilserl,
}
STILL_TO_COME = 'the MuJoCo twin with its camera, policy, session and teleoperation, learner, console'


def virtual_port(namespace: str) -> str:
    """Path of the virtual arm's port, one for each namespace."""
    suffix = namespace.strip('/').replace('/', '-')
    return f'/tmp/so101-virtual-arm{"-" + suffix if suffix else ""}'


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
    arguments = list(node.arguments)
    if not node.is_ros:
        return arguments
    arguments += ['--ros-args', '-r', f'__node:={node.name}']
    if namespace:
        arguments += ['-r', f'__ns:=/{namespace.strip("/")}']
    if node.config:
        arguments += ['--params-file', f'{config_directory}/{node.config}']
    for name, value in node.parameters.items():
        arguments += ['-p', f'{name}:={_yaml(value)}']
    return arguments


def _yaml(value: bool | str | float) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
