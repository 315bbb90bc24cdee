# SPDX-License-Identifier: Apache-2.0
"""The command `calibrate`: guide the user through the calibration of an arm, or move calibrations about."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
import math
from pathlib import Path
import sys
import time

import numpy as np
from rich.console import Console

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import BusError
from so101_driver.bus.registers import Reg
from so101_driver.calibration.calibration import ArmCalibration, CalibrationError, GripperMap
from so101_driver.calibration.checks import (
    Agreement,
    check_zero,
    corrected,
    differences,
    matching,
    NamedPose,
    POSES,
)
from so101_driver.calibration.display import enter_pressed, pose_lines, Screen, sweep_lines
from so101_driver.calibration.files import ArmKind, lerobot_text, load, Places, save
from so101_driver.calibration.procedure import Calibrator, commit, pending_path, resume
from so101_driver.calibration.servo import read_joints, read_servo_values
from so101_driver.setup.ports import AUTO, choose_port, find_ports

SAMPLE_S = 0.005
POSE_SAMPLES = 50
_STYLES = {Agreement.GOOD: 'green', Agreement.WARN: 'yellow', Agreement.FAIL: 'red'}

Ask = Callable[[str], str]


class ArmCommands:
    """Everything that `calibrate` does with an arm.

    Args:
        bus: open bus of the arm.
        ask: shows a question and returns the answer.
        console: where to write.

    Attributes:
        limp: whether a command made the arm limp; until then it is left as it was found.
    """

    def __init__(self, bus: ServoBus, ask: Ask, console: Console) -> None:
        self._bus = bus
        self._ask = ask
        self._console = console
        self.limp = False

    def check(self, path: Path, known: Mapping[str, ArmCalibration]) -> bool:
        """Compare a calibration file with the servos and say what differs; True when nothing does.

        Args:
            path: the file.
            known: other calibrations, to say whose servos these are.
        """
        calibration = load(path)
        servos = read_servo_values(self._bus)
        found = differences(calibration, servos)
        if not found:
            self.say(f'The servos hold calibration {calibration.calibration_id} of {path}.')
            return True
        for difference in found:
            self.say(f'{difference}.')
        owners = matching(known, servos)
        if owners:
            remedy = f'They hold that of {" or ".join(owners)}: is this that arm?'
        elif pending_path(path).exists():
            remedy = 'A calibration was interrupted: finish it with `calibrate --resume`.'
        else:
            remedy = 'Calibrate anew, or write the file into them with `calibrate --to-servos`.'
        self.say(f'The servos do not hold the calibration of {path}. {remedy}')
        return False

    def to_servos(self, source: Path, path: Path) -> ArmCalibration:
        """Write the calibration file `source` into the servos and save it as `path`."""
        calibration = load(source)
        if differences(calibration, read_servo_values(self._bus)):
            self._make_limp()
            commit(self._bus, calibration, path)
        return calibration

    def resume(self, path: Path) -> ArmCalibration:
        """Finish an interrupted calibration."""
        load(pending_path(path))  # fails before the arm goes limp
        self._make_limp()
        return resume(self._bus, path)

    def zero_check(self, source: Path, path: Path, pose: NamedPose, *, apply: bool) -> ArmCalibration | None:
        """Compare the arm in a pose with the model; None when it is too far off.

        Args:
            source: file of the calibration.
            path: where to save it when it changes.
            pose: the pose.
            apply: take the errors out.
        """
        calibration = load(source)
        wrong = differences(calibration, read_servo_values(self._bus))
        if wrong:
            raise CalibrationError(
                f'expected the servos to hold the calibration of {source}, but {wrong[0]}; '
                f'run `calibrate --check`'
            )
        self._make_limp()
        Calibrator(self._bus).start()
        self._ask(f'Hold the arm like this: {pose.look}. Then press ENTER. ')
        samples = []
        for _ in range(POSE_SAMPLES):
            ticks = read_joints(self._bus, Reg.PRESENT_POSITION)
            samples.append(calibration.ticks_to_rad([ticks[name] for name in JOINT_NAMES]))
            time.sleep(SAMPLE_S)
        zeros = check_zero(np.median(samples, axis=0), pose.joints_rad)
        for zero in zeros:
            measured, expected = math.degrees(zero.measured_rad), math.degrees(zero.expected_rad)
            angles = f'{zero.name:<13} {measured:+8.1f} deg, expected {expected:+8.1f}   '
            self.say(angles + zero.finding, style=_STYLES[zero.agreement])
        if any(zero.agreement is Agreement.FAIL for zero in zeros):
            return None
        if apply:
            calibration = corrected(calibration, zeros)
            save(calibration, path)
        else:
            self.say('Take the errors out with `calibrate --zero-check --apply`.')
        return calibration

    def calibrate(
        self,
        path: Path,
        *,
        gripper_map: GripperMap,
        mirrored_gripper: bool,
        signs: Mapping[str, int],
        timeout_s: float,
    ) -> ArmCalibration:
        """Guide the user through the calibration, write the servos and save the file.

        Args:
            path: the file.
            gripper_map: see `GripperMap`.
            mirrored_gripper: whether the gripper closes towards higher ticks.
            signs: sign of each joint that turns against the model.
            timeout_s: give up when the joints are not moved for this long [s].
        """
        calibrator = Calibrator(self._bus, gripper_map=gripper_map, mirrored_gripper=mirrored_gripper)
        self._make_limp('Nothing is written into the servos before the end. ')
        calibrator.start()
        self._sweep(calibrator, timeout_s)
        self._take_pose(calibrator)
        calibration = calibrator.plan(signs=signs)
        self.say('Writing the servos. Leave the power on.')
        calibrator.commit(calibration, path)
        return calibration

    def say(self, text: str, style: str | None = None) -> None:
        """Write one line, as it is."""
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def _make_limp(self, more: str = '') -> None:
        self._ask(f'The arm is about to go limp and would fall: hold it. {more}Press ENTER to go on. ')
        self.limp = True

    def _sweep(self, calibrator: Calibrator, timeout_s: float) -> None:
        self.say(
            'Move every joint but wrist_roll slowly from stop to stop, twice. This ends by itself when all '
            'are done; ENTER ends it early, Ctrl-C gives up.'
        )
        screen = Screen(self._console, time.monotonic)
        deadline = time.monotonic() + timeout_s
        with screen.live():
            while not calibrator.sweep.done:
                calibrator.sample()
                screen.show(sweep_lines(calibrator, screen.columns))
                if enter_pressed() and self._may_end(calibrator):
                    break
                if time.monotonic() > deadline:
                    missing = [f'{p.name}: {p.advice}' for p in calibrator.sweep.progress() if not p.done]
                    raise CalibrationError(
                        f'expected every joint to be moved within {timeout_s:.0f} s, but '
                        f'{", ".join(missing)}; nothing was written, start again'
                    )
                time.sleep(SAMPLE_S)
            screen.show(sweep_lines(calibrator, screen.columns), last=True)

    def _may_end(self, calibrator: Calibrator) -> bool:
        try:
            calibrator.end_sweep()
        except CalibrationError as error:
            self.say(f'{error}.')
            return False
        return True

    def _take_pose(self, calibrator: Calibrator) -> None:
        while True:
            self._ask(
                'Hold the arm in its middle: forearm and gripper level, pointing straight ahead, and turn '
                'the wrist so that the moving jaw is on top. Then press ENTER. '
            )
            for _ in range(POSE_SAMPLES):
                calibrator.sample()
                time.sleep(SAMPLE_S)
            Screen(self._console, time.monotonic).show(pose_lines(calibrator), last=True)
            try:
                calibrator.take_pose()
            except CalibrationError as error:
                self.say(f'{error}.')
            else:
                return


SWEEP_TIMEOUT_S = 900.0


class CalibrateCommand:
    """One run of the command.

    Args:
        arguments: what `parser` made of the command line.
        ask: shows a question and returns the answer; `input` in a terminal.
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
