# SPDX-License-Identifier: Apache-2.0
"""Whatever a parameter file says reaches the node, or is refused with a sentence before anything starts."""

from dataclasses import fields, replace
import os
from pathlib import Path
import re
import subprocess
import sys
import time
from typing import get_args, get_origin, get_type_hints

import pytest
import yaml

rclpy = pytest.importorskip('rclpy')

from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python

from so101_bringup import stack
from so101_bringup.options import OptionError, parse_options
from so101_bringup.parameter_files import check_files, config_types, FILES
from so101_bringup.programs import ros_arguments
from so101_interfaces_py.params import describe, load_configs

ROOT = Path(__file__).parents[3]
WORDS = ['camera:=/dev/video0', 'operator:=intervene', 'teleop:=gamepad', 'record:=true', 'tf:=own']
NODES = {node.name: node for node in stack.hilserl(parse_options(WORDS)) if node.config}
FILE_OF = {node: name for name, nodes in FILES.items() for node in nodes}

# Texts that mean something else than their default, where not any text will do.
TEXTS = {
    'host': '::1',
    'token': 'a secret of some length',
    'std_schedule': 'linear(0.3,0.2,400)',
    'std_with_policy': '0.07',
    'device': 'cuda',
    'fourcc': 'YUYV',
    'locked_joints': ['wrist_roll'],
    'drawn_cameras': ['front'],
    'sources': ['front=/dev/video9'],
    'pad_changes': ['x=1'],
    'keys': ['i=x+', 'k=x-'],
}


def parameters():
    return [
        pytest.param(node, config, field, id=f'{node}-{field.name}')
        for node in NODES
        for config in config_types(node)
        for field in fields(config)
        if field.name in describe(config)
    ]


def others(config, field):
    """Yield values that are not the default: the nearest first."""
    info, hint = describe(config)[field.name], get_type_hints(config)[field.name]
    default = field.default
    if field.name in TEXTS:
        yield TEXTS[field.name]
    if info.choices and get_origin(hint) is not tuple:
        yield from (type(default)(choice) for choice in info.choices if choice != default)
    elif hint is bool:
        yield not default
    elif hint in (int, float):
        low = info.lo if info.lo is not None else default - 10
        high = info.hi if info.hi is not None else default + 10
        near = [default + 1, default - 1] if hint is int else [0.9 * default, 1.1 * default, default + 0.01]
        yield from (hint(v) for v in (*near, low, high) if low <= v <= high and v != default)
    elif hint is str:
        yield '/tmp/another'
        yield 'another'
    elif get_args(hint)[0] is float:
        yield [0.9 * value + 0.001 for value in default]
        yield [1.1 * value for value in default]
    else:
        yield from ([choice] for choice in info.choices or ())
        yield ['another']


def another(config, field):
    """Return a value that the configuration takes and that is not its default, as YAML has it."""
    for value in others(config, field):
        try:
            config(**{field.name: tuple(value) if isinstance(value, list) else value})
        except ValueError:
            continue
        return value
    raise AssertionError(f'no other legal value of {field.name} is known; add one to TEXTS')


def written(folder, node, values):
    text = yaml.safe_dump({f'/**/{node}': {'ros__parameters': values}})
    (folder / FILE_OF[node]).write_text(text)
    return folder


@pytest.fixture(scope='module')
def context():
    made = rclpy.Context()
    rclpy.init(context=made, args=[])
    yield made
    rclpy.shutdown(context=made)


def as_the_node_reads(spec, folder, context):
    """Return the parameters of a node that is started with what the stack hands over, by the nodes' own loader."""
    arguments = ros_arguments(spec, '', str(folder))
    node = Node(
        spec.name,
        context=context,
        cli_args=arguments,
        use_global_arguments=False,
        enable_rosout=False,
        start_parameter_services=False,
    )
    try:
        return {
            name: value
            for config in load_configs(node, *config_types(spec.name))
            for name, value in vars(config).items()
        }
    finally:
        node.destroy_node()


