# SPDX-License-Identifier: Apache-2.0
"""Recovery after a fault of the simulated arm: look, clear the fault, and switch the motors on again.

A latched fault waits for a human, as it must on metal. In a simulation it mostly means that the machine had no time
for the virtual bus for a moment, and nobody stands beside it. An e-stop was wished for: it is left alone.
"""

from collections import deque
from enum import Enum

LOOK_S = 1.0
"""How long the human looks before doing something, and between two things [s]."""
TRIES = 3
"""Motors that do not switch on so often want their power taken away and given back, as an overloaded servo does."""
WITHOUT_POWER_S = 0.3
"""How long. Nobody pulls a plug and puts it back faster than the driver notices [s]."""
MOST = 20
WINDOW_S = 600.0
"""More faults than `MOST` in this time are no accident: the arm is left alone [s]."""


class RecoveryAction(Enum):
    """What to do."""

    CLEAR_FAULT = 'clears the fault'
    ENABLE = 'switches the motors on again'
    POWER_CYCLE = 'takes the power away and gives it back'


class Recovery:
    """Decides from the state of the arm. Times are of any one clock [s]."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._cleared: deque[float] = deque(maxlen=MOST)
        self._must_enable = False
        self._tries = 0

    def update(self, *, fault: bool, disabled: bool, now_s: float) -> RecoveryAction | None:
        """Return what to do now, if anything.

        Args:
            fault: the arm is in a latched fault.
            disabled: its motors are off.
            now_s: time [s].
        """
        if not fault and not (disabled and self._must_enable):
            self._since_s = None
            self._must_enable = False
            self._tries = 0
            return None
        if self._since_s is None:
            self._since_s = now_s
        if now_s - self._since_s < LOOK_S:
            return None
        self._since_s = now_s
        if not fault:
            self._tries += 1
            return RecoveryAction.POWER_CYCLE if self._tries % (TRIES + 1) == 0 else RecoveryAction.ENABLE
        if len(self._cleared) == MOST and now_s - self._cleared[0] < WINDOW_S:
            return None
        self._cleared.append(now_s)
        self._must_enable = True
        return RecoveryAction.CLEAR_FAULT
