# SPDX-License-Identifier: Apache-2.0
"""What makes the scripted human human: how it sees, reacts, aims, shakes, labels, and where its mind wanders.

Each trait is a parameter of operator_node and of `./so101 train --set`. The defaults, the human `perfect`, are the
operator that sees the truth and never errs on purpose. Times are simulated ones: everything is counted in steps of the
control clock, and all that is left to chance comes from one generator, so that a seed gives the same human again.

Reaction times of about 0.3 s to what is seen on a screen: Woods et al., "Factors influencing the latency of simple
reaction time", Frontiers in Human Neuroscience, 2015.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
import math
from types import MappingProxyType

import numpy as np

from so101_interfaces_py.params import check_bounds, live_param, param, ParameterError

LATE_SPREAD = 0.5
"""What comes too late, or lasts too long, does so by its mean time, give or take this share of it."""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What the scripted human is like."""

    noise: float = live_param(0.1, doc='Noise on each action, as a share of the largest one.', lo=0.0, hi=1.0)
    aim_error_m: float = live_param(0.001, doc='Aim error of each attempt.', unit='m', lo=0.0, hi=0.05)
    tremor_m: float = param(
        0.0, doc='Standard deviation of the shaking of the hand along each axis.', unit='m', lo=0.0, hi=0.02
    )
    speed: float = live_param(1.0, doc='Fastest action, as a share of the largest one.', lo=0.05, hi=1.0)
    hesitation: float = live_param(0.0, doc='Probability of not moving in a step.', lo=0.0, hi=0.95)
    attention: float = live_param(1.0, doc='Probability of watching an episode at all.', lo=0.0, hi=1.0)
    lapses_per_minute: float = param(
        0.0, doc='How often it looks away while it watches.', unit='1/min', lo=0.0, hi=60.0
    )
    lapse_s: float = param(2.0, doc='For how long, on average.', unit='s', lo=0.1, hi=60.0)
    reaction_s: float = param(
        0.0,
        doc='Mean time from seeing to acting; 0: one to four steps, evenly.',
        unit='s',
        lo=0.0,
        hi=5.0,
    )
    reaction_spread_s: float = param(
        0.0, doc='Standard deviation of the reaction time.', unit='s', lo=0.0, hi=2.0
    )
    late_share: float = param(0.0, doc='Share of the corrections that come too late.', lo=0.0, hi=1.0)
    late_s: float = param(1.0, doc='By how much, on average.', unit='s', lo=0.0, hi=30.0)
    overlong_share: float = param(0.0, doc='Share of the corrections that last too long.', lo=0.0, hi=1.0)
    overlong_s: float = param(1.5, doc='By how much, on average.', unit='s', lo=0.0, hi=30.0)
    wrong_label_share: float = param(
        0.0, doc='Share of the episodes to which it gives the wrong label.', lo=0.0, hi=1.0
    )
    missing_label_share: float = param(
        0.0, doc='Share of the episodes that it forgets to label.', lo=0.0, hi=1.0
    )
    sight_error_m: float = param(
        0.0,
        doc='Standard deviation, from episode to episode, of where it sees the object when it labels.',
        unit='m',
        lo=0.0,
        hi=0.05,
    )

    def __post_init__(self) -> None:
        """Check each value, and that no episode has both a wrong label and none."""
        check_bounds(self)
        if self.wrong_label_share + self.missing_label_share > 1.0:
            raise ParameterError(
                f'expected wrong_label_share and missing_label_share of up to 1 together, got {self.wrong_label_share} '
                f'and {self.missing_label_share}; lower one'
            )

    def plain(self) -> dict[str, float]:
        """Return the traits by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


HUMANS: Mapping[str, Traits] = MappingProxyType(
    {
        'perfect': Traits(),
        'careful': Traits(
            aim_error_m=0.002,
            tremor_m=0.001,
            speed=0.9,
            reaction_s=0.3,
            reaction_spread_s=0.1,
            late_share=0.1,
            late_s=0.8,
            overlong_share=0.2,
            overlong_s=1.0,
            wrong_label_share=0.05,
            missing_label_share=0.10,
            lapses_per_minute=1.0,
            lapse_s=1.5,
            sight_error_m=0.003,
        ),
        'clumsy': Traits(
            noise=0.2,
            aim_error_m=0.004,
            tremor_m=0.002,
            speed=0.75,
            hesitation=0.05,
            attention=0.95,
            reaction_s=0.45,
            reaction_spread_s=0.15,
            late_share=0.3,
            late_s=1.5,
            overlong_share=0.4,
            overlong_s=2.0,
            wrong_label_share=0.05,
            missing_label_share=0.10,
            lapses_per_minute=4.0,
            lapse_s=3.0,
            sight_error_m=0.006,
        ),
    }
)
"""Humans by name. `careful` is somebody who has read the guide; `clumsy` is in a hurry and on the phone."""


class Reflexes:
    """The timing of one human, drawn in steps of the control clock; `reset` at the start of each episode."""

    def __init__(self, traits: Traits, rate_hz: float) -> None:
        """Prepare for so many steps per second [Hz]."""
        self._traits, self._rate_hz = traits, rate_hz
        self.reset(np.random.default_rng(0))

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode, with eyes on the arm."""
        self._rng = rng
        self._away_steps = 0

    @property
    def looks_away(self) -> bool:
        """Whether its mind is elsewhere in this step."""
        return self._away_steps > 0

    def watch(self) -> bool:
        """Let a step of watching pass; return whether it is seen."""
        traits = self._traits
        if self._away_steps > 0:
            self._away_steps -= 1
        if self._away_steps == 0 and traits.lapses_per_minute > 0.0:
            often = traits.lapses_per_minute / (60.0 * self._rate_hz)
            if self._rng.random() < often:
                # A geometric length has no memory, as an exponential one: how long it looks away, nobody knows.
                self._away_steps = int(self._rng.geometric(min(1.0, 1.0 / (traits.lapse_s * self._rate_hz))))
        return not self.looks_away

    def reaction(self, usual: int = 0) -> int:
        """Return the steps from seeing that something is wrong to acting; `usual` for who has no time of its own."""
        late = self._mishap(self._traits.late_share, self._traits.late_s)
        return late + self.answer(usual)

    def answer(self, usual: int = 0) -> int:
        """Return the steps from seeing to pressing a key."""
        traits = self._traits
        if traits.reaction_s == 0.0:
            return usual
        return self._steps(self._rng.normal(traits.reaction_s, traits.reaction_spread_s))

    def overrun(self) -> int:
        """Return for how many steps too many a correction lasts."""
        return self._mishap(self._traits.overlong_share, self._traits.overlong_s)

    def _mishap(self, share: float, mean_s: float) -> int:
        if share == 0.0 or self._rng.random() >= share:
            return 0
        return self._steps(mean_s * self._rng.uniform(1.0 - LATE_SPREAD, 1.0 + LATE_SPREAD))

    def _steps(self, seconds: float) -> int:
        return max(0, math.floor(seconds * self._rate_hz + 0.5))
