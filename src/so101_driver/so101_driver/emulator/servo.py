# SPDX-License-Identifier: Apache-2.0
"""A virtual STS3215: its registers, its faults and what they do to the motor. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import math
from typing import Final

from so101_driver.bus.registers import (
    ACCELERATION_UNIT,
    Area,
    BAUD_RATES,
    CURRENT_UNIT_A,
    LOAD_FULL_SCALE,
    MULTI_TURN_PHASE_BIT,
    NO_FAULT,
    RECENTRE,
    Reg,
    ServoError,
    TABLE_SIZE,
    TICKS_PER_TURN,
    VOLTAGE_UNIT_V,
)

_OWNER: Final = {address: reg for reg in Reg for address in range(reg.address, reg.end)}

OnWrite = Callable[['ServoMemory', Reg, int], None]


class ServoMemory:
    """Control table of one servo.

    Args:
        servo_id: its id.
        on_write: called after each register that the bus wrote.
        lock_at_power_on: value of Lock after power-on.
    """

    def __init__(self, servo_id: int, on_write: OnWrite | None = None, lock_at_power_on: int = 1) -> None:
        self._table = bytearray(TABLE_SIZE)
        self._eeprom = bytearray(TABLE_SIZE)
        self._waiting: tuple[int, bytes] | None = None
        self._on_write = on_write
        self._lock_at_power_on = lock_at_power_on
        for reg in Reg:
            self.set(reg, reg.default)
        self.set(Reg.ID, servo_id)
        self.reload()

    @property
    def servo_id(self) -> int:
        """Id under which the servo answers."""
        return self._table[Reg.ID.address]

    @property
    def baud_rate(self) -> int:
        """Rate at which the servo listens [bit/s]; 0 for a code that means none."""
        return BAUD_RATES.get(self._table[Reg.BAUD_RATE.address], 0)

    @property
    def answers_writes(self) -> bool:
        """Whether the servo acknowledges anything but ping and read."""
        return self.get(Reg.RESPONSE_STATUS_LEVEL) != 0

    @property
    def return_delay_s(self) -> float:
        """Pause before each answer [s]."""
        return self.get(Reg.RETURN_DELAY_TIME) * 2e-6

    def get(self, reg: Reg) -> int:
        """Decoded value of a register."""
        return reg.decode(self._table[reg.address : reg.end])

    def get_stored(self, reg: Reg) -> int:
        """Value that an EEPROM register has after the next power-on."""
        return reg.decode(self._eeprom[reg.address : reg.end])

    def set(self, reg: Reg, value: int) -> None:
        """Set a register from outside the bus, in memory and EEPROM, read-only ones included."""
        self._table[reg.address : reg.end] = reg.encode(value)
        if reg.area is not Area.SRAM:
            self._eeprom[reg.address : reg.end] = reg.encode(value)

    def reload(self) -> None:
        """Start as from a cold state: EEPROM registers as stored, the others at their defaults."""
        self._table[:] = self._eeprom
        for reg in Reg:
            if reg.area is Area.SRAM:
                self._table[reg.address : reg.end] = reg.encode(reg.default)
        self._table[Reg.LOCK.address] = self._lock_at_power_on
        limit = Reg.MAX_TORQUE_LIMIT
        self._table[Reg.TORQUE_LIMIT.address : Reg.TORQUE_LIMIT.end] = self._table[limit.address : limit.end]
        self._waiting = None

    def read_block(self, address: int, size: int) -> bytes:
        """Bytes of the control table; beyond its end zeros."""
        self.publish()
        return bytes(self._table[address : address + size]).ljust(size, b'\0')

    def write_block(self, address: int, data: bytes) -> None:
        """Write over the bus: read-only bytes are ignored, EEPROM persists only when it is unlocked."""
        unlocked = self._table[Reg.LOCK.address] == 0
        torque_before = self._table[Reg.TORQUE_ENABLE.address]
        written = dict[Reg, None]()
        for place, byte in enumerate(data, address):
            reg = _OWNER.get(place)
            if reg is None or not reg.writable:
                continue
            self._table[place] = byte
            if unlocked and reg.area is Area.EEPROM:
                self._eeprom[place] = byte
            written[reg] = None
        for reg in written:
            value = self.get(reg)
            self.react(reg, value, torque_before)
            if self._on_write is not None:
                self._on_write(self, reg, value)

    def reg_write(self, address: int, data: bytes) -> None:
        """Keep a write until `action`."""
        self._waiting = (address, data)
        self._table[Reg.REG_WRITE_FLAG.address] = 1

    def action(self) -> None:
        """Carry out the write that waits."""
        if self._waiting is not None:
            address, data = self._waiting
            self._waiting = None
            self._table[Reg.REG_WRITE_FLAG.address] = 0
            self.write_block(address, data)

    def publish(self) -> None:
        """Bring the read-only registers up to date; called before every read."""

    def react(self, register: Reg, value: int, torque_before: int) -> None:
        """Do what a write of a register sets off.

        Args:
            register: the register.
            value: decoded value.
            torque_before: Torque_Enable before the write.
        """

    def _put(self, register: Reg, value: int) -> None:
        """Set a register in memory only."""
        self._table[register.address : register.end] = register.encode(value)


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
