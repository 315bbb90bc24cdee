# SPDX-License-Identifier: Apache-2.0
"""`./so101 teleop`: drive the arm of the graph that runs, from this terminal."""

import argparse
from collections.abc import Sequence
import math
import os
from pathlib import Path
import sys
from typing import TYPE_CHECKING

from so101_session.teleop.config import DEVICES
from so101_session.teleop.devices.keys import DEFAULT_KEYS
from so101_session.teleop.terminal import GREEN, help_lines, RED, status_line, TerminalScreen

if TYPE_CHECKING:
    from so101_session.teleop.node import TeleopNode

EPILOG = """examples:
  ./so101 teleop                                   keys of this terminal, over SSH as well
  ./so101 teleop --device gamepad --pad /dev/input/js0
  ./so101 teleop --device leader --port /dev/ttyACM1 --calibration my_leader
  ./so101 teleop --check                           drive a little, end with Ctrl-C, read the numbers
  ./so101 teleop -p speed:=0.3 -p deadzone:=0.2    any parameter of docs/parameters.md

It joins the stack that ./so101 up, ros2 launch so101_bringup teleop.launch.py or both have started. While nothing is
pressed it says nothing, and the arm holds or the policy goes on.
"""


class LiveScreen(TerminalScreen):
    """The line that lives, for a node."""

    def show(self, node: 'TeleopNode') -> None:
        """Show what the device says and what the session does."""
        state = node.pilot.state
        rate = node.report.said_hz
        text = status_line(state, node.pilot.hand.opening, node.status, 0.0 if math.isnan(rate) else rate)
        self.line(text, RED if not state.alive else GREEN if state.active else '')


def main(argv: Sequence[str] | None = None) -> int:
    """Run teleoperation until Ctrl-C; the exit code of --check is 1 where something is not good."""
    options = _options(argv)
    if options.keys:
        sys.stdout.write('\n'.join(help_lines(options.device, DEFAULT_KEYS)) + '\n')
        return 0
    # Late: --help and --keys need no ROS.
    from so101_interfaces_py.params import ParameterError
    from so101_interfaces_py.spin import run_node
    from so101_session.teleop.devices.base import DeviceError
    from so101_session.teleop.node import TeleopNode

    screen = LiveScreen(sys.stdout)
    made: list[TeleopNode] = []

    def make() -> TeleopNode:
        node = TeleopNode(screen)
        made.append(node)
        for line in ['', *help_lines(node.config.device, node.config.keys), '']:
            screen.say(line)
        return node

    code = run_node(make, (DeviceError, ParameterError), _ros_arguments(options))
    if made:
        screen.say('ended; the arm holds unless a policy drives')
    if options.check and made:
        report = made[0].report
        for line in report.lines():
            screen.say(line)
        code = code or int(bool(report.problems()))
    return code


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='so101 teleop',
        description='Drive the arm by hand, take over from the policy, and say how episodes went.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--device', choices=DEVICES, default='keyboard', help='what to drive with (%(default)s)'
    )
    parser.add_argument('--keys', action='store_true', help='show what there is to press, and end')
    parser.add_argument(
        '--check', action='store_true', help='report rate, latency and what was cut, at the end'
    )
    parser.add_argument('--namespace', default='', help='namespace of the arm')
    parser.add_argument('--speed', type=float, help='share of the fastest speed, 0.01 to 1')
    parser.add_argument('--port', help="port of the leader arm's bus")
    parser.add_argument('--calibration', help="the leader's calibration: a file, or the name of the arm")
    parser.add_argument('--pad', help='joystick to read, as /dev/input/js0')
    parser.add_argument(
        '-p',
        dest='parameters',
        action='append',
        default=[],
        metavar='NAME:=VALUE',
        help='any other parameter',
    )
    return parser.parse_args(argv)


def _ros_arguments(options: argparse.Namespace) -> list[str]:
    given = {
        'device': options.device,
        'speed': options.speed,
        'leader_port': options.port,
        'leader_calibration': options.calibration,
        'pad_path': options.pad,
    }
    arguments = ['teleop', '--ros-args']
    file = Path(os.environ.get('SO101_ROOT', '')) / 'config' / 'teleop.yaml'
    if 'SO101_ROOT' in os.environ and file.is_file():
        arguments += ['--params-file', str(file)]
    if options.namespace:
        arguments += ['-r', f'__ns:=/{options.namespace.strip("/")}']
    for name, value in given.items():
        if value is not None:
            arguments += ['-p', f'{name}:={value}']
    for parameter in options.parameters:
        arguments += ['-p', parameter]
    return arguments


if __name__ == '__main__':
    sys.exit(main())
