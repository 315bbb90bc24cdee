# SPDX-License-Identifier: Apache-2.0
"""Keeps the gripper from squeezing beyond contact, which overloads and burns its servo."""

from so101_driver.bus.registers import ServoError
from so101_driver.gate.config import GateConfig, GRIPPER_INDEX
from so101_driver.gate.types import ArmReading


class GripperGuard:
    """Sees contact (load without motion) and keeps the gripper's goal within a squeeze of the gripper.

    Contact ends when the target turns back to the other side of the jaw, or when the jaw moves on because the
    object is gone.
    """

    def __init__(self, config: GateConfig) -> None:
        self._config = config
        self._direction = 0.0
        self._pressed_s = 0.0
        self._squeeze = config.gripper_squeeze_rad

    @property
    def contact(self) -> bool:
        """Whether the gripper holds, or pushes against, something."""
        return self._direction != 0.0

    def reset(self) -> None:
        """Forget the contact."""
        self._direction = self._pressed_s = 0.0

    def update(self, reading: ArmReading, goal: float, dt: float) -> None:
        """Look for contact.

        Args:
            reading: the joints now.
            goal: the gripper's present goal [rad].
            dt: time since the last call [s].
        """
        if not reading.fresh[GRIPPER_INDEX]:
            return
        config = self._config
        push = goal - float(reading.position_rad[GRIPPER_INDEX])
        velocity = float(reading.velocity_rad_s[GRIPPER_INDEX])
        loaded = abs(float(reading.load[GRIPPER_INDEX])) >= config.gripper_contact_load
        overloaded = bool(int(reading.error[GRIPPER_INDEX]) & ServoError.OVERLOAD)
        direction = 1.0 if push > 0.0 else -1.0
        pressing = loaded and abs(velocity) <= config.gripper_contact_speed_rad_s and push != 0.0
        self._pressed_s = self._pressed_s + dt if pressing else 0.0
        touched = self._direction == 0.0 and pressing and self._pressed_s >= config.gripper_contact_s
        if touched or (overloaded and push != 0.0):
            self._direction = direction
        elif self._direction * velocity > 2.0 * config.gripper_contact_speed_rad_s:
            self.reset()
        self._squeeze = 0.0 if overloaded else config.gripper_squeeze_rad

    def limit(self, target: float, position: float) -> float:
        """Return the target [rad], kept within a squeeze of the position [rad] while in contact."""
        if self._direction == 0.0:
            return target
        if self._direction * (target - position) <= 0.0:
            self.reset()
            return target
        if self._direction > 0.0:
            return min(target, position + self._squeeze)
        return max(target, position - self._squeeze)
