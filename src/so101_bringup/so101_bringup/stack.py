# SPDX-License-Identifier: Apache-2.0
"""The stack, said once as data: which nodes run, with which parameters, and what happens when one ends.

`launch/*.launch.py` turns it into launch actions, `./so101 up` into supervised processes. Same result.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
import os
from pathlib import Path
from typing import Any, TYPE_CHECKING

from so101_bringup.options import OptionError, OPTIONS, Options, resolve
from so101_bringup.programs import has_package, NodeSpec, Parameter

if TYPE_CHECKING:
    from so101_contract.config import ContractConfig

MANIFEST = 'manifest.json'


def contract_config(checkpoint: str, observation: str, tcp: str) -> 'ContractConfig':
    """Return what all nodes are told: what the policy requires, as its manifest says.

    Args:
        checkpoint: folder of the policy; anything else requires nothing.
        observation: name of the observation where the policy requires none.
        tcp: TCP preset where it requires none.

    Raises:
        OptionError: its manifest cannot be read, or asks for what has no name.
    """
    # Here and not above: the options must be readable where nothing is installed yet.
    from so101_contract.config import ContractConfig
    from so101_contract.errors import ContractError
    from so101_contract.manifest import PolicyManifest

    manifest = Path(checkpoint).expanduser() / MANIFEST
    if checkpoint in ('none', 'default', '') or not manifest.exists():
        return ContractConfig(observation=observation, tcp=tcp)
    try:
        return ContractConfig.from_manifest(PolicyManifest.from_json(manifest.read_text()))
    except (OSError, ContractError) as error:
        raise OptionError(f'checkpoint:={checkpoint} cannot be read or run here: {error}') from error


Nodes = list[NodeSpec]

NICE = 5
"""Niceness of what may wait a moment when the machine is busy: everything that does not move the arm."""
SIM_CONNECT_TIMEOUT_S = 60.0
"""While everything starts at once on two cores, the twin may take a while [s]."""
SIM_READING_TIMEOUT_S = 2.0
"""A virtual bus falls silent when the machine is busy, at the start above all; a real one when a cable is loose [s]."""

NODES: Mapping[str, tuple[str, str]] = {
    'arm_node': ('so101_driver', 'driver.yaml'),
    'camera_node': ('so101_driver', 'camera.yaml'),
    'console_node': ('so101_console', 'console.yaml'),
    'kinematics_node': ('so101_kinematics', 'kinematics.yaml'),
    'learner_node': ('hilserl_learner', 'learner.yaml'),
    'twin_node': ('so101_sim', 'sim.yaml'),
    'operator_node': ('so101_sim', 'sim.yaml'),
    'policy_node': ('drqv2_policy_node', 'policy.yaml'),
    'recorder_node': ('so101_session', 'recorder.yaml'),
    'session_node': ('so101_session', 'session.yaml'),
    'teleop_node': ('so101_session', 'teleop.yaml'),
}
"""Node -> its package, where an executable has its name, and its parameter file in config/."""

_POLICY_SIDE = {
    'observation': 'observation',
    'tcp': 'tcp',
    'camera_preset': 'camera',
    'control_rate_hz': 'control_rate_hz',
    'ik_profile': 'ik_profile',
    'action_scale_m': 'action_scale_m',
}
AGREED: Mapping[str, Mapping[str, str]] = {
    'kinematics_node': {'tcp': 'tcp', 'camera_preset': 'camera', 'ik_profile': 'profile'},
    'session_node': {
        'observation': 'observation',
        'tcp': 'tcp',
        'control_rate_hz': 'rate_hz',
        'action_scale_m': 'action_scale_m',
    },
    'policy_node': _POLICY_SIDE,
    'learner_node': _POLICY_SIDE,
    'operator_node': {'control_rate_hz': 'rate_hz'},
    'teleop_node': {'tcp': 'tcp', 'control_rate_hz': 'rate_hz', 'action_scale_m': 'action_scale_m'},
    'recorder_node': {'observation': 'observation', 'tcp': 'tcp', 'camera_preset': 'camera_preset'},
}
"""Which fields of the contract configuration a node takes, and what its own parameter of that meaning is called.

