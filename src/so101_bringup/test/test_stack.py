# SPDX-License-Identifier: Apache-2.0
"""The stack as data, and the files it names."""

from pathlib import Path
import re

import pytest

from so101_bringup import options, parameter_files, stack
from so101_bringup.options import OptionError, OPTIONS, parse_options, resolve, TCPS
from so101_bringup.parameter_files import config_types, decided_by
from so101_bringup.programs import NodeSpec, ros_arguments
from so101_contract.config import ContractConfig
from so101_interfaces_py import params
from so101_sim.human.traits import HUMANS

ROOT = Path(__file__).parents[3]
EVERYTHING = parse_options(
    [
        'camera:=/dev/video0',
        'operator:=intervene',
        'teleop:=gamepad',
        'record:=true',
        'tf:=own',
        'place:=0,0.4,0',
    ]
)
ON_BASE = parse_options(['base:=tcp://gpu:5555', 'units:=degrees'])
NODES = {node.name: node for node in stack.hilserl(ON_BASE)}
NODES |= {node.name: node for build in stack.STACKS.values() for node in build(EVERYTHING)}
CONFIGURED = [node for node in NODES.values() if node.config]


@pytest.mark.parametrize('node', NODES.values(), ids=lambda node: node.name)
def test_every_executable_is_declared_by_its_package(node):
    setup = (ROOT / 'src' / node.package / 'setup.py').read_text()
    assert re.search(rf"'{node.executable} = {node.package}\.", setup)


@pytest.mark.parametrize('node', CONFIGURED, ids=lambda node: node.name)
def test_every_parameter_that_the_stack_sets_is_a_parameter_of_its_node(node):
    assert set(node.parameters) <= set(params.merged(*config_types(node.name)))


@pytest.mark.parametrize('node', CONFIGURED, ids=lambda node: node.name)
def test_every_node_that_has_a_field_of_the_contract_is_told_it(node):
    names = {'camera': 'camera_preset', 'profile': 'ik_profile'}
    fields = {names.get(key, key): key for key in params.merged(*config_types(node.name))}
    left_to_files = {'workspace_min', 'workspace_max'}
    wanted = {field: fields[field] for field in vars(ContractConfig()) if field in fields} | {
        field: key for field, key in stack.AGREED.get(node.name, {}).items() if key == 'rate_hz'
    }
    told = stack.AGREED.get(node.name, {})
    assert {field: key for field, key in wanted.items() if field not in left_to_files} == told


@pytest.mark.parametrize('node', CONFIGURED, ids=lambda node: node.name)
def test_what_decides_a_parameter_that_the_stack_sets_is_known_and_is_an_option(node):
    for key in node.parameters:
        assert set(re.findall(r'(\w+):=', decided_by(node.name, key))) <= set(OPTIONS)


def test_parameter_files_name_nodes_in_any_namespace():
    for path in (ROOT / 'config').glob('*.yaml'):
        keys = re.findall(r'^#?(/\S+|\w\S*):$', path.read_text(), flags=re.MULTILINE)
        assert keys, path
        assert all(key.startswith('/**/') for key in keys), path


@pytest.mark.parametrize(
    'word', ['camrea:=x', 'sim', 'sim:=maybe', '--camrea', '--episodes', '--episodes=two', 'tcp:=mine']
)
def test_a_bad_option_is_refused_with_what_is_possible(word):
    with pytest.raises(OptionError) as error:
        parse_options([word])
    assert re.split(':=|=', word)[0].strip('-') in str(error.value)


def test_options_may_be_written_in_both_ways():
    words = ['--operator', 'scripted', '--episodes', '20', '--record=demos/', '--learn', 'preset:=wide']
    other = ['operator:=scripted', 'episodes:=20', 'record:=demos/', 'learn:=true', 'preset:=wide']
    assert parse_options(words) == parse_options(other)
    assert parse_options(['--rviz', '--console', 'false'])['rviz'] is True


def plan(words):
    return resolve(parse_options(words.split()))


def nodes_of(words):
    return {node.name: node for node in stack.hilserl(parse_options(words.split()))}


def names(words, build=stack.hilserl):
    return {node.name for node in build(parse_options(words.split()))}


def test_left_alone_everything_runs_and_learns_on_the_simulated_arm():
    assert names('') >= {
        'twin_node', 'arm_node', 'kinematics_node', 'session_node', 'policy_node', 'learner_node', 'operator_node',
        'console_node',
    }  # fmt: skip


