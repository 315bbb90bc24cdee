# SPDX-License-Identifier: Apache-2.0
"""The stack, said once as data: which nodes run, with which parameters, and what happens when one ends.

`launch/*.launch.py` turns it into launch actions, `./so101 up` into supervised processes. Same result.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TYPE_CHECKING

from so101_bringup.options import arms_of, is_server, OPTIONS, Options, place_of, resolve, virtual_port
from so101_bringup.programs import has_package, NodeSpec, Parameter
from so101_bringup.task_options import (
    all_of,
    contract_of,
    devices,
    operator_told,
    puts_back,
    reward_of,
    task_of,
)

if TYPE_CHECKING:
    from so101_contract.config import ContractConfig

Nodes = list[NodeSpec]

NICE = 5
"""Niceness of what may wait a moment when the machine is busy: everything that does not move the arm."""
SIM_CONNECT_TIMEOUT_S = 60.0
"""While everything starts at once on two cores, the twin may take a while [s]."""
SIM_READING_TIMEOUT_S = 2.0
"""A virtual bus falls silent when the machine is busy, at the start above all; a real one when a cable is loose [s]."""

WORLD = 'world'
"""The frame that arms stand in that are seen together."""
RVIZ_ARMS = ('first', 'second')
RVIZ_TOPICS = ('robot_description', 'markers', 'gripper_cam/image_raw')
"""What config/so101_two.rviz calls the arms, and what it shows of each."""

NODES: Mapping[str, tuple[str, str]] = {
    'arm_node': ('so101_driver', 'driver.yaml'),
    'camera_node': ('so101_driver', 'camera.yaml'),
    'classifier_node': ('hilserl_learner', 'learner.yaml'),
    'console_node': ('so101_console', 'console.yaml'),
    'kinematics_node': ('so101_kinematics', 'kinematics.yaml'),
    'learner_node': ('hilserl_learner', 'learner.yaml'),
    'lerobot_node': ('so101_session', 'lerobot.yaml'),
    'twin_node': ('so101_sim', 'sim.yaml'),
    'operator_node': ('so101_sim', 'sim.yaml'),
    'policy_node': ('drqv2_policy_node', 'policy.yaml'),
    'vla_policy_node': ('vla_policy_node', 'vla_policy.yaml'),
    'recorder_node': ('so101_session', 'recorder.yaml'),
    'session_node': ('so101_session', 'session.yaml'),
    'teleop_node': ('so101_session', 'teleop.yaml'),
    'trial_node': ('hilserl_learner', 'learner.yaml'),
}
"""Node -> its package, where an executable has its name, and its parameter file in config/."""

_POLICY_SIDE = {
    'observation': 'observation',
    'task': 'task',
    'cameras': 'cameras',
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
        'task': 'task',
        'cameras': 'cameras',
        'tcp': 'tcp',
        'control_rate_hz': 'rate_hz',
        'action_scale_m': 'action_scale_m',
    },
    'policy_node': _POLICY_SIDE,
    'vla_policy_node': _POLICY_SIDE,
    'learner_node': _POLICY_SIDE,
    'classifier_node': {
        'observation': 'observation',
        'task': 'task',
        'cameras': 'cameras',
        'control_rate_hz': 'rate_hz',
    },
    'console_node': {'task': 'task', 'cameras': 'cameras'},
    'twin_node': {'task': 'task'},
    'operator_node': {'control_rate_hz': 'rate_hz', 'task': 'task'},
    'teleop_node': {'tcp': 'tcp', 'control_rate_hz': 'rate_hz', 'action_scale_m': 'action_scale_m'},
    'recorder_node': {
        'observation': 'observation',
        'tcp': 'tcp',
        'camera_preset': 'camera_preset',
        'task': 'task',
        'cameras': 'cameras',
    },
}
"""Which fields of the contract configuration a node takes, and what its own parameter of that meaning is called.