The workspace is not among them: neither manifest nor options decide it, so a file may.
"""

_DECISIONS: Mapping[str, str] = {
    'the policy of checkpoint:= decides it': 'action_scale_m camera camera_preset control_rate_hz ik_profile profile '
    'rate_hz',
    'the simulated arm of sim:=true needs it': 'connect_timeout_s joint_timeout_s reading_timeout_s',
    'the camera of camera:= takes the place of the simulated one': 'camera_rate_hz',
    'the files that are read are the ones that are stored': 'config',
    'sim:= decides it': 'enable_at_start reward_source',
    'namespace:= decides it': 'frame_prefix link',
    'learn:= decides it': 'policy_node.mode',
    'set observation:= or checkpoint:= instead': 'observation',
    'set tcp:= or checkpoint:= instead': 'tcp',
    'set port:= (with sim:=false) instead': 'arm_node.port',
    **{
        f'set {option}:= instead': parameter
        for option, parameter in (
            *(
                ('calibration', 'calibration'),
                ('camera', 'source'),
                ('checkpoint', 'policy'),
                ('demos', 'demos'),
            ),
            *(('console_port', 'console_node.port'), ('episodes', 'episodes'), ('leader', 'leader_port')),
            *(
                ('operator', 'operator_node.mode'),
                ('preset', 'preset'),
                ('record', 'out'),
                ('run', 'directory'),
            ),
            *(('task', 'task'), ('teleop', 'device'), ('tf', 'publish_tf')),
        )
    },
}


def decided_by(node: str, parameter: str) -> str:
    """Return what decides a parameter that the stack sets, and so what to use instead of a file."""
    wanted = {parameter, f'{node}.{parameter}'}
    return next(what for what, parameters in _DECISIONS.items() if wanted.intersection(parameters.split()))


def driver(options: Options) -> Nodes:
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


def sim(options: Options) -> Nodes:
    """The simulated arm with its driver and its controller; send it ee_delta_cmd."""
    plan = {**options, 'sim': True}
    contract = _contract(plan)
    return [*_arm(plan, contract), *_control(plan, contract)]


def teleop(options: Options) -> Nodes:
    """A human drives: arm, controller, session and device, without policy and learner."""
    plan = resolve({**options, 'learn': 'false', 'checkpoint': 'none'})
    contract = _contract(plan)
    return [
        *_arm(plan, contract),
        *_control(plan, contract),
        _session(plan, contract),
        *_humans(plan, contract),
        *_watching(plan, contract),
    ]


def policy(options: Options) -> Nodes:
    """A policy drives, and nothing learns."""
    return hilserl({**options, 'learn': 'false'})


def hilserl(options: Options) -> Nodes:
    """The whole stack."""
    plan = resolve(options)
    contract = _contract(plan)
    return [
        *_arm(plan, contract),
        *_control(plan, contract),
        _session(plan, contract),
        *_policy(plan, contract),
        *_learner(plan, contract),
        *_humans(plan, contract),
        *_watching(plan, contract),
    ]


def record(options: Options) -> Nodes:
    """The recorder alone, beside a stack that runs already."""
    wanted = 'true' if options['record'] == 'false' else options['record']
    plan = resolve({**options, 'record': wanted})
    return _recorder(plan, _contract(plan))


def view(options: Options) -> Nodes:
    """Only what shows: the operator's page and RViz, beside a stack that runs already."""
    plan = resolve({**options, 'record': 'false'})
    return _watching(plan, _contract(plan))


STACKS: Mapping[str, Callable[[Options], Nodes]] = {
    'driver': driver,
    'hilserl': hilserl,
    'policy': policy,
    'record': record,
    'sim': sim,
    'teleop': teleop,
    'view': view,
}


def _node(
    name: str, parameters: Mapping[str, Parameter], contract: 'ContractConfig | None', **how: Any
) -> NodeSpec:
    """Return a node of `NODES` with its parameters and what it takes of the contract configuration."""
    package, file = NODES[name]
    agreed = {parameter: getattr(contract, field) for field, parameter in AGREED.get(name, {}).items()}
    return NodeSpec(name, package, name, file, {**parameters, **agreed}, **how)


def _arm(options: Options, contract: 'ContractConfig') -> Nodes:
    if not options['sim']:
        return _real_arm(options)
    port = virtual_port(str(options['namespace']))
    # The scene of pick-101 has the camera that its policies were trained with.
    same = contract.camera_preset == 'pick101' and options['preset'] == OPTIONS['preset'].default
    preset = 'pick101' if same else options['preset']
    parameters: dict[str, Parameter] = {'link': port, 'task': options['task'], 'preset': preset}
    if options['camera']:  # another camera takes the place of the simulated one
        parameters['camera_rate_hz'] = 0.0
    twin = _node('twin_node', parameters, None, required=True, outlives=True)
    return [twin, _arm_node(port, f'{port}.json', True), *_camera(options)]


def _real_arm(options: Options) -> Nodes:
    return [_arm_node(str(options['port']), str(options['calibration']), False), *_camera(options)]


