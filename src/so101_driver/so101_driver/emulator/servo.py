# SPDX-License-Identifier: Apache-2.0
"""A virtual STS3215: its registers, its faults and what they do to the motor. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Final

from so101_driver.bus.registers import (
    ACCELERATION_UNIT,
    CURRENT_UNIT_A,
    LOAD_FULL_SCALE,
    MULTI_TURN_PHASE_BIT,
    NO_FAULT,
    RECENTRE,
    Reg,
    ServoError,
    TICKS_PER_TURN,
    VOLTAGE_UNIT_V,
)
from so101_driver.emulator.memory import OnWrite, ServoMemory

_PHASE_FINE_SPEED: Final = 0x04
_PHASE_ZERO_SPEED_IS_MAX: Final = 0x08
_COARSE_SPEED: Final = 50  # one count of speed without the fine unit [ticks/s]
_STALL_CURRENT_A: Final = 2.4
_MOVING_TICKS_S: Final = 10.0
_FAR: Final = 1e6  # a goal that is never reached: the motor just turns [ticks]


@dataclass(frozen=True)
class Behaviour:
    """What the firmware does where reports differ.

    Attributes:
        goal_enables_torque: a write of Goal_Position switches the torque on.
        lock_at_power_on: value of Lock after power-on.
    """

    goal_enables_torque: bool = True
    lock_at_power_on: int = 1


class VirtualServo(ServoMemory):
    """One servo.

    Args:
        servo_id: its id.
        position: encoder angle at the start [ticks].
        behaviour: firmware variant.
        on_write: called after each register that the bus wrote.

    Attributes:
        encoder: angle before the homing offset, counted on beyond a turn [ticks].
        velocity: [ticks/s].
        load: duty of the motor, -1..1.
        temperature_c: [degC]; set it to heat the servo up.
        voltage_v: supply [V]; set it for a sag or a wrong supply.
        latched: faults, kept until the power is switched off.
        powered: whether the servo has power.
    """

    def __init__(
        self,
        servo_id: int,
        position: float = 2048.0,
        behaviour: Behaviour | None = None,
        on_write: OnWrite | None = None,
    ) -> None:
        self.encoder = float(position)
        self.velocity = 0.0
        self.load = 0.0
        self.temperature_c = 30.0
        self.voltage_v = 7.4
        self.latched = NO_FAULT
        self.powered = True
        self._turn_base = 0.0
        self._step_target = 0.0
        self._overload_s = 0.0
        self._over_current_s = 0.0
        self._behaviour = behaviour or Behaviour()
        super().__init__(servo_id, on_write, self._behaviour.lock_at_power_on)
        self.power_on()

    def power_off(self) -> None:
        """Cut the power: the motor is free and nothing is answered."""
        self.powered = False

    def power_on(self) -> None:
        """Start as from a cold state: memory from EEPROM, torque off, faults forgotten, turns not counted."""
        self.reload()
        self.latched = NO_FAULT
        self.powered = True
        self._overload_s = self._over_current_s = 0.0
        self._turn_base = math.floor(self.encoder / TICKS_PER_TURN) * TICKS_PER_TURN

    def react(self, register: Reg, value: int, torque_before: int) -> None:
        """Recentre on Torque_Enable = 128; switch the torque on with a goal."""
        if register is Reg.TORQUE_ENABLE and value == RECENTRE:
            shift = (self.encoder - TICKS_PER_TURN // 2) % TICKS_PER_TURN
            offset = shift if shift < TICKS_PER_TURN // 2 else shift - TICKS_PER_TURN
            self.set(Reg.HOMING_OFFSET, max(-2047, min(2047, round(offset))))
            self._put(Reg.TORQUE_ENABLE, torque_before)
        elif register is Reg.GOAL_POSITION:
            self._step_target = self.encoder + value
            if self._behaviour.goal_enables_torque:
                self._put(Reg.TORQUE_ENABLE, 1)

    # ---- motor -------------------------------------------------------------------------------------------

    @property
    def torque_on(self) -> bool:
        """Whether the motor is driven."""
        cut = self.latched & ServoError(self.get(Reg.UNLOADING_CONDITION)) & ~ServoError.OVERLOAD
        return self.powered and self.get(Reg.TORQUE_ENABLE) == 1 and not cut

    @property
    def present_position(self) -> int:
        """What Present_Position reads [ticks]."""
        position = round(self._shifted)
        return max(-32767, min(32767, position)) if self._multi_turn else position % TICKS_PER_TURN

    @property
    def target_position(self) -> int:
        """Goal that the servo pursues in position mode: the goal register, clamped to the limits [ticks]."""
        goal = self.get(Reg.GOAL_POSITION)
        low, high = self.get(Reg.MIN_POSITION_LIMIT), self.get(Reg.MAX_POSITION_LIMIT)
        return goal if low == high == 0 else max(low, min(high, goal))

    @property
    def goal(self) -> float:
        """Encoder angle that the motor is to reach [ticks]."""
        mode = self.get(Reg.OPERATING_MODE)
        if mode == 1:
            return self.encoder + math.copysign(_FAR, self.get(Reg.GOAL_VELOCITY)) * (self.speed_limit > 0.0)
        if mode == 2:
            return self.encoder + math.copysign(_FAR, self.get(Reg.GOAL_TIME))
        if mode == 3:
            return self._step_target
        return self.encoder + self.target_position - self._shifted

    @property
    def speed_limit(self) -> float:
        """Largest speed [ticks/s]; infinity for none."""
        counts, phase = abs(self.get(Reg.GOAL_VELOCITY)), self.get(Reg.PHASE)
        if self.get(Reg.OPERATING_MODE) in {2, 3}:
            return math.inf
        if counts == 0 and self.get(Reg.OPERATING_MODE) == 0:
            return math.inf if phase & _PHASE_ZERO_SPEED_IS_MAX else 0.0
        return float(counts if phase & _PHASE_FINE_SPEED else counts * _COARSE_SPEED)

    @property
    def acceleration_limit(self) -> float:
        """Largest acceleration [ticks/s^2]; infinity for none."""
        counts = self.get(Reg.ACCELERATION)
        return float(counts * ACCELERATION_UNIT) if counts else math.inf

    @property
    def duty_limit(self) -> float:
        """Largest duty of the motor, 0..1; little is left after an overload."""
        limit = self.get(Reg.TORQUE_LIMIT) / LOAD_FULL_SCALE
        if self.get(Reg.OPERATING_MODE) == 2:
            limit = min(limit, abs(self.get(Reg.GOAL_TIME)) / LOAD_FULL_SCALE)
        if self.latched & ServoError(self.get(Reg.UNLOADING_CONDITION)) & ServoError.OVERLOAD:
            limit = min(limit, self.get(Reg.PROTECTIVE_TORQUE) / 100.0)
        return limit

    def moved(self, encoder: float, velocity: float, load: float, dt: float) -> None:
        """Take over what the dynamics computed, and watch for faults.

        Args:
            encoder: new angle [ticks].
            velocity: [ticks/s].
            load: duty, -1..1.
            dt: time since the last call [s].
        """
        self.encoder, self.velocity, self.load = encoder, velocity, load
        if not self.powered:
            return
        overloaded = abs(load) * 100.0 > self.get(Reg.OVERLOAD_TORQUE)
        self._overload_s = self._overload_s + dt if overloaded else 0.0
        if overloaded and self._overload_s >= self.get(Reg.PROTECTION_TIME) * 0.01:
            self.latched |= ServoError.OVERLOAD
        too_much = abs(load) * _STALL_CURRENT_A > self.get(Reg.PROTECTION_CURRENT) * CURRENT_UNIT_A
        self._over_current_s = self._over_current_s + dt if too_much else 0.0
        if too_much and self._over_current_s >= self.get(Reg.OVER_CURRENT_PROTECTION_TIME) * 0.01:
            self.latched |= ServoError.CURRENT
        self.check_environment()

    def check_environment(self) -> None:
        """Latch faults of temperature and supply."""
        if self.temperature_c > self.get(Reg.MAX_TEMPERATURE_LIMIT):
            self.latched |= ServoError.TEMPERATURE
        counts = round(self.voltage_v / VOLTAGE_UNIT_V)
        if not self.get(Reg.MIN_VOLTAGE_LIMIT) <= counts <= self.get(Reg.MAX_VOLTAGE_LIMIT):
            self.latched |= ServoError.VOLTAGE

    @property
    def _multi_turn(self) -> bool:
        return bool(self.get(Reg.PHASE) & MULTI_TURN_PHASE_BIT)

    @property
    def _shifted(self) -> float:
        """Position with the homing offset, on one turn unless turns are counted [ticks]."""
        shifted = self.encoder - self.get(Reg.HOMING_OFFSET)
        return shifted - self._turn_base if self._multi_turn else shifted % TICKS_PER_TURN

    def publish(self) -> None:
        """Bring the read-only registers up to date."""
        now = {
            Reg.PRESENT_POSITION: self.present_position,
            Reg.PRESENT_VELOCITY: round(self.velocity),
            Reg.PRESENT_LOAD: round(self.load * LOAD_FULL_SCALE),
            Reg.PRESENT_VOLTAGE: max(0, min(255, round(self.voltage_v / VOLTAGE_UNIT_V))),
            Reg.PRESENT_TEMPERATURE: max(0, min(255, round(self.temperature_c))),
            Reg.STATUS: int(self.latched),
            Reg.MOVING: int(abs(self.velocity) > _MOVING_TICKS_S),
            Reg.TARGET_POSITION: self.target_position,
            Reg.PRESENT_CURRENT: round(abs(self.load) * _STALL_CURRENT_A / CURRENT_UNIT_A),
            Reg.GOAL_POSITION_2: self.target_position,
        }
        for reg, value in now.items():
            self._put(reg, value)
