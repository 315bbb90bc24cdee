# SPDX-License-Identifier: Apache-2.0
"""The torque switch of the arm, and when it is to be written."""

import math


class TorqueSwitch:
    """Whether torque is wanted. It starts off, and the first write says so."""

    def __init__(self, refresh_s: float) -> None:
        self.on = False
        self._refresh_s = refresh_s
        self._written: bool | None = None
        self._unwritten_s = math.inf

    def advance(self, dt: float) -> None:
        """Let time pass [s]."""
        self._unwritten_s += dt

    def to_write(self, *, always: bool, quiet: bool) -> bool:
        """Return whether the switch is to be written now, and take it as written.

        Args:
            always: repeat it in every tick.
            quiet: do not repeat a switch that is on: nothing is to be sent to servos that hold on their own.
        """
        repeat = always or self._unwritten_s >= self._refresh_s
        write = self.on != self._written or (repeat and not (quiet and self.on))
        if write:
            self._written, self._unwritten_s = self.on, 0.0
        return write
