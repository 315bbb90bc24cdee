# SPDX-License-Identifier: Apache-2.0
"""Command line of the virtual arm: ``python -m so101_driver.emulator --link /tmp/so101-arm``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import importlib
import signal
import sys
import threading

from so101_driver.emulator.arm import VirtualArm
from so101_driver.emulator.control import ControlServer
from so101_driver.emulator.dynamics import ServoDynamics
from so101_driver.emulator.faults import FaultRates


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m so101_driver.emulator',
        description='A virtual SO-101 arm: six STS3215 servos on a pseudo-terminal. Prints the path to open.',
    )
    parser.add_argument('--link', help='path under which the arm appears (default: a temporary one)')
    parser.add_argument('--ids', default='1,2,3,4,5,6', help='ids of the servos (default: %(default)s)')
    parser.add_argument('--positions', help='encoder angles at the start in ticks, separated by commas')
    parser.add_argument('--control', help='path of a socket for commands, one JSON object per line')
    parser.add_argument(
        '--dynamics', help='module:function that makes the dynamics (default: a simple model)'
    )
    parser.add_argument('--no-pacing', action='store_true', help='answer at once instead of at 1 Mbaud')
    parser.add_argument('--no-auto-enable', action='store_true', help='a goal does not switch the torque on')
    parser.add_argument('--bad', type=float, default=0.0, help='share of bad answers, 0..1')
    parser.add_argument('--seed', type=int, default=0, help='of the random faults')
    parser.add_argument('--until-stdin-closes', action='store_true', help='end when the parent process does')
    return parser.parse_args(arguments)


def make_arm(options: argparse.Namespace) -> VirtualArm:
    """The arm that the options describe."""
    from so101_driver.emulator.servo import Behaviour

    dynamics: ServoDynamics | None = None
    if options.dynamics:
        module, _, function = options.dynamics.partition(':')
        dynamics = getattr(importlib.import_module(module), function)()
    positions = [float(text) for text in options.positions.split(',')] if options.positions else None
    arm = VirtualArm(
        [int(text) for text in options.ids.split(',')],
        link=options.link,
        positions=positions,
        dynamics=dynamics,
        pacing=not options.no_pacing,
        behaviour=Behaviour(goal_enables_torque=not options.no_auto_enable),
        seed=options.seed,
    )
    arm.faults.set_rates(FaultRates.bad_packets(options.bad))
    return arm


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes, or the parent goes."""
    options = parse_arguments(arguments)
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    with make_arm(options) as arm:
        control = ControlServer(arm, options.control) if options.control else None
        sys.stdout.write(arm.port + '\n')
        sys.stdout.flush()
        if options.until_stdin_closes:
            threading.Thread(target=_wait_for_end, args=(done,), daemon=True).start()
        done.wait()
        if control is not None:
            control.close()
    return 0


def _wait_for_end(done: threading.Event) -> None:
    while sys.stdin.buffer.read(1):
        pass
    done.set()


if __name__ == '__main__':
    sys.exit(main())
