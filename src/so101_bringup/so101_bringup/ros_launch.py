# SPDX-License-Identifier: Apache-2.0
"""Turns the stack into launch actions; the files in launch/ are one line over it."""

import os
from pathlib import Path

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

from so101_bringup.options import OPTIONS, parse_options
from so101_bringup.parameter_files import check_files
from so101_bringup.programs import filled, NodeSpec
from so101_bringup.stack import STACKS

PROFILES = 'FASTRTPS_DEFAULT_PROFILES_FILE'
RESPAWN_DELAY_S = 2.0


def launch_description(name: str) -> LaunchDescription:
    """Return the launch description of one of `STACKS`, with an argument for each of its options."""
    actions: list[Action] = [
        DeclareLaunchArgument(option, default_value=_text(info.default), description=info.doc)
        for option, info in OPTIONS.items()
    ]
    if PROFILES not in os.environ:
        actions.append(SetEnvironmentVariable(PROFILES, f'{_config()}/fastdds.xml'))
    # A list that depends on arguments has to be built when they are known.
    actions.append(OpaqueFunction(function=_nodes, args=[name]))
    return LaunchDescription(actions)


def _nodes(context: LaunchContext, name: str) -> list[Action]:
    words = [f'{option}:={LaunchConfiguration(option).perform(context)}' for option in OPTIONS]
    options = parse_options(words)
    nodes = STACKS[name](options)
    check_files(nodes, Path(_config()))
    return [_action(node, str(options['namespace'])) for node in nodes]


def _text(value: bool | int | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _action(node: NodeSpec, namespace: str) -> Action:
    end = (
        {'on_exit': [OpaqueFunction(function=_shut_down, args=[node.name])]}
        if node.required or node.finishes
        else {'respawn': True, 'respawn_delay': RESPAWN_DELAY_S}
    )
    nice = {'prefix': f'nice -n {node.niceness}'} if node.niceness else {}
    how = {'output': 'screen', 'emulate_tty': True, **end, **nice}
    if not node.is_ros:
        executable = f'{get_package_prefix(node.package)}/lib/{node.package}/{node.executable}'
        return ExecuteProcess(cmd=[executable, *node.arguments], name=node.name, **how)
    files = [f'{_config()}/{node.config}'] if node.config else []
    return Node(
        package=node.package,
        executable=node.executable,
        name=node.name,
        namespace=namespace,
        parameters=[*files, {name: filled(value, _config()) for name, value in node.parameters.items()}],
        arguments=[filled(word, _config()) for word in node.arguments],
        **how,
    )


def _shut_down(context: LaunchContext, name: str) -> list[Action]:
    # A shutdown under way needs no second one: that would interrupt an arm while it parks.
    return [] if context.is_shutdown else [Shutdown(reason=f'{name} has ended')]


def _config() -> str:
    return f'{get_package_share_directory("so101_bringup")}/config'
