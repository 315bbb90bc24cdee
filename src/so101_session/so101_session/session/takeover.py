# SPDX-License-Identifier: Apache-2.0
"""Who drives, and how control changes hands without a bump.

| now | what happens | then |
|---|---|---|
| policy | `session/intervene` true, or the human acts (auto_takeover) | human, from the next open step on |
| human | `session/intervene` false | policy, but not before `dwell_steps` |
| human | gone, or silent for `teleop_timeout_s` | nobody: the arm holds until the human acts or gives back |
| nobody | the human acts | human |
| nobody | took over without asking, silent for `give_back_s` (if not 0) | policy |

A key that is held over the end of an episode takes nothing over in the next one, where a policy is there: who let go of
it then would leave the arm to nobody. The human counts again after a moment of silence, or by the service.

A human that gives back is not taken for one that acts for another `dwell_steps`: messages that were on their
way must not take over again. Taking over by the service always works at once.
"""

from dataclasses import dataclass
import math

from so101_contract.session import Driver


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
        self._human = False
        self._wanted = False
        self._asked = False
        self._steps = rules.dwell_steps
        self._heard_s = self._acted_s = -math.inf
        self._gone = self._held_over = False

    @property
    def intervening(self) -> bool:
        """Whether the human has control, acting or not."""
        return self._human

    @property
    def claimed(self) -> bool:
        """Whether the human has control, or gets it with the next step."""
        return self._human or self._wanted

    def driver(self, now_s: float) -> Driver:
        """Who drives at this moment."""
        if not self._human:
            return Driver.POLICY
        return Driver.NOBODY if self.silent(now_s) else Driver.HUMAN

    def silent(self, now_s: float) -> bool:
        """Whether the human has control and has not been heard of."""
        return self._human and (self._gone or now_s - self._heard_s > self._rules.timeout_s)

    def leave(self) -> bool:
        """Take note that the human is gone; return whether one was there that had control."""
        was_there, self._gone = self._human and not self._gone, True
        return was_there

    def request(self, wanted: bool, now_s: float) -> None:
        """Take what a human asked for by `session/intervene`."""
        self._wanted, self._asked, self._gone = wanted, wanted, False
        if wanted:
            self._heard_s = now_s
        else:
            self._heard_s = -math.inf

    def heard(self, now_s: float) -> None:
        """Take note that the human acts."""
        self._gone = False
        self._held_over &= now_s - self._acted_s <= self._rules.timeout_s
        self._acted_s = now_s
        if self._human or self._wanted:
            if self._wanted:
                self._heard_s = now_s
        elif self._rules.auto_takeover and not self._held_over and self._steps >= self._rules.dwell_steps:
            self._heard_s = now_s
            self._wanted, self._asked = True, False

    def begin_episode(self, policy: bool) -> None:
        """Begin an episode; where a policy is there, what the human still does from before takes nothing over."""
        self._held_over = policy
        if policy and not self._human and not self._asked:
            self._wanted = False

    def next_step(self, now_s: float) -> None:
        """Begin another step; a human that is away for long enough gives back."""
        self._steps += 1
        away = now_s - self._heard_s
        if self._human and not self._asked and 0.0 < self._rules.give_back_s < away:
            self._wanted = False

    def apply_handover(self) -> bool | None:
        """Let control change hands, between two actions.

        Returns:
            True where the human has it from now on, False where the policy has it again, else None.
        """
        if self._wanted == self._human:
            return None
        if self._human and self._steps < self._rules.dwell_steps:
            return None
        self._human = self._wanted
        self._steps = 0
        return self._human

    def end_episode(self, now_s: float) -> bool:
        """End an intervention with its episode; one whose human is silent stays. Return whether one ended."""
        if not self._human or (self._wanted and self.silent(now_s)):
            return False
        self.let_go()
        return True

    def let_go(self) -> None:
        """Give control to the policy, between episodes."""
        self._human = self._wanted = self._asked = self._gone = False
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
