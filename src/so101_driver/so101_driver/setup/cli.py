# SPDX-License-Identifier: Apache-2.0
"""The command `setup-motors`: give the six motors of a new arm their IDs, one after the other."""

import argparse
from collections.abc import Callable, Sequence
import sys

from rich.console import Console

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.config import BusConfig
from so101_driver.bus.errors import BusError
from so101_driver.calibration.calibration import CalibrationError
from so101_driver.calibration.files import check_arm_id
from so101_driver.setup.motors import BUS_RATE, MotorSetup, next_step, SetUpMotor, SetupState
from so101_driver.setup.ports import AUTO, choose_port, find_ports

Ask = Callable[[str], str]

SETUP_TIMES = BusConfig(late_window_s=0.03)
"""Most pings go unanswered while a motor is looked for; waiting long for late answers would add up."""


class SetupCommand:
    """One run of the command.

    Args:
        setup: does the work.
        bus: the bus that `setup` works on.
        ask: shows a question and returns the answer.
        console: where to write.
    """

    def __init__(self, setup: MotorSetup, bus: ServoBus, ask: Ask, console: Console) -> None:
        self._setup = setup
        self._bus = bus
        self._ask = ask
        self._console = console

    def one(self, joint: str, *, force: bool) -> None:
        """Set up the motor of one joint; the wiring may be corrected and try again."""
        self._report(self._setup.set_up(joint, force=force))

    def all(self, *, force: bool) -> None:
        """Set up every motor that is not done, then look at the whole chain."""
        while (joint := self._setup.state.next_joint) is not None:
            self._ask(f'{next_step(self._setup.state)} Then press ENTER. ')
            try:
                self.one(joint, force=force)
            except BusError as error:
                if not self._bus.is_open:
                    raise
                self._say(f'{error}.')
        self._ask(f'{next_step(self._setup.state)} Then press ENTER. ')
        self._bus.change_baud_rate(BUS_RATE)
        firmware = {f'{servo.firmware[0]}.{servo.firmware[1]}' for servo in self._bus.handshake()}
        self._setup.state.forget()
        self._say(f'All six motors answer (firmware {", ".join(sorted(firmware))}). Now run calibrate.')

    def _report(self, motor: SetUpMotor) -> None:
        found = f'found as ID {motor.found.servo_id} at {motor.found.baud_rate} bit/s'
        what = 'is set up' if motor.changed else 'was set up already'
        self._say(f'{motor.joint}: {found}, {what} as ID {motor.servo_id}.')

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser('setup-motors', description=__doc__)
    made.add_argument('--port', default=AUTO, help='path or serial number of the adapter (default: find it)')
    made.add_argument('--arm', default='follower', metavar='NAME', help='name of the arm (default: follower)')
    made.add_argument('--joint', choices=JOINT_NAMES, help='only this one, e.g. after a repair')
    made.add_argument('--restart', action='store_true', help='begin with the gripper again')
    made.add_argument(
        '--force', action='store_true', help='take a motor even if it looks like one that is done'
    )
    return made


def main(argv: Sequence[str] | None = None, *, ask: Ask = input, console: Console | None = None) -> int:
    """Run the command; returns the exit status.

    Args:
        argv: the command line without the program's name.
        ask: shows a question and returns the answer.
        console: where to write.
    """
    arguments = parser().parse_args(argv)
    try:
        state = SetupState.of_arm(check_arm_id(arguments.arm))
        if arguments.restart:
            state.forget()
        bus = ServoBus(choose_port(arguments.port, find_ports()), config=SETUP_TIMES)
        bus.open()
        try:
            command = SetupCommand(MotorSetup(bus, state), bus, ask, console or Console())
            if arguments.joint:
                command.one(arguments.joint, force=arguments.force)
            else:
                command.all(force=arguments.force)
        finally:
            bus.close(torque_off=False)  # each motor was switched off on its own
    except (BusError, CalibrationError) as error:
        print(f'setup-motors: {error}', file=sys.stderr)
        return 1
    except (KeyboardInterrupt, EOFError):
        print('\nsetup-motors: stopped; run it again to go on.', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