def test_a_scripted_operator_without_a_policy_demonstrates():
    assert plan('--operator scripted')['operator'] == 'demonstrate'
    assert not {'policy_node', 'learner_node'} & names('--operator scripted --episodes 20 --record demos/')


def test_a_scripted_operator_beside_a_learner_or_a_policy_intervenes():
    assert plan('--operator scripted --learn')['operator'] == 'intervene'
    assert plan('--operator scripted checkpoint:=mine')['operator'] == 'intervene'


@pytest.mark.parametrize('kind', options.HUMANS)
def test_a_human_as_humans_are_intervenes_while_the_policy_learns(kind):
    chosen = plan(f'operator:={kind}')
    assert (chosen['operator'], chosen['human'], chosen['learn']) == ('intervene', kind, True)
    told = nodes_of(f'operator:={kind}')['operator_node'].parameters
    assert told['mode'] == 'intervene'
    assert told['labels'] == 'none'
    traits = {name: value for name, value in told.items() if name in HUMANS[kind].plain()}
    assert traits == ({} if kind == 'perfect' else HUMANS[kind].plain())


def test_the_humans_and_their_traits_are_those_of_the_simulation():
    assert tuple(HUMANS) == options.HUMANS
    assert parameter_files._TRAITS.split() == list(HUMANS['perfect'].plain())


def test_the_arm_puts_things_back_where_the_task_says_how():
    assert nodes_of('')['session_node'].parameters['put_back'] is False
    assert nodes_of('reset:=arm task:=place')['session_node'].parameters['put_back'] is True
    assert nodes_of('sim:=false')['session_node'].parameters['put_back'] is True
    assert nodes_of('sim:=false reset:=scene')['session_node'].parameters['put_back'] is False
    assert nodes_of('sim:=false task:=push_can')['session_node'].parameters['put_back'] is False
    with pytest.raises(OptionError, match='put_back'):
        nodes_of('reset:=arm task:=push_can')


def test_with_a_device_the_person_takes_the_place_of_the_scripted_operator():
    assert plan('teleop:=gamepad')['operator'] == 'none'
    assert 'teleop_node' in names('teleop:=gamepad')


@pytest.mark.parametrize('words', ['sim:=false operator:=scripted', 'operator:=demonstrate --learn'])
def test_choices_that_exclude_each_other_are_refused(words):
    with pytest.raises(OptionError):
        plan(words)


def test_a_policy_server_takes_the_place_of_policy_and_learner():
    words = 'server:=tcp://gpu:5555 units:=degrees operator:=none'
    assert 'vla_policy_node' in names(words)
    assert not {'policy_node', 'learner_node'} & names(words)
    assert 'vla_policy_node' not in names('')
    assert plan(words.replace('none', 'scripted'))['operator'] == 'intervene'


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        ('server:=tcp://gpu:5555', 'needs units:='),
        ('server:=tcp://gpu:5555 units:=degrees --learn', 'nothing to learn'),
        ('server:=tcp://gpu:5555 units:=degrees checkpoint:=mine', 'one policy acts'),
    ],
)
def test_what_a_policy_server_cannot_be_asked_for_is_refused(words, sentence):
    with pytest.raises(OptionError, match=sentence):
        plan(words)


def test_a_policy_is_learned_on_top_of_a_base_in_this_process_or_behind_a_socket():
    stored = {node.name: node.parameters for node in stack.hilserl(parse_options(['base:=policies/bc']))}
    assert 'vla_policy_node' not in stored
    assert (stored['policy_node']['base'], stored['policy_node']['policy']) == ('policies/bc', 'none')
    assert stored['learner_node']['agent'] == 'hil_on_base'
    served = {node.name: node.parameters for node in stack.hilserl(ON_BASE)}
    assert (served['vla_policy_node']['server'], served['vla_policy_node']['as_base']) == (
        'tcp://gpu:5555',
        True,
    )
    assert served['policy_node']['base'] == 'server'
    assert 'policy_node' in names('base:=policies/bc learn:=false operator:=none')


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        ('base:=tcp://gpu:5555', 'base:= needs units:='),
        ('base:=default server:=tcp://gpu:5555', 'exclude each other'),
    ],
)
def test_what_a_base_cannot_be_asked_for_is_refused(words, sentence):
    with pytest.raises(OptionError, match=sentence):
        plan(words)


def test_on_the_real_arm_nothing_simulated_runs():
    assert not {'twin_node', 'operator_node', 'virtual_arm'} & names('sim:=false')


