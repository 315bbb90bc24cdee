# SPDX-License-Identifier: Apache-2.0
"""Turns the stack into launch actions; the files in launch/ are one line over it."""

from pathlib import Path
import shlex
import sys
import time

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessIO
from launch.events import matches_action
from launch.events.process import ProcessExited, ProcessIO, ShutdownProcess
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from so101_bringup.leftovers import clear_leftovers, told
from so101_bringup.network import check_alone, environment, network_notes
from so101_bringup.options import OptionError, OPTIONS, parse_options
from so101_bringup.preflight import prepare
from so101_bringup.programs import filled, NodeSpec, tied
from so101_bringup.security import check_keystore, enclave, variables
from so101_bringup.stack import STACKS
from so101_bringup.supervisor import Failures, GIVEN_UP, GivenUp
from so101_bringup.terminal.phone import phone_environment

RESPAWN_DELAY_S = 2.0
OF_LAUNCH = ('launch-prefix', 'launch-prefix-filter')
"""Arguments that ros2 launch itself takes."""


def launch_description(name: str) -> LaunchDescription:
    """Return the launch description of one of `STACKS`, with an argument for each of its options."""
    actions: list[Action] = [
        DeclareLaunchArgument(option, default_value=_text(info.default), description=info.doc)
        for option, info in OPTIONS.items()
    ]
    # A list that depends on arguments has to be built when they are known.
    actions.append(OpaqueFunction(function=_nodes, args=[name]))
    return LaunchDescription(actions)


def _nodes(context: LaunchContext, name: str) -> list[Action]:
    _refuse_unknown(context.argv or [], name)
    words = [f'{option}:={LaunchConfiguration(option).perform(context)}' for option in OPTIONS]
    options = parse_options(words)
    said: list[str] = []
    nodes = prepare(STACKS[name](options), options, Path(_config()), said.append)
    actions: list[Action] = [
        LogInfo(msg=note) for note in (*network_notes(options), *told(clear_leftovers()), *said)
    ]
    security, namespace = str(options['security']), str(options['namespace'])
    given_up = GivenUp()
    context.environment.update(
        environment(options)
        | variables(security)
        | phone_environment(options)
        | {GIVEN_UP: str(given_up.path)}
    )  # of launch itself too, which looks around
    if security:
        check_keystore(security, nodes, namespace)
    check_alone(nodes, options)
    for node in nodes:
        watch = None if node.required or node.finishes else _Watch(node.name, given_up)
        action = _action(node, namespace, bool(security), watch)
        actions.append(action)
        if watch is not None:
            handler = OnProcessIO(target_action=action, on_stdout=watch.hear, on_stderr=watch.hear)
            actions.append(RegisterEventHandler(handler))
    return actions


def _refuse_unknown(arguments: list[str], name: str) -> None:
    """Refuse a misspelt argument, which launch itself ignores; those of a file that includes this one are its own."""
    if not any(Path(word).name == f'{name}.launch.py' for word in sys.argv):
        return
    for word in arguments:
        if word.partition(':=')[0] not in (*OPTIONS, *OF_LAUNCH):
            raise OptionError(f'{word!r} is no argument of {name}.launch.py; it has: {", ".join(OPTIONS)}.')


class _Watch:
    """Ends the restarts of a node that fails the same way again and again."""

    def __init__(self, name: str, given_up: GivenUp) -> None:
        self._name, self._given_up = name, given_up
        self._failures, self._started_s, self._rest = Failures(), time.monotonic(), ''

    def hear(self, event: ProcessIO) -> None:
        *lines, self._rest = (self._rest + event.text.decode(errors='replace')).split('\n')
        for line in lines:
            self._failures.hear(line)

    def ended(self, event: ProcessExited, context: LaunchContext) -> list[Action]:
        now = time.monotonic()
        self._failures.hear(self._rest)
        self._rest = ''
        why = self._failures.note(event.returncode, now - self._started_s)
        self._started_s = now + RESPAWN_DELAY_S
        if not why or context.is_shutdown:
            return []
        self._given_up.add(self._name, why)
        shutdown = ShutdownProcess(process_matcher=matches_action(event.action))
        return [LogInfo(msg=f'{self._name}: {why}'), EmitEvent(event=shutdown)]


def _text(value: bool | int | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _action(node: NodeSpec, namespace: str, is_secure: bool, watch: _Watch | None = None) -> Action:
    end = (
        {'on_exit': [OpaqueFunction(function=_ended, args=[node, namespace, is_secure])]}
        if node.required or node.finishes
        else {'respawn': True, 'respawn_delay': RESPAWN_DELAY_S, 'on_exit': watch and watch.ended}
    )
    # Ctrl-C reaches a process of the launch from its first moment on, and one that dies of it before the launch has
    # heard of its start leaves the launch waiting for ever (launch 3.4.3). Behind may stand a debugger, as
    # launch-prefix names it.
    words = shlex.join(['env', '--block-signal=INT', *tied(node)])
    prefix = [f'{words} ', LaunchConfiguration('launch-prefix', default='')]
    how = {'output': 'screen', 'emulate_tty': True, 'prefix': prefix, **end}
    if not node.is_ros:
        executable = f'{get_package_prefix(node.package)}/lib/{node.package}/{node.executable}'
        return ExecuteProcess(cmd=[executable, *node.arguments], name=node.name, **how)
    files = [f'{_config()}/{node.config}'] if node.config else []
    return Node(
        package=node.package,
        executable=node.executable,
        name=node.name,
        exec_name=node.name,  # in launch's log; else that of what steps back before it, `nice`
        namespace=namespace,
        parameters=[*files, {name: filled(value, _config()) for name, value in node.parameters.items()}],
        arguments=[filled(word, _config()) for word in node.arguments],
        ros_arguments=['--enclave', enclave(namespace, node.name)] if is_secure else [],
        **how,
    )


def _ended(context: LaunchContext, node: NodeSpec, namespace: str, is_secure: bool) -> list[Action]:
    """Return what follows the end of a node that the stack needs, or that finishes the work."""
    code = context.locals.event.returncode
    if context.is_shutdown:  # it needs no second one, which would interrupt an arm while it parks
        return []
    if node.finishes and code == 0:
        return [Shutdown(reason=f'{node.name} has finished')]
    if node.finishes and not node.required:
        return [TimerAction(period=RESPAWN_DELAY_S, actions=[_action(node, namespace, is_secure)])]
    # An error, and not a mere shutdown: only so does ros2 launch end with an exit code that tells of it.
    raise RuntimeError(f'{node.name} ended with exit code {code}; the stack needs it, stopping everything')


def _config() -> str:
    return f'{get_package_share_directory("so101_bringup")}/config'
