# SPDX-License-Identifier: Apache-2.0
"""The `virtual_arm` program: a virtual arm, set up and calibrated like a real one, to run the driver on."""

import argparse
from collections.abc import Sequence
import contextlib
import fcntl
import math
import os
from pathlib import Path
import signal
import sys
import threading
import time

import numpy as np
import numpy.typing as npt

from so101_contract.joints import GRIPPER, JOINT_LIMITS_RAD, JOINT_NAMES
from so101_driver.bus.registers import Reg, TICKS_PER_TURN
from so101_driver.calibration.calibration import ArmCalibration
from so101_driver.calibration.files import save
from so101_driver.calibration.joint_calibration import JointCalibration, RAD_PER_TICK, SERVO_IDS
from so101_driver.emulator import ControlServer, VirtualArm
from so101_driver.gate.config import GateConfig

CENTRE = TICKS_PER_TURN // 2
# How long an interrupted arm waits for its driver to close the port [s].
PATIENCE_S = 4.0


def virtual_calibration() -> ArmCalibration:
    """Return the calibration of a perfectly assembled arm: each joint's middle is the model's zero."""
    joints = {}
    for name in JOINT_NAMES:
        lower, upper = JOINT_LIMITS_RAD[name]
        # The middle of the range is zero, so the range is symmetric; the gripper's begins where it is closed.
        half = math.ceil(((upper - lower) / 2.0 if name == GRIPPER else max(-lower, upper)) / RAD_PER_TICK)
        joints[name] = JointCalibration(
            id=SERVO_IDS[name],
            drive_mode=0,
            homing_offset=0,
            range_min=CENTRE - half,
            range_max=CENTRE + half,
        )
    return ArmCalibration(joints)


def calibrated_arm(
    calibration: ArmCalibration,
    pose_rad: npt.ArrayLike | None = None,
    *,
    link: Path | str | None = None,
    pacing: bool = True,
) -> VirtualArm:
    """Return a virtual arm whose servos hold a calibration.

    Args:
        calibration: What the servos' EEPROM shall hold.
        pose_rad: Joint positions at the start (6,) [rad]; the rest pose by default.
        link: Path under which the arm appears; a temporary one by default.
        pacing: Take the time that the bytes need on a real wire.
    """
    pose = GateConfig().rest_rad if pose_rad is None else pose_rad
    offsets = np.array([calibration[name].homing_offset for name in JOINT_NAMES])
    encoder = (calibration.rad_to_encoder_ticks(pose) + offsets) % TICKS_PER_TURN
    ids = [calibration[name].id for name in JOINT_NAMES]
    arm = VirtualArm(ids, link=link, positions=encoder.tolist(), pacing=pacing)
    for name in JOINT_NAMES:
        joint = calibration[name]
        servo = arm.servo(joint.id)
        servo.set(Reg.HOMING_OFFSET, joint.homing_offset)
        servo.set(Reg.MIN_POSITION_LIMIT, joint.range_min)
        servo.set(Reg.MAX_POSITION_LIMIT, joint.range_max)
    return arm


def port_in_use(path: Path) -> bool:
    """Return whether a driver has the port open; it opens it for itself alone and locks it."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:  # opened exclusively
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
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
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
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
        done.wait()
        # ros2 launch interrupts all at once: an arm that is being parked must still be there.
        deadline = time.monotonic() + PATIENCE_S
        while port_in_use(arguments.link) and time.monotonic() < deadline:
            time.sleep(0.05)
    return 0


if __name__ == '__main__':
    sys.exit(main())
