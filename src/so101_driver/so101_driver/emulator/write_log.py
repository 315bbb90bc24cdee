# SPDX-License-Identifier: Apache-2.0
"""What was written to the virtual servos and when, so that a test can prove what was not written."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from so101_driver.bus.registers import Reg, REG_AT

_LENGTH = 200_000


@dataclass(frozen=True)
class WriteEvent:
    """One register of one servo was written over the bus.

    Attributes:
        time_s: on the monotonic clock, which all processes of a machine share [s].
        servo_id: the servo.
        register: the register.
        value: decoded value.
    """

    time_s: float
    servo_id: int
    register: Reg
    value: int

    @property
    def energises(self) -> bool:
        """Whether this write switches the torque on: a goal does so as well as a torque write."""
        if self.register is Reg.TORQUE_ENABLE:
            return self.value == 1
        return self.register is Reg.GOAL_POSITION


class WriteLog:
    """Bounded log of writes. Reading and adding from different threads is safe."""

    def __init__(self) -> None:
        # Plain numbers: the garbage collector does not look through tuples of them, and a collection that
        # looked through the whole log would stop the arm for longer than a control period.
        self._events: deque[tuple[float, int, int, int]] = deque(maxlen=_LENGTH)

    def add(self, event: WriteEvent) -> None:
        """Append."""
        self._events.append((event.time_s, event.servo_id, event.register.address, event.value))

    def clear(self) -> None:
        """Forget everything."""
        self._events.clear()

    def events(
        self, register: Reg | None = None, *, servo_id: int | None = None, after_s: float = 0.0
    ) -> list[WriteEvent]:
        """Events in the order of time.

        Args:
            register: only writes of this one.
            servo_id: only writes to this servo.
            after_s: only writes later than this time on the monotonic clock [s].
        """
        return [
            WriteEvent(time_s, to, REG_AT[address], value)
            for time_s, to, address, value in self._events.copy()
            if time_s > after_s
            and (register is None or address == register.address)
            and (servo_id is None or to == servo_id)
        ]

    def energising(self, after_s: float = 0.0) -> list[WriteEvent]:
        """Writes after a time that switch torque on; empty is what an e-stop must leave."""
        return [event for event in self.events(after_s=after_s) if event.energises]