@pytest.mark.parametrize('build', [stack.hilserl, stack.teleop, stack.policy])
def test_the_first_episode_begins_by_itself_in_the_simulation_alone(build):
    for sim in (True, False):
        nodes = {node.name: node for node in build(parse_options([f'sim:={sim}'.lower()]))}
        assert nodes['session_node'].parameters['autostart'] is sim
        assert nodes['arm_node'].parameters['enable_at_start'] is sim


def judged_by(*words, build=stack.hilserl):
    """Return who judges, and the folder of the classifier, by these options."""
    nodes = {node.name: node for node in build(parse_options(list(words)))}
    classifier = nodes.get('classifier_node')
    folder = None if classifier is None else classifier.parameters['directory']
    return nodes['session_node'].parameters['reward_source'], folder


@pytest.mark.parametrize('build', [stack.hilserl, stack.teleop, stack.policy, stack.trial])
def test_who_judges_is_the_tasks_choice_or_that_of_this_run_and_a_classifier_runs_where_it_is_asked(build):
    assert judged_by(build=build) == ('sim', None)
    assert judged_by('sim:=false', build=build) == ('operator', None)
    both = judged_by('reward:=classifier,gripper', build=build)
    assert both == ('classifier,gripper', 'classifiers/lift')
    assert judged_by('reward:=gripper', 'sim:=false', build=build) == ('gripper', None)
    assert judged_by('classifier:=mine', build=build) == ('sim', 'mine'), 'it may be taught beside the truth'


def test_a_tasks_own_sources_are_taken_and_a_real_arm_leaves_the_truth_out(tmp_path):
    task = tmp_path / 'mine.yaml'
    task.write_text('name: mine\ninstruction: Do it.\nreward: {source: "sim,classifier"}\n')
    assert judged_by(f'task:={task}') == ('sim,classifier', 'classifiers/mine')
    assert judged_by(f'task:={task}', 'sim:=false') == ('classifier', 'classifiers/mine')


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (['reward:=truth'], 'sim, operator, classifier, gripper'),
        (['reward:=operator,gripper'], 'counts beside'),
        (['reward:=sim,gripper', 'sim:=false'], 'only a simulation knows'),
    ],
)
def test_who_cannot_judge_is_refused(words, sentence):
    with pytest.raises(OptionError, match=sentence):
        judged_by(*words)


def test_the_tcp_presets_are_those_of_the_description():
    from so101_description.tcp import TCP_PRESETS

    assert set(TCPS) == set(TCP_PRESETS)


def test_two_virtual_arms_have_two_ports(monkeypatch):
    assert options.virtual_port('left') != options.virtual_port('right') != options.virtual_port('')
    before = options.virtual_port('')
    monkeypatch.setenv('ROS_DOMAIN_ID', '201')
    assert options.virtual_port('') != before


def test_the_arm_is_never_started_again_by_itself_and_parks_on_a_live_bus():
    nodes = {node.name: node for node in stack.hilserl(EVERYTHING)}
    assert nodes['arm_node'].required
    assert nodes['twin_node'].outlives
    assert not nodes['arm_node'].outlives
    assert not nodes['camera_node'].required
    assert not nodes['policy_node'].required


def test_two_arms_have_frames_of_their_own():
    nodes = {node.name: node for node in stack.sim(parse_options(['namespace:=/left', 'tf:=own']))}
    assert nodes['kinematics_node'].parameters['frame_prefix'] == 'left/'


def test_lerobot_drives_where_nobody_else_does_and_looks_on_elsewhere():
    def door(build, *words):
        nodes = {node.name: node for node in build(parse_options(list(words)))}
        return nodes, nodes.get('lerobot_node')

    nodes, node = door(stack.lerobot)
    assert node.parameters['drives'] is True
    assert not {'session_node', 'policy_node', 'learner_node', 'operator_node'} & nodes.keys()
    for build in (stack.hilserl, stack.teleop, stack.view):
        assert door(build)[1] is None
        nodes, node = door(build, 'lerobot:=true', 'sim:=false', 'calibration:=mine')
        assert node.parameters == {'drives': False, 'calibration': 'mine'}


@pytest.mark.parametrize('words', [[], ['checkpoint:=none'], ['learn:=false'], ['namespace:=/left']], ids=str)
def test_actor_and_learner_are_the_whole_stack_in_two_parts(words):
    options = parse_options(words)
    acting, learning = stack.actor(options), stack.learner(options)
    assert [node.name for node in learning] == ['learner_node']
    assert sorted(map(repr, acting + learning)) == sorted(
        map(repr, stack.hilserl({**options, 'learn': 'true'}))
    )
    assert {node.name: node for node in acting}['policy_node'].parameters['mode'] == 'explore'


