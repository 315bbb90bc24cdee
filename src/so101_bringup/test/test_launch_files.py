# SPDX-License-Identifier: Apache-2.0
"""The launch files, where ROS has `launch`: they build, and say what their arguments are."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

# Not `launch`: the folder of that name at the root of the checkout would be found in its place.
pytest.importorskip('launch.actions')
pytest.importorskip('launch_ros.actions')

from launch import LaunchContext
from launch.actions import OpaqueFunction

from so101_bringup.options import OPTIONS

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
