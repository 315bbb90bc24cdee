# SPDX-License-Identifier: Apache-2.0
"""The stack, said once as data: which nodes run, with which parameters, and what happens when one ends.

`launch/*.launch.py` turns it into launch actions, `./so101 up` into supervised processes. Same result.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
import os

from so101_bringup.options import OPTIONS, Options, resolve
from so101_bringup.policy_requirements import Surroundings, surroundings
from so101_bringup.programs import has_package, NodeSpec, Parameter

Nodes = list[NodeSpec]

NICE = 5
"""Niceness of what may wait a moment when the machine is busy: everything that does not move the arm."""
SIM_CONNECT_TIMEOUT_S = 60.0
"""While everything starts at once on two cores, the twin may take a while [s]."""
SIM_READING_TIMEOUT_S = 2.0
"""A virtual bus falls silent when the machine is busy, at the start above all; a real one when a cable is loose [s]."""


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
    around = _around(plan)
    return [*_arm(plan, around), *_control(plan, around)]


def teleop(options: Options) -> Nodes:
    """A person drives: arm, controller, session and device, without policy and learner."""
    plan = resolve({**options, 'learn': 'false', 'checkpoint': 'none'})
    around = _around(plan)
    return [
        *_arm(plan, around),
        *_control(plan, around),
        _session(plan, around),
        *_people(plan, around),
        *_watching(plan, around),
    ]


def policy(options: Options) -> Nodes:
    """A policy drives, and nothing learns."""
    return hilserl({**options, 'learn': 'false'})


def hilserl(options: Options) -> Nodes:
    """The whole stack."""
    plan = resolve(options)
    around = _around(plan)
    return [
        *_arm(plan, around),
        *_control(plan, around),
        _session(plan, around),
        *_policy(plan, around),
        *_learner(plan, around),
        *_people(plan, around),
        *_watching(plan, around),
    ]


def record(options: Options) -> Nodes:
    """The recorder alone, beside a stack that runs already."""
    wanted = 'true' if options['record'] == 'false' else options['record']
    plan = resolve({**options, 'record': wanted})
    return _recorder(plan, _around(plan))


def view(options: Options) -> Nodes:
    """Only what shows: the operator's page and RViz, beside a stack that runs already."""
    plan = resolve({**options, 'record': 'false'})
    return _watching(plan, _around(plan))


STACKS: Mapping[str, Callable[[Options], Nodes]] = {
    'driver': driver,
    'hilserl': hilserl,
    'policy': policy,
    'record': record,
    'sim': sim,
    'teleop': teleop,
    'view': view,
}


def _arm(options: Options, around: Surroundings) -> Nodes:
    if not options['sim']:
        return _real_arm(options)
    port = virtual_port(str(options['namespace']))
    # The scene of pick-101 has the camera that its policies were trained with.
    same = around.camera_preset == 'pick101' and options['preset'] == OPTIONS['preset'].default
    preset = 'pick101' if same else options['preset']
    parameters: dict[str, Parameter] = {'link': port, 'task': options['task'], 'preset': preset}
    if options['camera']:  # another camera takes the place of the simulated one
        parameters['camera_rate_hz'] = 0.0
    twin = NodeSpec(
        'twin_node', 'so101_sim', 'twin_node', 'sim.yaml', parameters, required=True, outlives=True
    )
    return [twin, _arm_node(port, f'{port}.json', True), *_camera(options)]


def _real_arm(options: Options) -> Nodes:
    arm = _arm_node(str(options['port']), str(options['calibration']), False)
    return [arm, *_camera(options)]


def _arm_node(port: str, calibration: str, virtual: bool) -> NodeSpec:
    parameters: dict[str, Parameter] = {'port': port, 'calibration': calibration, 'enable_at_start': virtual}
    if virtual:
        parameters['reading_timeout_s'] = SIM_READING_TIMEOUT_S
        parameters['connect_timeout_s'] = SIM_CONNECT_TIMEOUT_S
    # The arm is never started again by itself: an arm that re-enables unasked is a hazard.
    return NodeSpec('arm_node', 'so101_driver', 'arm_node', 'driver.yaml', parameters, required=True)


def _camera(options: Options) -> Nodes:
    if not options['camera']:
        return []
    parameters = {'source': options['camera']}
    return [NodeSpec('camera_node', 'so101_driver', 'camera_node', 'camera.yaml', parameters)]


def _control(options: Options, around: Surroundings) -> Nodes:
    """From actions to joints, and the links' frames."""
    publisher = has_package('robot_state_publisher') if options['tf'] == 'auto' else options['tf'] == 'ros'
    namespace = str(options['namespace']).strip('/')
    prefix = f'{namespace}/' if namespace else ''  # two arms share /tf
    nodes = []
    if publisher:
        from so101_description.urdf import urdf_text

        package = 'robot_state_publisher'
        parameters: dict[str, Parameter] = {
            'robot_description': urdf_text(tcp=around.tcp, camera=around.camera_preset),
            'frame_prefix': prefix,
        }
        nodes.append(NodeSpec(package, package, package, parameters=parameters))
    parameters = {
        'publish_tf': not publisher and options['tf'] != 'off',
        'tcp': around.tcp,
        'camera': around.camera_preset,
        'profile': around.profile,
        'frame_prefix': prefix,
    }
    kinematics = NodeSpec(
        'kinematics_node', 'so101_kinematics', 'kinematics_node', 'kinematics.yaml', parameters, required=True
    )
    return [*nodes, kinematics]


