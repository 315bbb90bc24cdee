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
    'sim': Option(True, 'A simulated arm behind a virtual servo bus instead of the real one.'),
    'task': Option('lift', 'What the simulated scene is for.', ('lift', 'place')),
    'preset': Option('easy', 'How hard the simulated scene is: a preset of so101_sim.'),
    'operator': Option(
        False, 'A scripted operator drives the simulated arm, one demonstration after another.'
    ),
    'port': Option('/dev/so101', 'Serial device of the real arm (sim:=false).'),
    'calibration': Option(
        '', 'Calibration file of the real arm; empty: the only one in ~/.config/so101/calibration.'
    ),
    'tcp': Option(
        'so101', 'Tool centre point that actions move; a policy must get the one it was trained with.', TCPS
    ),
    'camera': Option('', 'Wrist camera: device, file or URL; empty: the simulated one, or none.'),
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
    """The arm and its camera; without a real arm, servos that have no weight to carry."""
    if not options['sim']:
        return _real_arm(options)
    port = virtual_port(str(options['namespace']))
    arguments = ('--link', port, '--calibration', f'{port}.json')
    virtual = NodeSpec('virtual_arm', 'so101_driver', 'virtual_arm', arguments=arguments, is_ros=False)
    return [
        replace(virtual, required=True, outlives=True),
        _arm_node(port, f'{port}.json', True),
        *_camera(options),
    ]


def _twin(options: Mapping[str, bool | str]) -> list[NodeSpec]:
    """The simulated arm, its table and its camera, and the very driver that moves metal."""
    port = virtual_port(str(options['namespace']))
    parameters: dict[str, Any] = {'link': port, 'task': options['task'], 'preset': options['preset']}
    if options['camera']:  # another camera takes the place of the simulated one
        parameters['camera_rate_hz'] = 0.0
    twin = NodeSpec(
        'twin_node', 'so101_sim', 'twin_node', 'sim.yaml', parameters, required=True, outlives=True
    )
    nodes = [twin, _arm_node(port, f'{port}.json', True), *_camera(options)]
    if options['operator']:
        parameters = {'mode': 'demonstrate', 'topic': 'ee_delta_cmd'}
        nodes.append(NodeSpec('operator_node', 'so101_sim', 'operator_node', 'sim.yaml', parameters))
    return nodes


def _real_arm(options: Mapping[str, bool | str]) -> list[NodeSpec]:
    return [_arm_node(str(options['port']), str(options['calibration']), False), *_camera(options)]


def _arm_node(port: str, calibration: str, enable: bool) -> NodeSpec:
    parameters = {'port': port, 'calibration': calibration, 'enable_at_start': enable}
    # The arm is never started again by itself: an arm that re-enables unasked is a hazard.
    return NodeSpec('arm_node', 'so101_driver', 'arm_node', 'driver.yaml', parameters, required=True)


def _camera(options: Mapping[str, bool | str]) -> list[NodeSpec]:
    if not options['camera']:
        return []
    parameters = {'source': options['camera']}
    return [NodeSpec('camera_node', 'so101_driver', 'camera_node', 'camera.yaml', parameters)]


def hilserl(options: Mapping[str, bool | str]) -> list[NodeSpec]:
    """The whole stack, as far as it exists."""
    nodes = _twin(options) if options['sim'] else _real_arm(options)
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
STILL_TO_COME = 'policy, session with teleoperation and recording, learner, console'


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
