# SPDX-License-Identifier: Apache-2.0
"""From what was recorded to a calibration: the offset that puts a joint's middle at mid-encoder.

A servo reports (encoder - offset) modulo one turn. With the middle of the travel at tick 2047 the seam is as
far from both end stops as it can be, whatever pose the arm was calibrated from.
"""

from so101_driver.calibration.calibration import (
    CalibrationError,
    JointCalibration,
    MAX_TICK,
    SERVO_IDS,
    TICKS_PER_TURN,
)
from so101_driver.calibration.joint_calibration import MAX_HOMING_OFFSET

MID_TICK = MAX_TICK // 2
"""Where LeRobot, too, puts the middle."""


def swept_joint(name: str, low: int, high: int, *, old_offset: int, drive_mode: int = 0) -> JointCalibration:
    """Calibrate a joint that was moved from stop to stop.

    Args:
        name: of the joint.
        low: lowest position that the servo reported, counted on through the seam [ticks].
        high: highest position, counted likewise [ticks].
        old_offset: homing offset of the servo while it reported those [ticks].
        drive_mode: 1 when the gripper closes towards higher ticks.

    Raises:
        CalibrationError: the joint was not moved, or moved by a turn or more.
    """
    if not 0 < high - low <= MAX_TICK - 2:
        raise CalibrationError(
            f'{name}: expected a travel of less than one turn, got {high - low} ticks; '
            f'check that the horn is tight, and move the joint from stop to stop'
        )
    offset = _offset_for((low + high) // 2, old_offset)
    moved = old_offset - offset
    new_low = (low + moved) % TICKS_PER_TURN
    return JointCalibration(SERVO_IDS[name], drive_mode, offset, new_low, new_low + high - low)


def full_turn_joint(name: str, zero: int, *, old_offset: int) -> JointCalibration:
    """Calibrate a joint without stops: `zero` [ticks] is what its servo reports in the model's zero pose."""
    return JointCalibration(SERVO_IDS[name], 0, _offset_for(zero, old_offset), 0, MAX_TICK)


def reported_after(tick: int, *, old_offset: int, new_offset: int) -> int:
    """Position that a servo at `tick` reports once its offset is `new_offset` [ticks, 0..4095]."""
    return (tick + old_offset - new_offset) % TICKS_PER_TURN


def _offset_for(middle: int, old_offset: int) -> int:
    half = TICKS_PER_TURN // 2
    offset = (middle + old_offset - MID_TICK + half) % TICKS_PER_TURN - half
    # -2048 does not fit into the register; one tick beside is as good a middle.
    return max(offset, -MAX_HOMING_OFFSET)