def test_every_stack_has_a_launch_file():
    assert {path.name for path in (ROOT / 'launch').iterdir()} == {
        f'{name}.launch.py' for name in stack.STACKS
    }


def test_arguments_are_those_that_ros_reads():
    node = NodeSpec('n', 'p', 'e', 'n.yaml', {'a': True, 'b': 'x y', 'c': 1.5})
    assert ros_arguments(node, '/left/', '/c') == [
        '--ros-args', '-r', '__node:=n', '-r', '__ns:=/left', '--params-file', '/c/n.yaml',
        '-p', 'a:=true', '-p', "b:='x y'", '-p', 'c:=1.5',
    ]  # fmt: skip


def test_each_camera_has_a_device_on_a_real_arm_and_is_drawn_in_the_simulation():
    def told(*words):
        nodes = {node.name: node.parameters for node in stack.hilserl(parse_options(words))}
        return nodes.get('twin_node', {}), nodes.get('camera_node', {}), nodes['session_node']

    _, camera, session = told('sim:=false', 'cameras:=wrist=/dev/video0,front=/dev/video2')
    assert camera['sources'] == ('wrist=/dev/video0', 'front=/dev/video2')
    assert session['cameras'] == ('wrist', 'front')
    twin, camera, _ = told('cameras:=wrist,front')
    assert (twin['drawn_cameras'], camera) == (('wrist', 'front'), {})
    twin, camera, _ = told('cameras:=wrist=/dev/video0,front')
    assert twin['drawn_cameras'] == ('front',)
    assert camera['source'] == '/dev/video0'
    twin, camera, _ = told('camera:=/dev/video0')
    assert (twin['camera_rate_hz'], camera['source']) == (0.0, '/dev/video0')


def test_what_the_task_says_reaches_the_nodes(tmp_path):
    file = tmp_path / 'mine.yaml'
    file.write_text((ROOT / 'config/tasks/push_can.yaml').read_text())
    nodes = {node.name: node.parameters for node in stack.hilserl(parse_options([f'task:={file}']))}
    for name in ('session_node', 'policy_node', 'learner_node', 'twin_node', 'console_node', 'operator_node'):
        assert nodes[name]['task'] == str(file)
    assert nodes['kinematics_node']['workspace_max'] == (0.38, 0.20, 0.20)
    with pytest.raises(OptionError, match='task:=lifft: expected one of the tasks'):
        stack.hilserl(parse_options(['task:=lifft']))


def test_frames_have_the_namespace_in_front_wherever_they_are_published():
    words = ['namespace:=/left/', 'camera:=/dev/video0', 'record:=true', 'rviz:=true', 'place:=0,-0.4,90']
    nodes = {node.name: node for node in stack.hilserl(parse_options(words))}
    prefixed = {name: node for name, node in nodes.items() if 'frame_prefix' in node.parameters}
    assert set(prefixed) >= {'twin_node', 'arm_node', 'camera_node', 'kinematics_node'}
    assert {node.parameters['frame_prefix'] for node in prefixed.values()} == {'left/'}
    for node in CONFIGURED:
        published = any('frame_prefix' in params.describe(kind) for kind in config_types(node.name))
        assert published == ('frame_prefix' in node.parameters), node.name
    assert nodes['rviz2'].arguments[-2:] == ('-f', 'left/base_link')
    assert nodes['kinematics_node'].parameters['place'] == (0.0, -0.4, 90.0)
    assert 'world_frame' not in stack.hilserl(parse_options([]))[2].parameters, 'one arm alone stands nowhere'


def test_two_arms_in_one_rviz_are_those_that_were_named():
    (rviz,) = [n for n in stack.view(parse_options(['rviz:=true', 'arms:=left,right'])) if n.name == 'rviz2']
    assert {'first/markers:=/left/markers', 'second/robot_description:=/right/robot_description'} < set(
        rviz.arguments
    )
    assert ros_arguments(rviz, '', '/etc/so101')[:2] == ['-d', '/etc/so101/so101_two.rviz']


@pytest.mark.parametrize(
    ('word', 'what'),
    [('arms:=left', 'two'), ('arms:=a,a', 'two'), ('arms:=a,', 'two'), ('arms:=a,b,c', 'two'),
     ('place:=1,2', 'x,y,turn'), ('place:=a,b,c', 'x,y,turn'), ('place:=nan,0,0', 'x,y,turn')],
)  # fmt: skip
def test_a_place_or_a_pair_of_arms_that_is_none_is_refused(word, what):
    with pytest.raises(OptionError, match=what):
        stack.hilserl(parse_options([word, 'rviz:=true']))
