# SPDX-License-Identifier: Apache-2.0
"""The launch files, where ROS has `launch`: they build, and say what their arguments are."""

from importlib.util import module_from_spec, spec_from_file_location
import json
from pathlib import Path
import sys

import pytest

# Not `launch`: the folder of that name at the root of the checkout would be found in its place.
pytest.importorskip('launch.actions')
pytest.importorskip('launch_ros.actions')

from launch import LaunchContext, LaunchDescription, LaunchService
from launch.actions import ExecuteProcess, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessIO

from so101_bringup import ros_launch
from so101_bringup.options import OptionError, OPTIONS
from so101_bringup.supervisor import GivenUp

FILES = sorted((Path(__file__).parents[3] / 'launch').glob('*.launch.py'))


def description(path):
    spec = spec_from_file_location(path.name.partition('.')[0], path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_every_argument_has_a_description_and_a_default(path):
    arguments = {argument.name: argument for argument in description(path).get_launch_arguments()}
    assert set(arguments) == set(OPTIONS)
    assert all(argument.description and argument.default_value for argument in arguments.values())


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_every_node_is_described_with_the_defaults(path):
    context = LaunchContext()
    made = description(path)
    for argument in made.get_launch_arguments():
        argument.execute(context)
    (build,) = (action for action in made.entities if isinstance(action, OpaqueFunction))
    assert build.execute(context)


def built(path, monkeypatch, *arguments, argv=None):
    """What a launch file does, started by name with some arguments."""
    monkeypatch.setattr(sys, 'argv', ['ros2', 'launch', 'so101_bringup', path.name] if argv is None else argv)
    context, made = LaunchContext(argv=list(arguments)), description(path)
    for argument in made.get_launch_arguments():
        argument.execute(context)
    (build,) = (action for action in made.entities if isinstance(action, OpaqueFunction))
    return build.execute(context)


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_a_misspelt_argument_is_refused(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=r"'chekpoint:=mine' is no argument of .*checkpoint"):
        built(path, monkeypatch, 'chekpoint:=mine')
    assert built(path, monkeypatch, 'console_port:=0', 'launch-prefix:=nice')
    # Whoever includes the file has arguments of its own.
    assert built(path, monkeypatch, 'mine:=1', argv=['ros2', 'launch', 'mine.launch.py'])


def test_what_fails_the_same_way_three_times_is_not_started_again(monkeypatch):
    monkeypatch.setattr(ros_launch, 'RESPAWN_DELAY_S', 0.1)
    given_up = GivenUp()
    watch = ros_launch._Watch('policy_node', given_up)
    program = 'import sys; sys.exit("no policy in /nowhere")'
    action = ExecuteProcess(
        cmd=[sys.executable, '-c', program],
        respawn=True,
        respawn_delay=0.1,
        respawn_max_retries=7,
        on_exit=watch.ended,
    )
    starts = []
    service = LaunchService(noninteractive=True)
    handler = OnProcessIO(
        target_action=action, on_stderr=lambda event: (starts.append(event.text), watch.hear(event))[1]
    )
    service.include_launch_description(LaunchDescription([action, RegisterEventHandler(handler)]))
    service.run()
    assert b''.join(starts).count(b'no policy') == 3
    assert 'no policy in /nowhere' in json.loads(given_up.path.read_text())['policy_node']
    given_up.close()
