# SPDX-License-Identifier: Apache-2.0
"""Which block of registers to ask for, so that a late answer can never pass as the answer to a later request.

Answers carry no number of their request. But an answer carries its size, and the state of a servo can be
asked for as part of blocks of different sizes. After a miss another size is asked for; where none is left,
the servo is not asked until its answer is overdue for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from so101_driver.bus.registers import Reg

STATE_START: Final = Reg.PRESENT_POSITION.address
STATE_END: Final = Reg.PRESENT_CURRENT.end


@dataclass(frozen=True)
class Window:
    """A block of registers.

    Attributes:
        start: address of the first register.
        size: number of bytes.
    """

    start: int
    size: int

    @property
    def state_offset(self) -> int:
        """Where the state begins in a block that includes it."""
        return STATE_START - self.start


def _windows() -> tuple[Window, ...]:
    """Blocks that include the whole state, begin and end at documented registers, and differ in size."""
    starts = (
        Reg.PRESENT_POSITION,
        Reg.LOCK,
        Reg.TORQUE_LIMIT,
        Reg.GOAL_VELOCITY,
        Reg.GOAL_TIME,
        Reg.GOAL_POSITION,
        Reg.ACCELERATION,
        Reg.TORQUE_ENABLE,
    )
    by_size: dict[int, Window] = {}
    for end in (STATE_END, Reg.GOAL_POSITION_2.end):
        for start in starts:
            window = Window(start.address, end - start.address)
            by_size.setdefault(window.size, window)
    return tuple(by_size[size] for size in sorted(by_size))


WINDOWS: Final = _windows()  # the smallest, and so fastest, first


class WindowChooser:
    """Remembers which answers are still due and chooses blocks accordingly.

    Args:
        windows: blocks that the servos let be read, preferred ones first.
        late_window_s: how late an answer can come [s].
    """

    def __init__(self, windows: Sequence[Window], late_window_s: float) -> None:
        self._windows = tuple(windows)
        self._late_window_s = late_window_s
        self._missed_s: dict[tuple[Window, int], float] = {}
        self._last_miss_s = -float('inf')

    def missed(self, window: Window, servo_id: int, now: float) -> None:
        """An answer to a request for this block did not come."""
        self._missed_s[window, servo_id] = now
        self._last_miss_s = now

    def is_due(self, window: Window, servo_id: int, now: float) -> bool:
        """Whether an answer of this size to an earlier request can still come."""
        return now - self._missed_s.get((window, servo_id), -float('inf')) < self._late_window_s

    def choose(self, ids: Iterable[int], now: float) -> Window:
        """The first block for which the fewest of these servos still owe an answer."""
        if now - self._last_miss_s >= self._late_window_s:
            return self._windows[0]
        wanted = tuple(ids)
        return min(
            self._windows,
            key=lambda window: sum(self.is_due(window, servo_id, now) for servo_id in wanted),
        )
