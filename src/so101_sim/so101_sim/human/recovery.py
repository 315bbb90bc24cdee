# SPDX-License-Identifier: Apache-2.0
"""What the scripted operator does after a fault of the simulated arm: look, clear it, switch motors on, press Start."""

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
    START = 'presses Start'


class Recovery:
    """Decides from the state of the arm. Times are of any one clock [s]."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._cleared: deque[float] = deque(maxlen=MOST)
        self._must_enable = self._cut_short = self._by_hand = False
        self._tries = 0

    def begun(self) -> None:
        """An episode begins: somebody has pressed Start, and whatever was stopped before is over."""
        self._cut_short = self._by_hand = False

    def cut_short(self) -> None:
        """An episode, or the way back to its start, was cut short."""
        self._cut_short = True

    def update(
        self, *, fault: bool, disabled: bool, now_s: float, stopped: bool = False, waits: bool = False
    ) -> RecoveryAction | None:
        """Return what to do now, if anything.

        Args:
            fault: the arm is in a latched fault.
            disabled: its motors are off.
            now_s: time [s].
            stopped: its e-stop is pressed.
            waits: the session waits, and nobody has paused it.
        """
        # Motors that are not to be switched on from here are off because a human wants them off, who will press Start.
        self._by_hand |= stopped or (disabled and not self._must_enable)
        mended = not fault and not (disabled and self._must_enable)
        if mended:
            self._must_enable = False
            self._tries = 0
        if mended and (self._by_hand or not (self._cut_short and waits)):
            self._since_s = None
            return None
        if self._since_s is None:
            self._since_s = now_s
        if now_s - self._since_s < LOOK_S:
            return None
        self._since_s = now_s
        if mended:
            return RecoveryAction.START
        if not fault:
            self._tries += 1
            return RecoveryAction.POWER_CYCLE if self._tries % (TRIES + 1) == 0 else RecoveryAction.ENABLE
        if len(self._cleared) == MOST and now_s - self._cleared[0] < WINDOW_S:
            return None
        self._cleared.append(now_s)
        self._must_enable = True
        return RecoveryAction.CLEAR_FAULT
