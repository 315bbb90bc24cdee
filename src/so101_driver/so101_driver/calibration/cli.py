# SPDX-License-Identifier: Apache-2.0
"""The command `calibrate`: guide a person through the calibration of an arm, or move calibrations about."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
import sys

from rich.console import Console

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import BusError
from so101_driver.calibration.arm_commands import ArmCommands, Ask
from so101_driver.calibration.calibration import ArmCalibration, CalibrationError
from so101_driver.calibration.files import lerobot_text, load, save
from so101_driver.calibration.places import ArmKind, Places
from so101_driver.calibration.procedure import pending_path
from so101_driver.calibration.zero_check import POSES
from so101_driver.setup.ports import AUTO, choose_port, find_ports

SWEEP_TIMEOUT_S = 900.0


class CalibrateCommand:
    """One run of the command.

    Args:
        arguments: what `parser` made of the command line.
        ask: shows a question and returns the answer; `input` for a person.
        console: where to write.
        places: folders of the calibration files.
    """

    def __init__(
        self, arguments: argparse.Namespace, ask: Ask, console: Console, places: Places | None = None
    ) -> None:
        self._arguments = arguments
        self._ask = ask
        self._console = console
        self._places = places or Places.from_environment()
        self._kind: ArmKind = 'leader' if arguments.leader else 'follower'
        self._arm: str = arguments.arm or self._kind
        self.path = self._places.own_path(self._arm)

    def run(self) -> int:
        """Do what was asked for; returns the exit status."""
        if self._arguments.list:
            self._list()
        elif self._arguments.import_lerobot is not None:
            self._import(self._arguments.import_lerobot)
        elif self._arguments.export is not None:
            self._export(self._arguments.export)
        else:
            return self._with_arm()
        return 0

    def _with_arm(self) -> int:
        bus = ServoBus(choose_port(self._arguments.port, find_ports()))
        bus.open()
        commands = ArmCommands(bus, self._ask, self._console)
        try:
            return self._arm_command(commands)
        finally:
            bus.close(torque_off=commands.limp)  # an arm that is only looked at must not fall

    def _arm_command(self, commands: ArmCommands) -> int:
        given = self._arguments
        if given.check:
            return 0 if commands.check(self._find(), self._places.load_known(self._kind)) else 1
        calibration: ArmCalibration | None
        if given.to_servos:
            calibration = commands.to_servos(self._find(), self.path)
        elif given.resume:
            calibration = commands.resume(self.path)
        elif given.zero_check is not None:
            pose = POSES[given.zero_check]
            calibration = commands.zero_check(self._find(), self.path, pose, apply=given.apply)
        else:
            calibration = commands.calibrate(
                self.path,
                gripper_map='linear' if self._kind == 'leader' else 'angle',
                mirrored_gripper=given.mirrored_gripper,
                signs=self._old_signs(),
                timeout_s=given.timeout,
            )
        if calibration is None:
            return 1
        self._report(calibration)
        return 0

    def _list(self) -> None:
        for arm, path in sorted(self._places.known(self._kind).items()):
            try:
                self._say(f'{arm}: {load(path).calibration_id}  {path}')
            except CalibrationError as error:
                self._say(f'{arm}: {error}')

    def _import(self, source: Path) -> None:
        calibration = load(source)
        if self._kind == 'leader':
            calibration = replace(calibration, gripper_map='linear')
        save(calibration, self.path)
        self._report(calibration)
        self._say(
            'The homing offsets live in the servos too. See with `calibrate --check` whether they agree; if '
            'not, write them with `calibrate --to-servos`, or after a repair calibrate anew.'
        )

    def _export(self, target: str) -> None:
        calibration = load(self._find())
        path = self._places.lerobot_path(self._arm, self._kind) if target == 'lerobot' else Path(target)
        if path.resolve() == self.path.resolve():
            raise CalibrationError(f'{path} is the file to be exported; give another name')
        plain = ArmCalibration(
            {name: replace(calibration[name], sign=1, offset_rad=0.0) for name in JOINT_NAMES}
        )
        save(plain, path)
        self._say(f'Wrote {path}.')
        if plain != replace(calibration, gripper_map='angle'):
            self._say('LeRobot has no field for signs and offsets; with it the arm keeps its old zero.')

    def _find(self) -> Path:
        return self.path if self.path.exists() else self._places.find(self._arm, self._kind)

    def _old_signs(self) -> dict[str, int]:
        """Signs of an earlier calibration: a joint that turns the wrong way still does."""
        try:
            old = load(self.path)
        except CalibrationError:
            return {}
        return {name: old[name].sign for name in JOINT_NAMES}

    def _report(self, calibration: ArmCalibration) -> None:
        self._say(f'Calibration {calibration.calibration_id} of the arm {self._arm} is in {self._find()}.')
        if self._arguments.verbose:
            self._say(lerobot_text(calibration))

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser('calibrate', description=__doc__)
    made.add_argument('--port', default=AUTO, help='path or serial number of the adapter (default: find it)')
    made.add_argument('--arm', metavar='NAME', help='name of the arm (default: follower, or leader)')
    made.add_argument('--leader', action='store_true', help='this is a leader arm')
    made.add_argument(
        '--mirrored-gripper', action='store_true', help='the gripper closes towards higher ticks'
    )
    made.add_argument(
        '--timeout', type=float, default=SWEEP_TIMEOUT_S, metavar='S', help='give up a sweep after this [s]'
    )
    made.add_argument('--apply', action='store_true', help='with --zero-check: take the errors out')
    made.add_argument('--verbose', action='store_true', help='print the numbers too')
    what = made.add_mutually_exclusive_group()
    what.add_argument('--check', action='store_true', help='compare the file with the servos')
    what.add_argument(
        '--zero-check',
        nargs='?',
        const='zero',
        choices=sorted(POSES),
        help='compare a pose with the model (default: zero)',
    )
    what.add_argument('--to-servos', action='store_true', help='write the file into the servos')
    what.add_argument('--resume', action='store_true', help='finish an interrupted calibration')
    what.add_argument('--import-lerobot', type=Path, metavar='FILE', help="take LeRobot's file")
    what.add_argument(
        '--export', metavar='FILE', help="write LeRobot's file; `lerobot` puts it where LeRobot looks"
    )
    what.add_argument('--list', action='store_true', help='list the calibrations of this machine')
    return made


def main(
    argv: Sequence[str] | None = None,
    *,
    ask: Ask = input,
    console: Console | None = None,
    places: Places | None = None,
) -> int:
    """Run the command; returns the exit status.

    Args:
        argv: the command line without the program's name.
        ask: shows a question and returns the answer.
        console: where to write.
        places: folders of the calibration files.
    """
    command: CalibrateCommand | None = None
    try:
        command = CalibrateCommand(parser().parse_args(argv), ask, console or Console(), places)
        return command.run()
    except (CalibrationError, BusError) as error:
        print(f'calibrate: {error}', file=sys.stderr)
        return 1
    except (KeyboardInterrupt, EOFError):
        half_done = command is not None and pending_path(command.path).exists()
        rest = 'finish it with calibrate --resume' if half_done else 'the servos hold what they held'
        print(f'\ncalibrate: stopped; {rest}.', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