@pytest.mark.parametrize(('name', 'config', 'field'), parameters())
def test_a_value_in_a_file_reaches_the_node_or_is_refused(tmp_path, context, name, config, field):
    spec = NODES[name]
    is_set = field.name in spec.parameters  # then it is refused, whatever it is
    value = next(others(config, field)) if is_set else another(config, field)
    folder = written(tmp_path, name, {field.name: value})
    if is_set:
        with pytest.raises(OptionError) as error:
            check_files(list(NODES.values()), folder)
        said = str(error.value)
        assert FILE_OF[name] in said
        assert f'{field.name} of {name}' in said
        assert repr(value) in said
        assert repr(spec.parameters[field.name]) in said
        return
    check_files(list(NODES.values()), folder)
    read = as_the_node_reads(spec, folder, context)[field.name]
    wanted = tuple(value) if isinstance(value, list) else value
    assert read == pytest.approx(wanted) if isinstance(wanted, float) else read == wanted
    assert read != field.default


@pytest.mark.parametrize('name', NODES)
def test_the_files_as_they_are_change_nothing_and_are_read(name, context):
    check_files(list(NODES.values()), ROOT / 'config')
    spec = NODES[name]
    read = as_the_node_reads(spec, ROOT / 'config', context)
    defaults = {field.name: field.default for config in config_types(name) for field in fields(config)}
    assert {key: read[key] for key in read if key not in spec.parameters} == {
        key: defaults[key] for key in read if key not in spec.parameters
    }


@pytest.mark.parametrize('name', FILES)
def test_every_example_is_what_it_says_once_its_sign_is_taken_away(name, tmp_path):
    lines = (ROOT / 'config' / name).read_text().splitlines()
    (tmp_path / name).write_text(
        '\n'.join(line.removeprefix('#') for line in lines if not re.match(r'# \S', line))
    )
    check_files([], tmp_path)
    content = yaml.safe_load((tmp_path / name).read_text())
    for node in FILES[name]:
        values = content[f'/**/{node}']['ros__parameters']
        defaults = {field.name: field.default for config in config_types(node) for field in fields(config)}
        assert values
        assert values == {
            key: list(defaults[key]) if isinstance(defaults[key], tuple) else defaults[key] for key in values
        }


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('/**/session_node:\n  ros__parameters:\n    rate: 1.0\n', ["no parameter 'rate'", 'rate_hz']),
        ('/**/sesion_node:\n  ros__parameters:\n    auto: true\n', ["'/**/sesion_node'", '/**/session_node']),
        ('auto: true\n', ["'auto'", '/**/session_node']),
        ('- auto\n', ['no sections']),
        ('/**/session_node:\n  auto: true\n', ['ros__parameters']),
        ('/**/session_node:\n  ros__parameters: true\n', ['ros__parameters', 'name: value']),
        ('/**/session_node:\n  ros__parameters: [\n', ['cannot be read']),
        ('/**/session_node:\n  ros__parameters:\n    auto: 1\n', ['auto = 1', 'bool']),
        ('/**/session_node:\n  ros__parameters:\n    camera_timeout_s: 1\n', ['camera_timeout_s', 'float']),
        ('/**/session_node:\n  ros__parameters:\n    camera_timeout_s: 99.0\n', ['99.0', 'outside']),
        ('/**/session_node:\n  ros__parameters:\n    start_xyz: [0.2, 0.0]\n', ['start_xyz', 'type']),
        ('/**:\n  ros__parameters:\n    rate_hz: 5.0\n', ['rate_hz of session_node', '5.0', '10.0']),
    ],
)
def test_what_no_node_would_follow_is_refused_with_a_sentence(tmp_path, text, words):
    (tmp_path / 'session.yaml').write_text(text)
    with pytest.raises(OptionError) as error:
        check_files(list(NODES.values()), tmp_path)
    assert all(word in str(error.value) for word in ['session.yaml', *words]), error.value


def test_what_the_stack_leaves_alone_may_be_in_a_file(tmp_path):
    real = stack.hilserl(parse_options(['sim:=false']))
    written(tmp_path, 'session_node', {'joint_timeout_s': 0.4})
    check_files(real, tmp_path)
    with pytest.raises(OptionError, match='sim:=true'):
        check_files(list(NODES.values()), tmp_path)


@pytest.mark.parametrize(
    ('agent', 'name', 'value'), [('sac', 'temperature', 0.1), ('faithful', 'grad_clip', 1.0)]
)
def test_a_file_may_name_an_agent_and_its_own_values(tmp_path, agent, name, value):
    written(tmp_path, 'learner_node', {'agent': agent, name: value})
    check_files(list(NODES.values()), tmp_path)
    written(tmp_path, 'learner_node', {name: value})
    with pytest.raises(OptionError, match=f'{name} of {agent}'):
        check_files(list(NODES.values()), tmp_path)