The workspace is not among them: where the task does not decide it, a file may.
"""


def driver(options: Options) -> Nodes:
    """The arm and its camera; without a real arm, servos that have no weight to carry."""
    if not options['sim']:
        return _real_arm(options)
    port = virtual_port(str(options['namespace']))
    arguments = ('--link', port, '--calibration', f'{port}.json')
    virtual = NodeSpec('virtual_arm', 'so101_driver', 'virtual_arm', arguments=arguments, is_ros=False)
    return [
        replace(virtual, required=True, outlives=True, patient=True),
        _arm_node(options, port, f'{port}.json'),
        *_camera(options),
    ]


def sim(options: Options) -> Nodes:
    """The simulated arm with its driver and its controller; send it ee_delta_cmd."""
    plan = {**options, 'sim': True}
    contract = contract_of(plan)
    return [*_arm(plan, contract), *_control(plan, contract)]


def teleop(options: Options) -> Nodes:
    """A human drives: arm, controller, session and device, without policy and learner."""
    plan = resolve({**options, 'learn': 'false', 'checkpoint': 'none'})
    contract = contract_of(plan)
    return [
        *_arm(plan, contract),
        *_control(plan, contract),
        *_referee(plan, contract),
        *_humans(plan, contract),
        *_watching(plan, contract),
    ]


def policy(options: Options) -> Nodes:
    """A policy drives, and nothing learns."""
    return hilserl({**options, 'learn': 'false'})


def hilserl(options: Options) -> Nodes:
    """The whole stack."""
    plan = resolve(options)
    contract = contract_of(plan)
    return [
        *_arm(plan, contract),
        *_control(plan, contract),
        *_referee(plan, contract),
        *_policy(plan, contract),
        *_learner(plan, contract),
        *_humans(plan, contract),
        *_watching(plan, contract),
    ]


def lerobot(options: Options) -> Nodes:
    """LeRobot's programs drive: arm, door and page, without session, policy and learner."""
    plan = resolve({**options, 'learn': 'false', 'checkpoint': 'none', 'lerobot': True})
    contract = contract_of(plan)
    return [
        *_arm(plan, contract),
        *_control(plan, contract),
        *_lerobot(plan, drives=True),
        *_watching({**plan, 'lerobot': False}, contract),
    ]


def actor(options: Options) -> Nodes:
    """All but the learner, which runs elsewhere or later: the policy explores, and takes the weights that come."""
    return [node for node in hilserl({**options, 'learn': 'true'}) if node.name != 'learner_node']


def learner(options: Options) -> Nodes:
    """The learner alone, beside an `actor` with the same options."""
    return [node for node in hilserl({**options, 'learn': 'true'}) if node.name == 'learner_node']


def trial(options: Options) -> Nodes:
    """One policy or two on trial: nobody helps, nothing learns, and each episode waits until it is asked for."""
    plan = resolve({**options, 'learn': 'false', 'operator': 'none', 'episodes': 0})
    contract = contract_of(plan)
    session, *classifier = _referee(plan, contract)
    asked: dict[str, Parameter] = {**session.parameters, 'auto': False, 'autostart': False}
    tried: dict[str, Parameter] = {'plan': plan['trial'], 'starts': plan['sim']}
    return [
        *_arm(plan, contract),
        *_control(plan, contract),
        replace(session, parameters=asked),
        *classifier,
        *_policy(plan, contract),
        _node('trial_node', tried, contract, required=True, finishes=True),
        *_watching(plan, contract),
    ]


def record(options: Options) -> Nodes:
    """The recorder alone, beside a stack that runs already."""
    wanted = 'true' if options['record'] == 'false' else options['record']
    plan = resolve({**options, 'record': wanted})
    return _recorder(plan, contract_of(plan))


def view(options: Options) -> Nodes:
    """Only what shows: the operator's page and RViz, beside a stack that runs already."""
    plan = resolve({**options, 'record': 'false'})
    return _watching(plan, contract_of(plan))


STACKS: Mapping[str, Callable[[Options], Nodes]] = {
    'actor': actor,
    'driver': driver,
    'hilserl': hilserl,
    'learner': learner,
    'lerobot': lerobot,
    'policy': policy,
    'record': record,
    'sim': sim,
    'teleop': teleop,
    'trial': trial,
    'view': view,
}


def _node(
    name: str, parameters: Mapping[str, Parameter], contract: 'ContractConfig | None', **how: Any
) -> NodeSpec:
    """Return a node of `NODES` with its parameters and what it takes of the contract configuration."""
    package, file = NODES[name]
    agreed = {parameter: getattr(contract, field) for field, parameter in AGREED.get(name, {}).items()}
    return NodeSpec(name, package, name, file, {**parameters, **agreed}, patient=True, **how)


def _arm(options: Options, contract: 'ContractConfig') -> Nodes:
    if not options['sim']:
        return _real_arm(options)
    port = virtual_port(str(options['namespace']))
    preset = _preset(options, contract)
    parameters: dict[str, Parameter] = {'link': port, 'preset': preset, 'frame_prefix': _prefix(options)}
    drawn = [camera.name for camera in all_of(options, contract) if camera.name not in devices(options)]
    if drawn:
        parameters['drawn_cameras'] = tuple(drawn)
    else:  # other cameras take the place of the simulated ones
        parameters['camera_rate_hz'] = 0.0
    twin = _node('twin_node', parameters, contract, required=True, outlives=True)
    return [twin, _arm_node(options, port, f'{port}.json'), *_camera(options)]


