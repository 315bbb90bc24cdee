# SPDX-License-Identifier: Apache-2.0
"""What the command `calibrate` does with an arm on the bus: guide, check, write, compare with the model."""

from collections.abc import Callable, Mapping
import math
from pathlib import Path
import time

import numpy as np
from rich.console import Console

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.registers import Reg
from so101_driver.calibration.calibration import ArmCalibration, CalibrationError, GripperMap
from so101_driver.calibration.checks import differences, matching
from so101_driver.calibration.display import enter_pressed, pose_lines, Screen, sweep_lines
from so101_driver.calibration.files import load, save
from so101_driver.calibration.procedure import Calibrator, commit, pending_path, resume
from so101_driver.calibration.servo import read_joints, read_servo_values
from so101_driver.calibration.zero_check import check_zero, corrected, NamedPose, Verdict

SAMPLE_S = 0.005
POSE_SAMPLES = 50
_STYLES = {Verdict.GOOD: 'green', Verdict.WARN: 'yellow', Verdict.FAIL: 'red'}

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
            self.say(angles + zero.finding, style=_STYLES[zero.verdict])
        if any(zero.verdict is Verdict.FAIL for zero in zeros):
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
        """Guide a person through the calibration, write the servos and save the file.

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
