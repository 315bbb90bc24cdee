# SPDX-License-Identifier: Apache-2.0
"""Who drives, and how control changes hands without a bump.

| now | what happens | then |
|---|---|---|
| policy | `session/intervene` true, or the person acts (auto_takeover) | person, from the next open step on |
| person | `session/intervene` false | policy, but not before `dwell_steps` |
| person | gone, or silent for `teleop_timeout_s` | nobody: the arm holds until the person acts or gives back |
| nobody | the person acts | person |
| nobody | took over without asking, silent for `give_back_s` (if not 0) | policy |

A person that gives back is not taken for one that acts for another `dwell_steps`: messages that were on their
way must not take over again. Taking over by the service always works at once.
"""

from dataclasses import dataclass
from enum import StrEnum
import math


class Driver(StrEnum):
    """Who drives."""

    NOBODY = 'nobody'
    POLICY = 'policy'
    PERSON = 'person'


@dataclass(frozen=True, kw_only=True)
class TakeoverRules:
    """Limits of a take-over; see `SessionConfig`."""

    auto_takeover: bool = True
    give_back_s: float = 0.0
    timeout_s: float = 0.3
    dwell_steps: int = 3


class Takeover:
    """Follows who drives; one instance serves one arm. Times are of any one clock [s]."""

    def __init__(self, rules: TakeoverRules) -> None:
        self._rules = rules
        self._person = False
        self._wanted = False
        self._asked = False
        self._steps = rules.dwell_steps
        self._heard_s = -math.inf
        self._gone = False

    @property
    def intervening(self) -> bool:
        """Whether the person has control, acting or not."""
        return self._person

    @property
    def claimed(self) -> bool:
        """Whether the person has control, or gets it with the next step."""
        return self._person or self._wanted

    def driver(self, now_s: float) -> Driver:
        """Who drives at this moment."""
        if not self._person:
            return Driver.POLICY
        return Driver.NOBODY if self.silent(now_s) else Driver.PERSON

    def silent(self, now_s: float) -> bool:
        """Whether the person has control and has not been heard of."""
        return self._person and (self._gone or now_s - self._heard_s > self._rules.timeout_s)

    def leave(self) -> bool:
        """Take note that the person is gone; return whether one was there that had control."""
        was_there, self._gone = self._person and not self._gone, True
        return was_there

    def request(self, wanted: bool, now_s: float) -> None:
        """Take what a person asked for by `session/intervene`."""
        self._wanted, self._asked, self._gone = wanted, wanted, False
        if wanted:
            self._heard_s = now_s
        else:
            self._heard_s = -math.inf

    def heard(self, now_s: float) -> None:
        """Take note that the person acts."""
        self._gone = False
        if self._person or self._wanted:
            if self._wanted:
                self._heard_s = now_s
        elif self._rules.auto_takeover and self._steps >= self._rules.dwell_steps:
            self._heard_s = now_s
            self._wanted, self._asked = True, False

    def next_step(self, now_s: float) -> None:
        """Begin another step; a person that is away for long enough gives back."""
        self._steps += 1
        away = now_s - self._heard_s
        if self._person and not self._asked and 0.0 < self._rules.give_back_s < away:
            self._wanted = False

    def settle(self) -> bool | None:
        """Let control change hands, between two actions.

        Returns:
            True where the person has it from now on, False where the policy has it again, else None.
        """
        if self._wanted == self._person:
            return None
        if self._person and self._steps < self._rules.dwell_steps:
            return None
        self._person = self._wanted
        self._steps = 0
        return self._person

    def end_episode(self, now_s: float) -> bool:
        """End an intervention with its episode; one whose person is silent stays. Return whether one ended."""
        if not self._person or (self._wanted and self.silent(now_s)):
            return False
        self.let_go()
        return True

    def let_go(self) -> None:
        """Give control to the policy, between episodes."""
        self._person = self._wanted = self._asked = self._gone = False
        self._heard_s = -math.inf
        self._steps = self._rules.dwell_steps


class GripperRamp:
    """Lets the opening go on from what was commanded last when control changes hands."""

    def __init__(self, largest_change: float, steps: int) -> None:
        """Prepare.

        Args:
            largest_change: of the opening in one step, while it is ramped.
            steps: for how many steps after a hand-over it is ramped.
        """
        self._largest, self._steps = largest_change, steps
        self._left = 0
        self.opening = 0.5
        """The opening commanded last, 0 closed .. 1 open."""

    def begin(self, opening: float) -> None:
        """Begin at an opening, with whoever comes first."""
        self.opening = min(max(opening, 0.0), 1.0)
        self._left = self._steps

    def hand_over(self) -> None:
        """Ramp from now on."""
        self._left = self._steps

    def next(self, wanted: float) -> float:
        """Return the opening to command in a step for the one that is wanted."""
        if self._left > 0:
            self._left -= 1
            change = min(max(wanted - self.opening, -self._largest), self._largest)
            wanted = self.opening + change
        self.opening = wanted
        return wanted
