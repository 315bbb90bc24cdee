# SPDX-License-Identifier: Apache-2.0
"""The virtual arm as a program.

``virtual_arm --link PATH`` is set up and calibrated like a real arm, to run the driver on.
``python -m so101_driver.emulator --link PATH`` has servos as they come from the factory, to test the bus with.
"""

import argparse
from collections.abc import Sequence
import contextlib
import importlib
from pathlib import Path
import sys
import threading
import time

from so101_contract.joints import JOINT_NAMES
from so101_driver.calibration.files import save
from so101_driver.emulator.arm import calibrated_arm, virtual_calibration, VirtualArm
from so101_driver.emulator.control import ControlServer
from so101_driver.emulator.dynamics import ServoDynamics
from so101_driver.emulator.faults import FaultRates
from so101_driver.emulator.line import PATIENCE_S, port_in_use
from so101_driver.emulator.servo import Behaviour
from so101_interfaces_py.endings import Ending, heed_endings

LOOK_S = 0.05


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the arm with factory servos."""
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
    """Serve an arm with factory servos until a signal comes, or the parent goes."""
    options = parse_arguments(arguments)
    ending = _end_of_signals()
    with contextlib.ExitStack() as stack:
        arm = stack.enter_context(make_arm(options))
        if options.control:
            stack.callback(ControlServer(arm, options.control).close)
        sys.stdout.write(arm.port + '\n')
        sys.stdout.flush()
        if options.until_stdin_closes:
            threading.Thread(target=_wait_for_end, args=(ending,), daemon=True).start()
        _wait(ending)
    return 0


def serve_calibrated(argv: Sequence[str] | None = None) -> int:
    """Serve a calibrated arm until a signal comes, or the parent goes: the program `virtual_arm`."""
    parser = argparse.ArgumentParser(
        prog='virtual_arm',
        description='A calibrated virtual SO-101 on a pseudo-terminal; arm_node opens it like an arm.',
    )
    parser.add_argument('--link', type=Path, required=True, help='path under which the arm appears')
    parser.add_argument('--calibration', type=Path, help='write the calibration of the arm to this file')
    parser.add_argument('--control', type=Path, help='socket for faults, one JSON object per line')
    parser.add_argument(
        '--pose', type=float, nargs=len(JOINT_NAMES), help='joint positions at the start [rad]'
    )
    arguments = parser.parse_args(argv)
    ending = _end_of_signals()
    calibration = virtual_calibration()
    # The file first: who waits for the port finds both.
    if arguments.calibration is not None:
        save(calibration, arguments.calibration)
    with contextlib.ExitStack() as stack:
        arm = stack.enter_context(calibrated_arm(calibration, arguments.pose, link=arguments.link))
        if arguments.control is not None:
            stack.callback(ControlServer(arm, arguments.control).close)
        sys.stdout.write(f'virtual arm on {arm.port}\n')
        sys.stdout.flush()
        _wait(ending)
        # ros2 launch interrupts all at once: an arm that is being parked must still be there.
        deadline = time.monotonic() + PATIENCE_S
        while port_in_use(arguments.link) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
    return 0


def _end_of_signals() -> Ending:
    """What each signal to end asks, and the end of the parent."""
    ending = Ending()
    ending.spinning = True
    heed_endings(ending)
    return ending


def _wait(ending: Ending) -> None:
    while not ending.asked:
        time.sleep(LOOK_S)


def _wait_for_end(ending: Ending) -> None:
    while sys.stdin.buffer.read(1):
        pass
    ending.asked = True


if __name__ == '__main__':
    sys.exit(main())
