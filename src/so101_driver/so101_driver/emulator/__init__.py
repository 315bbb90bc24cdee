# SPDX-License-Identifier: Apache-2.0
"""A virtual arm at the level of bytes: STS3215 servos on a pseudo-terminal, with faults on demand."""

from so101_driver.emulator.arm import VirtualArm
from so101_driver.emulator.control import ArmControl, ControlServer
from so101_driver.emulator.dynamics import Motion, MotionLimits, ServoDynamics, SimpleDynamics
from so101_driver.emulator.faults import Fault, FaultRates
from so101_driver.emulator.process import VirtualArmProcess
from so101_driver.emulator.servo import Behaviour, VirtualServo

__all__ = [
    'ArmControl',
    'Behaviour',
    'ControlServer',
    'Fault',
    'FaultRates',
    'Motion',
    'MotionLimits',
    'ServoDynamics',
    'SimpleDynamics',
    'VirtualArm',
    'VirtualArmProcess',
    'VirtualServo',
]