def _session(plan: Options, around: Surroundings) -> NodeSpec:
    parameters: dict[str, Parameter] = {
        'observation': around.observation,
        'tcp': around.tcp,
        'rate_hz': around.rate_hz,
        'action_scale_m': around.action_scale_m,
        'episodes': plan['episodes'],
        'reward_source': 'sim' if plan['sim'] else 'operator',
    }
    if plan[
        'sim'
    ]:  # the virtual arm pauses when the machine is busy; that is no reason to cut an episode short
        parameters['joint_timeout_s'] = 0.8
    # An arm that nobody arbitrates holds still by itself, so the session may start again.
    return NodeSpec(
        'session_node', 'so101_session', 'session_node', 'session.yaml', parameters, finishes=True
    )


def _policy(plan: Options, around: Surroundings) -> Nodes:
    if plan['operator'] == 'demonstrate' or (plan['checkpoint'] == 'none' and not plan['learn']):
        return []
    parameters: dict[str, Parameter] = {
        'policy': plan['checkpoint'],
        'mode': 'explore' if plan['learn'] else 'eval',
        **_contract(around),
    }
    return [NodeSpec('policy_node', 'drqv2_policy_node', 'policy_node', 'policy.yaml', parameters)]


def _learner(plan: Options, around: Surroundings) -> Nodes:
    if not plan['learn']:
        return []
    parameters: dict[str, Parameter] = {
        'directory': plan['run'],
        'policy': plan['checkpoint'],
        'demos': plan['demos'],
        **_contract(around),
    }
    return [
        NodeSpec('learner_node', 'hilserl_learner', 'learner_node', 'learner.yaml', parameters, niceness=NICE)
    ]


def _people(plan: Options, around: Surroundings) -> Nodes:
    """Who may drive instead of the policy."""
    nodes = []
    if plan['operator'] != 'none':
        parameters: dict[str, Parameter] = {'mode': plan['operator'], 'rate_hz': around.rate_hz}
        nodes.append(
            NodeSpec('operator_node', 'so101_sim', 'operator_node', 'sim.yaml', parameters, niceness=NICE)
        )
    if plan['teleop'] != 'none':
        parameters = {
            'device': plan['teleop'],
            'tcp': around.tcp,
            'rate_hz': around.rate_hz,
            'action_scale_m': around.action_scale_m,
            'leader_port': plan['leader'],
        }
        nodes.append(NodeSpec('teleop_node', 'so101_session', 'teleop_node', 'teleop.yaml', parameters))
    return nodes


def _watching(plan: Options, around: Surroundings) -> Nodes:
    nodes = _recorder(plan, around)
    if plan['console']:
        parameters: dict[str, Parameter] = {'port': plan['console_port']}
        nodes.append(
            NodeSpec(
                'console_node', 'so101_console', 'console_node', 'console.yaml', parameters, niceness=NICE
            )
        )
    if plan['rviz']:
        nodes.append(
            NodeSpec('rviz2', 'rviz2', 'rviz2', arguments=('-d', '{config}/so101.rviz'), niceness=NICE)
        )
    return nodes


def _recorder(plan: Options, around: Surroundings) -> Nodes:
    if not plan['record']:
        return []
    parameters: dict[str, Parameter] = {
        'out': plan['record'],
        'config': '{config}',
        'observation': around.observation,
        'tcp': around.tcp,
        'camera_preset': around.camera_preset,
    }
    return [
        NodeSpec(
            'recorder_node', 'so101_session', 'recorder_node', 'recorder.yaml', parameters, niceness=NICE
        )
    ]


def _around(plan: Options) -> Surroundings:
    return surroundings(str(plan['checkpoint']), str(plan['observation']), str(plan['tcp']))


def _contract(around: Surroundings) -> dict[str, Parameter]:
    """What policy and learner compare with the policy's manifest."""
    return {
        'observation': around.observation,
        'tcp': around.tcp,
        'camera': around.camera_preset,
        'control_rate_hz': around.rate_hz,
        'ik_profile': around.profile,
        'action_scale_m': around.action_scale_m,
    }


def virtual_port(namespace: str) -> str:
    """Path of the virtual arm's port, one for each namespace of each ROS domain."""
    domain = os.environ.get('ROS_DOMAIN_ID', '0')
    parts = ['' if domain == '0' else domain, namespace.strip('/').replace('/', '-')]
    return '-'.join(['/tmp/so101-virtual-arm', *filter(None, parts)])