def _preset(options: Options, contract: 'ContractConfig') -> str:
    # The scene of pick-101 has the camera that its policies were trained with.
    same = contract.camera_preset == 'pick101' and options['preset'] == OPTIONS['preset'].default
    return 'pick101' if same else str(options['preset'])


def _scene(plan: Options, contract: 'ContractConfig') -> str:
    """Return whose experience a learner gets, in words that another arm or another scene does not share."""
    if not plan['sim']:
        from so101_driver.calibration.calibration import CalibrationError
        from so101_driver.calibration.files import find_calibration

        try:
            return f'real arm {find_calibration(str(plan["calibration"])).calibration_id}'
        except CalibrationError:  # preflight says it, and nothing starts
            return 'real arm'
    namespace = str(plan['namespace']).strip('/')
    words = ['simulated arm', task_of(plan).name, _preset(plan, contract), namespace]
    return ', '.join(str(word) for word in words if word)


def _real_arm(options: Options) -> Nodes:
    return [_arm_node(options, str(options['port']), str(options['calibration'])), *_camera(options)]


def _prefix(options: Options) -> str:
    """Return what stands before every frame: two arms share /tf."""
    namespace = str(options['namespace']).strip('/')
    return f'{namespace}/' if namespace else ''


def _arm_node(options: Options, port: str, calibration: str) -> NodeSpec:
    parameters: dict[str, Parameter] = {
        'port': port,
        'calibration': calibration,
        'enable_at_start': options['sim'],
        'frame_prefix': _prefix(options),
    }
    if options['sim']:
        parameters['reading_timeout_s'] = SIM_READING_TIMEOUT_S
        parameters['connect_timeout_s'] = SIM_CONNECT_TIMEOUT_S
    # The arm is never started again by itself: an arm that re-enables unasked is a hazard.
    return _node('arm_node', parameters, None, required=True)


def _camera(options: Options) -> Nodes:
    given = devices(options)
    if not given:
        return []
    several = (
        tuple(f'{name}={device}' for name, device in given.items()) if list(given) != ['wrist'] else ('',)
    )
    parameters: dict[str, Parameter] = {'sources': several, 'frame_prefix': _prefix(options)}
    if 'wrist' in given:
        parameters['source'] = given['wrist']
    return [_node('camera_node', parameters, None)]


def _control(options: Options, contract: 'ContractConfig') -> Nodes:
    """From actions to joints, and the links' frames."""
    publisher = has_package('robot_state_publisher') if options['tf'] == 'auto' else options['tf'] == 'ros'
    prefix = _prefix(options)
    nodes = []
    if publisher:
        from so101_description.urdf import urdf_text

        package = 'robot_state_publisher'
        # With the prefix in it, RViz finds the frames of the links as they are.
        urdf = urdf_text(tcp=contract.tcp, camera=contract.camera_preset, prefix=prefix)
        described: dict[str, Parameter] = {'robot_description': urdf}
        nodes.append(NodeSpec(package, package, package, parameters=described))
    parameters: dict[str, Parameter] = {
        'publish_tf': not publisher and options['tf'] != 'off',
        'frame_prefix': prefix,
    }
    if options['place']:
        parameters |= {'world_frame': WORLD, 'place': place_of(str(options['place']))}
    box = task_of(options).workspace
    if box is not None:
        parameters |= {'workspace_min': box.low, 'workspace_max': box.high}
    return [*nodes, _node('kinematics_node', parameters, contract, required=True)]


def _session(plan: Options, contract: 'ContractConfig') -> NodeSpec:
    # Metal never moves before somebody has asked for it.
    parameters: dict[str, Parameter] = {
        'episodes': plan['episodes'],
        'reward_source': reward_of(plan),
        'simulated': plan['sim'],
        'autostart': plan['sim'],
        'put_back': puts_back(plan),
    }
    # The virtual arm pauses when the machine is busy; that is no reason to cut an episode short.
    if plan['sim']:
        parameters['joint_timeout_s'] = 0.8
    # An arm that nobody arbitrates holds still by itself, so the session may start again.
    return _node('session_node', parameters, contract, finishes=True)


