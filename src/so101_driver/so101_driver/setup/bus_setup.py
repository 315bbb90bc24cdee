# SPDX-License-Identifier: Apache-2.0
"""Setting up servos one by one: finding a new one at any baud rate, giving it an id and a rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import time

from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import BusError, ServoTimeout
from so101_driver.bus.registers import BAUD_RATES, MAX_ID, Reg

_EEPROM_WRITE_S = 0.006  # programming one cell takes 3 to 5 ms
_ATTEMPTS = 3


def find_servos(
    bus: ServoBus, baud_rates: Iterable[int] = tuple(BAUD_RATES.values()), *, wait_s: float = 0.1
) -> dict[int, tuple[int, ...]]:
    """Baud rate [bit/s] -> ids of the servos that answer at it; rates without an answer are left out.

    Leaves the bus at the rate that it had. Meant for one servo on the wire.

    Args:
        bus: the open bus.
        baud_rates: the rates to try [bit/s].
        wait_s: for an answer at each rate [s].
    """
    before = bus.baud_rate
    found = {}
    try:
        for rate in baud_rates:
            bus.change_baud_rate(rate)
            if ids := bus.broadcast_ping(wait_s=wait_s):
                found[rate] = ids
    finally:
        bus.change_baud_rate(before)
    return found


def change_id(bus: ServoBus, old: int, new: int) -> None:
    """Give a servo another id, for good.

    Args:
        bus: the open bus.
        old: its id now.
        new: its id from now on, 0..253.

    Raises:
        ValueError: `new` is no id.
        BusError: another servo has the new id already, or the servo does not take it.
    """
    if not 0 <= new <= MAX_ID:
        raise ValueError(f'A servo id is 0..{MAX_ID}, got {new}; nothing was sent.')
    if old == new:
        return
    if new in bus.broadcast_ping() or new in bus.scan([new]):
        raise BusError(f'The id {new} is taken; connect only the servo that is to get it.')
    bus.ping(old)
    bus.write(old, Reg.LOCK, 0)
    _write_unseen(bus, Reg.ID, old, new, lambda: bus.read(new, Reg.ID))
    bus.write(new, Reg.LOCK, 1)


def change_baud_rate(bus: ServoBus, servo_id: int, baud_rate: int) -> None:
    """Give a servo another baud rate, for good, and follow it with the port.

    Args:
        bus: the open bus, with this servo only.
        servo_id: the servo.
        baud_rate: [bit/s], one of `BAUD_RATES`.

    Raises:
        ValueError: a servo does not know this rate.
        BusError: the servo does not answer at the new rate.
    """
    codes = {rate: code for code, rate in BAUD_RATES.items()}
    if baud_rate not in codes:
        raise ValueError(f'A servo knows the baud rates {", ".join(map(str, codes))}, got {baud_rate}.')
    bus.ping(servo_id)
    bus.write(servo_id, Reg.LOCK, 0)
    before = bus.baud_rate

    def follow() -> None:
        bus.change_baud_rate(baud_rate)
        try:
            bus.ping(servo_id)
        except ServoTimeout:
            bus.change_baud_rate(before)
            raise

    _write_unseen(bus, Reg.BAUD_RATE, servo_id, codes[baud_rate], follow)
    bus.write(servo_id, Reg.LOCK, 1)


def _write_unseen(
    bus: ServoBus, register: Reg, servo_id: int, value: int, check: Callable[[], object]
) -> None:
    """Write a register after which the servo is reached in another way, so that only `check` can tell.

    A sync write is used: its acknowledgement, which would come in the old way, does not exist.
    """
    for attempt in range(_ATTEMPTS):
        bus.write_all(register, {servo_id: value})
        time.sleep(_EEPROM_WRITE_S)
        try:
            check()
            return
        except ServoTimeout as error:
            if attempt == _ATTEMPTS - 1:
                raise BusError(
                    f'Servo {servo_id} does not take {value} as its {register.name}; switch it off and on '
                    'and try again.'
                ) from error