def test_values_that_exclude_each_other_are_refused(tmp_path):
    written(tmp_path, 'kinematics_node', {'workspace_min': [0.3, 0.0, 0.2], 'workspace_max': [0.2, 0.1, 0.3]})
    with pytest.raises(OptionError, match=r'kinematics\.yaml.*workspace_min'):
        check_files(list(NODES.values()), tmp_path)


def test_up_refuses_before_anything_starts(tmp_path):
    folder = tmp_path / 'config'
    folder.mkdir()
    written(folder, 'session_node', {'rate_hz': 5.0})
    done = subprocess.run(
        [sys.executable, '-m', 'so101_bringup.cli', 'up'],
        env={**os.environ, 'SO101_ROOT': str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 2
    assert 'session.yaml: rate_hz of session_node is 5.0 there, but the stack sets it to 10.0' in done.stderr
    assert 'checkpoint:=' in done.stderr
    assert '|' not in done.stdout


def test_the_launch_files_refuse_the_same(tmp_path, monkeypatch):
    pytest.importorskip('launch.actions')
    pytest.importorskip('launch_ros.actions')
    from launch import LaunchContext

    from so101_bringup import ros_launch

    written(tmp_path, 'session_node', {'rate_hz': 5.0})
    monkeypatch.setattr(ros_launch, '_config', lambda: str(tmp_path))
    context, made = LaunchContext(), ros_launch.launch_description('hilserl')
    for argument in made.get_launch_arguments():
        argument.execute(context)
    with pytest.raises(OptionError, match='rate_hz of session_node'):
        made.entities[-1].execute(context)


# What is changed of each node that is started: nothing that it needs to run alone, without camera, policy and device.
CHANGED = {
    'arm_node': {'command_timeout_s': 0.3},
    'camera_node': {'stall_timeout_s': 0.7},
    'console_node': {'speed': 0.4},
    'kinematics_node': {'leash_m': 0.03},
    'learner_node': {'batch_size': 32},
    'operator_node': {'noise': 0.2},
    'policy_node': {'max_std': 0.15},
    'recorder_node': {'compression': 'none'},
    'session_node': {'camera_timeout_s': 0.6},
    'teleop_node': {'speed': 0.3},
    'twin_node': {'camera_width': 160},
}
START_S, ANSWER_S = 100.0, 5.0


def alone(spec, folder):
    """Return a node whose files and ports are its own."""
    link = str(folder / 'arm')
    own = {
        **{'port': link, 'link': link, 'calibration': f'{link}.json'},
        **{'directory': str(folder / 'run'), 'out': str(folder / 'bags')},
    }
    if spec.name == 'console_node':
        own = {'port': 0}
    if spec.name == 'learner_node':
        own |= {'policy': 'none'}
    parameters = {key: own.get(key, value) for key, value in spec.parameters.items()}
    return replace(spec, parameters=parameters), link


def ask(node, name, keys, process):
    """Return a node's parameters, over ROS; the first answers may get lost while the two still find each other."""
    client = node.create_client(GetParameters, f'{name}/get_parameters')
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f'{name} has ended with {process.returncode}'
        if not client.wait_for_service(ANSWER_S):
            continue
        future = client.call_async(GetParameters.Request(names=list(keys)))
        rclpy.spin_until_future_complete(node, future, timeout_sec=ANSWER_S)
        if future.done():
            return dict(zip(keys, map(parameter_value_to_python, future.result().values), strict=True))
    raise AssertionError(f'{name} has not answered within {START_S} s')


@pytest.mark.parametrize('name', CHANGED)
def test_the_running_node_says_what_the_file_says(name, tmp_path, ros, start):
    spec, link = alone(NODES[name], tmp_path)
    folder = written(tmp_path, name, CHANGED[name])
    if name == 'arm_node':
        start('so101_driver', 'virtual_arm', '--link', link, '--calibration', f'{link}.json')
    process = start(spec.package, spec.executable, *ros_arguments(spec, 'files', str(folder)))
    node = ros.create_node('asks', namespace='files')
    try:
        assert ask(node, name, CHANGED[name], process) == CHANGED[name]
    finally:
        process.terminate()
        node.destroy_node()