def _arm_node(port: str, calibration: str, virtual: bool) -> NodeSpec:
    parameters: dict[str, Parameter] = {'port': port, 'calibration': calibration, 'enable_at_start': virtual}
    if virtual:
        parameters['reading_timeout_s'] = SIM_READING_TIMEOUT_S
        parameters['connect_timeout_s'] = SIM_CONNECT_TIMEOUT_S
    # The arm is never started again by itself: an arm that re-enables unasked is a hazard.
    return _node('arm_node', parameters, None, required=True)


def _camera(options: Options) -> Nodes:
    return [_node('camera_node', {'source': options['camera']}, None)] if options['camera'] else []


def _control(options: Options, contract: 'ContractConfig') -> Nodes:
    """From actions to joints, and the links' frames."""
    publisher = has_package('robot_state_publisher') if options['tf'] == 'auto' else options['tf'] == 'ros'
    namespace = str(options['namespace']).strip('/')
    prefix = f'{namespace}/' if namespace else ''  # two arms share /tf
    nodes = []
    if publisher:
        from so101_description.urdf import urdf_text

        package = 'robot_state_publisher'
        urdf = urdf_text(tcp=contract.tcp, camera=contract.camera_preset)
        described: dict[str, Parameter] = {'robot_description': urdf, 'frame_prefix': prefix}
        nodes.append(NodeSpec(package, package, package, parameters=described))
    parameters: dict[str, Parameter] = {
        'publish_tf': not publisher and options['tf'] != 'off',
        'frame_prefix': prefix,
    }
    return [*nodes, _node('kinematics_node', parameters, contract, required=True)]


def _session(plan: Options, contract: 'ContractConfig') -> NodeSpec:
    source = 'sim' if plan['sim'] else 'operator'
    parameters: dict[str, Parameter] = {'episodes': plan['episodes'], 'reward_source': source}
    if plan[
        'sim'
    ]:  # the virtual arm pauses when the machine is busy; that is no reason to cut an episode short
        parameters['joint_timeout_s'] = 0.8
    # An arm that nobody arbitrates holds still by itself, so the session may start again.
    return _node('session_node', parameters, contract, finishes=True)


def _policy(plan: Options, contract: 'ContractConfig') -> Nodes:
    if plan['operator'] == 'demonstrate' or (plan['checkpoint'] == 'none' and not plan['learn']):
        return []
    parameters = {'policy': plan['checkpoint'], 'mode': 'explore' if plan['learn'] else 'eval'}
    return [_node('policy_node', parameters, contract)]


def _learner(plan: Options, contract: 'ContractConfig') -> Nodes:
    if not plan['learn']:
        return []
    parameters = {'directory': plan['run'], 'policy': plan['checkpoint'], 'demos': plan['demos']}
    return [_node('learner_node', parameters, contract, niceness=NICE)]


def _humans(plan: Options, contract: 'ContractConfig') -> Nodes:
    """Who may drive instead of the policy: the scripted operator, and a device."""
    nodes = []
    if plan['operator'] != 'none':
        nodes.append(_node('operator_node', {'mode': plan['operator']}, contract, niceness=NICE))
    if plan['teleop'] != 'none':
        parameters = {'device': plan['teleop'], 'leader_port': plan['leader']}
        nodes.append(_node('teleop_node', parameters, contract))
    return nodes


def _watching(plan: Options, contract: 'ContractConfig') -> Nodes:
    nodes = _recorder(plan, contract)
    if plan['console']:
        nodes.append(_node('console_node', {'port': plan['console_port']}, None, niceness=NICE))
    if plan['rviz']:
        words = ('-d', '{config}/so101.rviz')
        nodes.append(NodeSpec('rviz2', 'rviz2', 'rviz2', arguments=words, niceness=NICE))
    return nodes


def _recorder(plan: Options, contract: 'ContractConfig') -> Nodes:
    if not plan['record']:
        return []
    parameters = {'out': plan['record'], 'config': '{config}'}
    return [_node('recorder_node', parameters, contract, niceness=NICE)]


def _contract(plan: Options) -> 'ContractConfig':
    return contract_config(str(plan['checkpoint']), str(plan['observation']), str(plan['tcp']))


def virtual_port(namespace: str) -> str:
    """Path of the virtual arm's port, one for each namespace of each ROS domain."""
    domain = os.environ.get('ROS_DOMAIN_ID', '0')
    parts = ['' if domain == '0' else domain, namespace.strip('/').replace('/', '-')]
    return '-'.join(['/tmp/so101-virtual-arm', *filter(None, parts)])
