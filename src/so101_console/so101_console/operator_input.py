# SPDX-License-Identifier: Apache-2.0
"""Which page drives the arm, and what it wants, until it falls silent. No ROS, no sockets.

One page at a time has the wheel. It repeats what it wants many times a second; when it is silent, closed or slow, its
wish is gone, and the arm holds.
"""

from dataclasses import dataclass
import math
from typing import Any

import numpy as np

from so101_contract.action import ActionSpec, EeDeltaValue

AXES = 3
GRIPPER_PER_S = 1.2
"""How fast the opening changes while a button is held [1/s]; 1 is the whole way."""


class DriveError(ValueError):
    """A message that means nothing: nothing moves."""


@dataclass(frozen=True)
class Wish:
    """What a human wants the hand to do now.

    Attributes:
        axes: Speed along x, y, z of the base, as a share of the fastest, -1..1.
        gripper: -1 closes, 1 opens, 0 leaves it.
    """

    axes: tuple[float, float, float]
    gripper: float

    @property
    def moves(self) -> bool:
        """Whether anything shall move."""
        return any(self.axes) or bool(self.gripper)


def read_wish(message: Any) -> Wish:
    """Read the wish out of a page's message.

    Raises:
        DriveError: it is not one.
    """
    axes, gripper = message.get('axes'), message.get('gripper', 0)
    if not isinstance(axes, list) or len(axes) != AXES or not all(map(_is_share, [*axes, gripper])):
        raise DriveError(
            f'expected three axes and a gripper between -1 and 1, got {axes!r:.60} and {gripper!r:.20}; nothing moves'
        )
    return Wish((float(axes[0]), float(axes[1]), float(axes[2])), float(gripper))


class Wheel:
    """Who drives. Times are of any one clock [s]."""

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._driver: str | None = None
        self._wish: Wish | None = None
        self._heard_s = -math.inf

    @property
    def driver(self) -> str | None:
        """The page that has the wheel."""
        return self._driver

    def take(self, page: str) -> str | None:
        """Give the wheel to a page; return the page that had it before and lost it, if another had."""
        before = self._driver if self._driver != page else None
        self._driver, self._wish = page, None
        return before

    def drop(self) -> bool:
        """Take the wheel from whoever has it; return whether somebody had."""
        had, self._driver, self._wish = self._driver is not None, None, None
        return had

    def give_back(self, page: str) -> bool:
        """Take the wheel from a page; return whether it had it."""
        if self._driver != page:
            return False
        self._driver = self._wish = None
        return True

    def hear(self, page: str, wish: Wish, now: float) -> bool:
        """Note what a page wants; return False, and forget it, where another page drives or nobody does."""
        if self._driver != page:
            return False
        self._wish, self._heard_s = wish, now
        return True

    def wish(self, now: float) -> Wish | None:
        """Return what the driver wants; None where it has been silent for too long."""
        return self._wish if now - self._heard_s <= self._silence_s else None


class JogCommands:
    """Turns wishes into actions; the opening goes on from what the gripper was told last, so that it never jumps."""

    def __init__(self, spec: ActionSpec, speed: float, rate_hz: float) -> None:
        self._spec = spec
        self._step = np.array(spec.translation_scale_m) * speed
        self._grip_step = GRIPPER_PER_S / rate_hz
        self._opening = 1.0
        self._mine = False

    @property
    def acting(self) -> bool:
        """Whether the last action was a motion that it may have to end."""
        return self._mine

    def hold(self) -> EeDeltaValue:
        """Return the action of nothing: said once, in the name of nobody, when the human is gone."""
        self._mine = False
        return self._spec.limit(EeDeltaValue(np.zeros(AXES), self._opening))

    def commanded(self, opening: float) -> None:
        """Note what the gripper was told by whoever drives."""
        if not self._mine and math.isfinite(opening):
            self._opening = opening

    def let_go(self) -> None:
        """Follow again what others tell the gripper."""
        self._mine = False

    def move(self, wish: Wish) -> EeDeltaValue:
        """Return the action of the next step."""
        self._mine = True
        self._opening = min(1.0, max(0.0, self._opening + wish.gripper * self._grip_step))
        return self._spec.limit(EeDeltaValue(np.array(wish.axes) * self._step, self._opening))


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1.0 <= value <= 1.0