def _referee(plan: Options, contract: 'ContractConfig') -> Nodes:
    """The session, and what sees success in pictures, where the reward wants it or where it shall learn."""
    folder, session = plan['classifier'], _session(plan, contract)
    if not folder and 'classifier' not in reward_of(plan).split(','):
        return [session]
    where = {'directory': folder or f'classifiers/{task_of(plan).name}'}
    return [session, _node('classifier_node', where, contract)]


def _policy(plan: Options, contract: 'ContractConfig') -> Nodes:
    if plan['server'] and plan['operator'] != 'demonstrate':
        return [_node('vla_policy_node', _through_server(plan), contract)]
    nothing = plan['checkpoint'] == 'none' and not plan['learn'] and not plan['base']
    if plan['operator'] == 'demonstrate' or nothing:
        return []
    parameters: dict[str, Parameter] = {
        'policy': plan['checkpoint'],
        'mode': 'explore' if plan['learn'] else 'eval',
    }
    nodes = []
    if is_server(plan):
        parameters['base'] = 'server'
        asked = {**_through_server({**plan, 'server': plan['base']}), 'as_base': True}
        nodes.append(_node('vla_policy_node', asked, contract))
    elif plan['base']:
        parameters['base'] = plan['base']
    return [*nodes, _node('policy_node', parameters, contract)]


def _through_server(plan: Options) -> dict[str, Parameter]:
    told: dict[str, Parameter] = {name: plan[name] for name in ('server', 'units', 'instruction')}
    return {**told, 'calibration': 'none' if plan['sim'] else plan['calibration'], 'mode': 'eval'}


def _learner(plan: Options, contract: 'ContractConfig') -> Nodes:
    if not plan['learn']:
        return []
    parameters: dict[str, Parameter] = {
        'directory': plan['run'],
        'policy': plan['checkpoint'],
        'demos': plan['demos'],
        'origin': plan['from'],
        'scene': _scene(plan, contract),
    }
    if plan['base']:
        parameters['agent'] = 'hil_on_base'
    return [_node('learner_node', parameters, contract, niceness=NICE)]


def _humans(plan: Options, contract: 'ContractConfig') -> Nodes:
    """Who may drive instead of the policy: the scripted operator, and a device."""
    nodes = []
    if plan['operator'] != 'none':
        nodes.append(_node('operator_node', operator_told(plan), contract, niceness=NICE))
    if plan['teleop'] != 'none':
        parameters = {'device': plan['teleop'], 'leader_port': plan['leader']}
        nodes.append(_node('teleop_node', parameters, contract))
    return nodes


def _lerobot(plan: Options, drives: bool) -> Nodes:
    if not plan['lerobot']:
        return []
    virtual = f'{virtual_port(str(plan["namespace"]))}.json'
    calibration = virtual if plan['sim'] else str(plan['calibration'])
    return [_node('lerobot_node', {'drives': drives, 'calibration': calibration}, None)]


def _watching(plan: Options, contract: 'ContractConfig') -> Nodes:
    nodes = [*_recorder(plan, contract), *_lerobot(plan, drives=False)]
    if plan['console']:
        told: dict[str, Parameter] = {'port': plan['console_port']}
        told |= {'bags': plan['record']} if plan['record'] else {}
        told |= {'host': '0.0.0.0'} if plan['phone'] else {}  # which needs a token: `terminal.phone`
        nodes.append(_node('console_node', told, contract, niceness=NICE))
    return nodes + (_rviz(plan) if plan['rviz'] else [])


def _rviz(plan: Options) -> Nodes:
    """RViz with one arm, in its base frame; or with two that stand in one world."""
    from so101_contract.joints import BASE_FRAME

    arms = arms_of(str(plan['arms']))
    if arms:
        words = ['-d', '{config}/so101_two.rviz']
        pairs = zip(RVIZ_ARMS, arms, strict=True)
        names = [f'{shown}/{topic}:=/{arm}/{topic}' for shown, arm in pairs for topic in RVIZ_TOPICS]
        words += ['--ros-args', *(word for name in names for word in ('-r', name))]
    else:
        words = ['-d', '{config}/so101.rviz', '-f', f'{_prefix(plan)}{BASE_FRAME}']
    return [NodeSpec('rviz2', 'rviz2', 'rviz2', arguments=tuple(words), niceness=NICE)]


def _recorder(plan: Options, contract: 'ContractConfig') -> Nodes:
    if not plan['record']:
        return []
    parameters: dict[str, Parameter] = {'out': plan['record'], 'config': '{config}', 'pauses_session': True}
    return [_node('recorder_node', parameters, contract, niceness=NICE)]
