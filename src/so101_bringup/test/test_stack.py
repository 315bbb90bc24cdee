# SPDX-License-Identifier: Apache-2.0
"""The stack as data, and the files it names."""

from importlib import import_module
from pathlib import Path
import re

import pytest

from so101_bringup import stack
from so101_interfaces_py import params

ROOT = Path(__file__).parents[3]
EVERYTHING = stack.parse_options(['camera:=/dev/video0', 'operator:=true'])
NODES = {node.name: node for build in stack.STACKS.values() for node in build(EVERYTHING)}
CONFIGURED = [node for node in NODES.values() if node.config]


@pytest.mark.parametrize('node', NODES.values(), ids=lambda node: node.name)
def test_every_executable_is_declared_by_its_package(node):
    setup = (ROOT / 'src' / node.package / 'setup.py').read_text()
    assert re.search(rf"'{node.executable} = {node.package}\.", setup)


@pytest.mark.parametrize('node', CONFIGURED, ids=lambda node: node.name)
def test_every_key_of_a_parameter_file_is_a_parameter_of_its_node(node):
    module = import_module(f'{node.package}.{node.executable}')
    values = params.read_yaml(ROOT / 'config' / node.config, node.name)
    assert values
    for config in module.CONFIG:
        params.from_mapping(config, {key: values[key] for key in values if key in params.describe(config)})
    assert set(values) <= set(params.merged(*module.CONFIG))


@pytest.mark.parametrize('node', CONFIGURED, ids=lambda node: node.name)
def test_every_parameter_that_the_stack_sets_is_a_parameter_of_its_node(node):
    module = import_module(f'{node.package}.{node.executable}')
    assert set(node.parameters) <= set(params.merged(*module.CONFIG))


def test_parameter_files_name_nodes_in_any_namespace():
    for path in (ROOT / 'config').glob('*.yaml'):
        keys = re.findall(r'^(\S+):$', path.read_text(), flags=re.MULTILINE)
        assert keys, path
        assert all(key.startswith('/**/') for key in keys), path


@pytest.mark.parametrize('word', ['camrea:=x', 'sim', 'sim:=maybe', '--sim'])
def test_a_bad_option_is_refused_with_what_is_possible(word):
    with pytest.raises(stack.OptionError) as error:
        stack.parse_options([word])
    assert word.split(':=')[0] in str(error.value)


def test_the_tcp_presets_are_those_of_the_description():
    from so101_description.tcp import TCP_PRESETS

    assert set(stack.TCPS) == set(TCP_PRESETS)


def test_two_virtual_arms_have_two_ports():
    assert stack.virtual_port('left') != stack.virtual_port('right') != stack.virtual_port('')


def test_the_arm_is_never_started_again_by_itself_and_parks_on_a_live_bus():
    nodes = {node.name: node for node in stack.hilserl(EVERYTHING)}
    assert nodes['arm_node'].required
    assert nodes['twin_node'].outlives
    assert not nodes['arm_node'].outlives
    assert not nodes['camera_node'].required


def test_arguments_are_those_that_ros_reads():
    node = stack.NodeSpec('n', 'p', 'e', 'n.yaml', {'a': True, 'b': 'x y', 'c': 1.5})
    assert stack.ros_arguments(node, '/left/', '/c') == [
        '--ros-args', '-r', '__node:=n', '-r', '__ns:=/left', '--params-file', '/c/n.yaml',
        '-p', 'a:=true', '-p', "b:='x y'", '-p', 'c:=1.5',
    ]  # fmt: skip
