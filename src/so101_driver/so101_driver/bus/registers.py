# SPDX-License-Identifier: Apache-2.0
"""The control table of the Feetech STS3215 servo: where each register lies, its size and its sign.

Names are those of LeRobot in capitals. Addresses and defaults are those of the vendor's ST3215 memory table.
Signed registers hold a sign bit and a magnitude, never two's complement: bit 15 set in a position of 100
means -100, not 32868.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntFlag
from typing import Final

MODEL_STS3215: Final = 777
TICKS_PER_TURN: Final = 4096  # one turn of the magnetic encoder
MAX_ID: Final = 253
BROADCAST_ID: Final = 0xFE
CURRENT_UNIT_A: Final = 0.0065  # one count of Present_Current and Protection_Current [A]
VOLTAGE_UNIT_V: Final = 0.1
LOAD_FULL_SCALE: Final = 1000  # counts of load, torque limit and PWM duty that mean 100 %
ACCELERATION_UNIT: Final = 100  # one count of Acceleration [ticks/s^2]
MULTI_TURN_PHASE_BIT: Final = 0x10
RECENTRE: Final = 128  # value of Torque_Enable that makes the present position 2048

# Value of Baud_Rate -> bit/s. Several tables in circulation are wrong from value 5 on.
BAUD_RATES: Final[Mapping[int, int]] = {
    0: 1_000_000,
    1: 500_000,
    2: 250_000,
    3: 128_000,
    4: 115_200,
    5: 76_800,
    6: 57_600,
    7: 38_400,
}


class Area(Enum):
    """Where a register lives, which decides what survives a power-off."""

    EEPROM = 'EEPROM'
    SRAM = 'SRAM'
    FACTORY = 'FACTORY'


class ServoError(IntFlag):
    """Faults of a servo: the error byte of every answer, register 65, and the masks in 19 and 20."""

    VOLTAGE = 0x01
    ENCODER = 0x02
    TEMPERATURE = 0x04
    CURRENT = 0x08
    OVERLOAD = 0x20

    @property
    def sentence(self) -> str:
        """Names of all faults that are set, e.g. ``'voltage, overload'``; ``'none'`` without a fault."""
        known = [flag.name.lower() for flag in ServoError if flag in self and flag.name]
        rest = int(self) & ~int(_ALL_FAULTS)
        if rest:
            known.append(f'reserved bits 0x{rest:02x}')
        return ', '.join(known) or 'none'


_ALL_FAULTS = ServoError(0x2F)

NO_FAULT: Final = ServoError(0)

_E, _S, _F = Area.EEPROM, Area.SRAM, Area.FACTORY


class Reg(Enum):
    """A register: ``Reg.PRESENT_POSITION.address`` is 56.

    Attributes:
        address: first byte in the control table.
        size: 1 or 2 bytes, low byte first.
        area: EEPROM, SRAM or FACTORY.
        writable: whether the servo takes writes.
        default: value of a new servo, decoded.
        minimum: least value that `encode` takes.
        maximum: greatest value that `encode` takes.
        sign_bit: number of the sign bit, or None for an unsigned register.
    """

    #                        address size area writable default minimum maximum sign_bit
    FIRMWARE_MAJOR_VERSION = (0, 1, _E, False, 3, 0, 255, None)
    FIRMWARE_MINOR_VERSION = (1, 1, _E, False, 10, 0, 255, None)
    ENDIANNESS = (2, 1, _E, False, 0, 0, 1, None)
    MODEL_NUMBER = (3, 2, _E, False, MODEL_STS3215, 0, 0xFFFF, None)
    ID = (5, 1, _E, True, 1, 0, MAX_ID, None)
    BAUD_RATE = (6, 1, _E, True, 0, 0, 7, None)  # key of BAUD_RATES
    RETURN_DELAY_TIME = (7, 1, _E, True, 0, 0, 254, None)  # [2 us]
    RESPONSE_STATUS_LEVEL = (8, 1, _E, True, 1, 0, 1, None)  # 0: only ping and read are answered
    MIN_POSITION_LIMIT = (9, 2, _E, True, 0, 0, 4095, None)  # [ticks]
    MAX_POSITION_LIMIT = (11, 2, _E, True, 4095, 0, 4095, None)  # [ticks]
    MAX_TEMPERATURE_LIMIT = (13, 1, _E, True, 70, 0, 100, None)  # [degC]
    MAX_VOLTAGE_LIMIT = (14, 1, _E, True, 80, 0, 255, None)  # [0.1 V]; 80 is the 7.4 V type
    MIN_VOLTAGE_LIMIT = (15, 1, _E, True, 40, 0, 255, None)  # [0.1 V]
    MAX_TORQUE_LIMIT = (16, 2, _E, True, 1000, 0, 1000, None)  # [0.1 %] TORQUE_LIMIT after power-on
    PHASE = (18, 1, _E, True, 12, 0, 255, None)  # bit 2: unit of speed, bit 4: multi-turn feedback
    UNLOADING_CONDITION = (19, 1, _E, True, 0x2C, 0, 255, None)  # faults that cut the torque
    LED_ALARM_CONDITION = (20, 1, _E, True, 0x2F, 0, 255, None)
    P_COEFFICIENT = (21, 1, _E, True, 32, 0, 254, None)
    D_COEFFICIENT = (22, 1, _E, True, 32, 0, 254, None)  # the table's order is P, D, I
    I_COEFFICIENT = (23, 1, _E, True, 0, 0, 254, None)
    MINIMUM_STARTUP_FORCE = (24, 2, _E, True, 16, 0, 1000, None)  # [0.1 %]
    CW_DEAD_ZONE = (26, 1, _E, True, 1, 0, 32, None)  # [ticks]
    CCW_DEAD_ZONE = (27, 1, _E, True, 1, 0, 32, None)  # [ticks]
    PROTECTION_CURRENT = (28, 2, _E, True, 500, 0, 511, None)  # [6.5 mA]
    ANGULAR_RESOLUTION = (30, 1, _E, True, 1, 1, 100, None)
    HOMING_OFFSET = (31, 2, _E, True, 0, -2047, 2047, 11)  # [ticks]; present = (actual - offset) mod 4096
    OPERATING_MODE = (33, 1, _E, True, 0, 0, 3, None)  # position, velocity, PWM, step
    PROTECTIVE_TORQUE = (34, 1, _E, True, 20, 0, 100, None)  # [%] output left after an overload
    PROTECTION_TIME = (35, 1, _E, True, 200, 0, 254, None)  # [10 ms] above OVERLOAD_TORQUE
    OVERLOAD_TORQUE = (36, 1, _E, True, 80, 0, 100, None)  # [%]
    VELOCITY_P_COEFFICIENT = (37, 1, _E, True, 10, 0, 254, None)
    OVER_CURRENT_PROTECTION_TIME = (38, 1, _E, True, 200, 0, 254, None)  # [10 ms]
    VELOCITY_I_COEFFICIENT = (39, 1, _E, True, 10, 0, 254, None)
    TORQUE_ENABLE = (40, 1, _S, True, 0, 0, 128, None)  # off, on, 2: damping (newer), 128: RECENTRE
    ACCELERATION = (41, 1, _S, True, 0, 0, 254, None)  # [100 ticks/s^2]; 0 is the maximum
    GOAL_POSITION = (42, 2, _S, True, 0, -32767, 32767, 15)  # [ticks]; a write switches the torque on
    GOAL_TIME = (44, 2, _S, True, 0, -1023, 1023, 10)  # PWM duty in mode 2
    GOAL_VELOCITY = (46, 2, _S, True, 0, -32767, 32767, 15)  # [ticks/s] with phase bit 2, else [50 ticks/s]
    TORQUE_LIMIT = (48, 2, _S, True, 1000, 0, 1000, None)  # [0.1 %]
    LOCK = (55, 1, _S, True, 1, 0, 1, None)  # 1: EEPROM writes act at once but vanish at power-off
    PRESENT_POSITION = (56, 2, _S, False, 0, -32767, 32767, 15)  # [ticks]
    PRESENT_VELOCITY = (58, 2, _S, False, 0, -32767, 32767, 15)  # [ticks/s]
    PRESENT_LOAD = (60, 2, _S, False, 0, -1023, 1023, 10)  # [0.1 %] of PWM duty, not torque
    PRESENT_VOLTAGE = (62, 1, _S, False, 0, 0, 255, None)  # [0.1 V]
    PRESENT_TEMPERATURE = (63, 1, _S, False, 0, 0, 255, None)  # [degC]
    REG_WRITE_FLAG = (64, 1, _S, False, 0, 0, 1, None)  # a REG WRITE waits for its ACTION
    STATUS = (65, 1, _S, False, 0, 0, 255, None)  # ServoError
    MOVING = (66, 1, _S, False, 0, 0, 1, None)  # may still read 0 just after a goal write
    TARGET_POSITION = (67, 2, _S, False, 0, -32767, 32767, 15)  # [ticks]
    PRESENT_CURRENT = (69, 2, _S, False, 0, -32767, 32767, 15)  # [6.5 mA]
    GOAL_POSITION_2 = (71, 2, _S, False, 0, -32767, 32767, 15)  # [ticks] copy of the goal
    MOVING_VELOCITY_THRESHOLD = (80, 1, _F, False, 0, 0, 255, None)
    DTS = (81, 1, _F, False, 0, 0, 255, None)  # [ms]
    VELOCITY_UNIT_FACTOR = (82, 1, _F, False, 0, 0, 255, None)
    HTS = (83, 1, _F, False, 0, 0, 255, None)  # [ns]
    MAXIMUM_VELOCITY_LIMIT = (84, 1, _F, False, 0, 0, 255, None)
    MAXIMUM_ACCELERATION = (85, 1, _F, True, 0, 0, 254, None)  # listed as read-only, written by LeRobot
    ACCELERATION_MULTIPLIER = (86, 1, _F, False, 0, 0, 255, None)

    def __init__(  # noqa: PLR0917  (the columns of the table above)
        self,
        address: int,
        size: int,
        area: Area,
        writable: bool,
        default: int,
        minimum: int,
        maximum: int,
        sign_bit: int | None,
    ) -> None:
        self.address, self.size, self.area, self.writable = address, size, area, writable
        self.default, self.minimum, self.maximum, self.sign_bit = default, minimum, maximum, sign_bit

    @property
    def end(self) -> int:
        """Address of the byte after the register."""
        return self.address + self.size

    def encode(self, value: int) -> bytes:
        """Bytes of `value` on the wire.

        Args:
            value: decoded value in the register's unit, signed where the register is.

        Raises:
            ValueError: the value does not fit the register.
        """
        if not self.minimum <= value <= self.maximum:
            raise ValueError(
                f'{self.name} (register {self.address}) takes {self.minimum}..{self.maximum}, got {value}; '
                'nothing was sent.'
            )
        raw = int(value) if self.sign_bit is None else encode_sign_magnitude(int(value), self.sign_bit)
        return raw.to_bytes(self.size, 'little')

    def decode(self, data: bytes | bytearray | memoryview) -> int:
        """Value of the register's bytes, signed where the register is.

        Raises:
            ValueError: the number of bytes is not the register's size.
        """
        if len(data) != self.size:
            raise ValueError(
                f'{self.name} holds {self.size} bytes, got {len(data)}; read the whole register.'
            )
        raw = int.from_bytes(data, 'little')
        return raw if self.sign_bit is None else decode_sign_magnitude(raw, self.sign_bit)


TABLE_SIZE: Final = max(reg.end for reg in Reg)
REG_AT: Final[Mapping[int, Reg]] = {reg.address: reg for reg in Reg}


def encode_sign_magnitude(value: int, sign_bit: int) -> int:
    """Raw word that holds `value` as a sign bit and a magnitude.

    Raises:
        ValueError: the magnitude needs the sign bit's place or more.
    """
    largest = (1 << sign_bit) - 1
    if abs(value) > largest:
        raise ValueError(
            f'A magnitude with sign bit {sign_bit} is at most {largest}, got {value}; wrap or reject it.'
        )
    return -value | (1 << sign_bit) if value < 0 else value


def decode_sign_magnitude(raw: int, sign_bit: int) -> int:
    """Signed value of a raw word; bits above the sign bit are ignored."""
    magnitude = raw & ((1 << sign_bit) - 1)
    return -magnitude if raw & (1 << sign_bit) else magnitude


def wrap_ticks(ticks: int) -> int:
    """The position 0..4095 on the same angle as `ticks`, e.g. -1 -> 4095 and 4100 -> 4."""
    return ticks % TICKS_PER_TURN
