# SPDX-License-Identifier: Apache-2.0
"""Turns the stack into launch actions; the files in launch/ are one line over it."""

import os

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from so101_bringup import stack

PROFILES = 'FASTRTPS_DEFAULT_PROFILES_FILE'
RESPAWN_DELAY_S = 2.0


def launch_description(name: str) -> LaunchDescription:
    """Return the launch description of one of `stack.STACKS`, with an argument for each of its options."""
    actions: list[Action] = [
        DeclareLaunchArgument(option, default_value=str(info.default).lower(), description=info.doc)
        for option, info in stack.OPTIONS.items()
    ]
    if PROFILES not in os.environ:
        actions.append(SetEnvironmentVariable(PROFILES, f'{_config()}/fastdds.xml'))
    # A list that depends on arguments has to be built when they are known.
    actions.append(OpaqueFunction(function=_nodes, args=[name]))
    return LaunchDescription(actions)


def _nodes(context: LaunchContext, name: str) -> list[Action]:
    words = [f'{option}:={LaunchConfiguration(option).perform(context)}' for option in stack.OPTIONS]
    options = stack.parse_options(words)
    return [_action(node, str(options['namespace'])) for node in stack.STACKS[name](options)]


def _action(node: stack.NodeSpec, namespace: str) -> Action:
    end = (
        {'on_exit': [OpaqueFunction(function=_shut_down, args=[node.name])]}
        if node.required
        else {'respawn': True, 'respawn_delay': RESPAWN_DELAY_S}
    )
    how = {'output': 'screen', 'emulate_tty': True, **end}
    if not node.is_ros:
        executable = f'{get_package_prefix(node.package)}/lib/{node.package}/{node.executable}'
        return ExecuteProcess(cmd=[executable, *node.arguments], name=node.name, **how)
    return Node(
        package=node.package,
        executable=node.executable,
        name=node.name,
        namespace=namespace,
        parameters=[f'{_config()}/{node.config}', dict(node.parameters)],
        arguments=list(node.arguments),
        **how,
    )


def _shut_down(context: LaunchContext, name: str) -> list[Action]:
    # A shutdown under way needs no second one: that would interrupt an arm while it parks.
    return [] if context.is_shutdown else [Shutdown(reason=f'{name} has ended')]


def _config() -> str:
    return f'{get_package_share_directory("so101_bringup")}/config'
