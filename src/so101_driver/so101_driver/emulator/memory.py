# SPDX-License-Identifier: Apache-2.0
"""Memory of a virtual servo: the control table, what of it survives a power-off, and writes over the bus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from so101_driver.bus.registers import Area, BAUD_RATES, Reg, TABLE_SIZE

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
