# SPDX-License-Identifier: Apache-2.0
"""The stack as data, and the files it names."""

from pathlib import Path
import re

import pytest

from so101_bringup import stack
from so101_bringup.options import OptionError, OPTIONS, parse_options, resolve, TCPS
from so101_bringup.parameter_files import config_types
from so101_bringup.programs import NodeSpec, ros_arguments
from so101_contract.config import ContractConfig
from so101_interfaces_py import params

ROOT = Path(__file__).parents[3]
EVERYTHING = parse_options(
    ['camera:=/dev/video0', 'operator:=intervene', 'teleop:=gamepad', 'record:=true', 'tf:=own']
)
NODES = {node.name: node for build in stack.STACKS.values() for node in build(EVERYTHING)}
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
        assert set(re.findall(r'(\w+):=', stack.decided_by(node.name, key))) <= set(OPTIONS)


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


def test_with_a_device_the_person_takes_the_place_of_the_scripted_operator():
    assert plan('teleop:=gamepad')['operator'] == 'none'
    assert 'teleop_node' in names('teleop:=gamepad')


@pytest.mark.parametrize('words', ['sim:=false operator:=scripted', 'operator:=demonstrate --learn'])
def test_choices_that_exclude_each_other_are_refused(words):
    with pytest.raises(OptionError):
        plan(words)


def test_on_the_real_arm_nothing_simulated_runs():
    assert not {'twin_node', 'operator_node', 'virtual_arm'} & names('sim:=false')


def test_the_tcp_presets_are_those_of_the_description():
    from so101_description.tcp import TCP_PRESETS

    assert set(TCPS) == set(TCP_PRESETS)


def test_two_virtual_arms_have_two_ports(monkeypatch):
    assert stack.virtual_port('left') != stack.virtual_port('right') != stack.virtual_port('')
    before = stack.virtual_port('')
    monkeypatch.setenv('ROS_DOMAIN_ID', '201')
    assert stack.virtual_port('') != before


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
