# SPDX-License-Identifier: Apache-2.0
"""Parameters of operator_node."""

from dataclasses import dataclass

from so101_interfaces_py import topics
from so101_interfaces_py.params import check_bounds, param
from so101_sim.expert import Skill
from so101_sim.operator import Habits


@dataclass(frozen=True, kw_only=True)
class OperatorConfig:
    """What the simulated person does."""

    mode: str = param(
        'intervene',
        doc='intervene: watch, take over when it goes wrong, hand back. demonstrate: one demonstration after another.',
        choices=('intervene', 'demonstrate'),
    )
    topic: str = param(
        topics.TELEOP_EE_DELTA,
        doc='Where its actions go. ee_delta_cmd drives the arm without a session in between.',
    )
    rate_hz: float = param(10.0, doc='Actions per second.', unit='Hz', lo=1.0, hi=50.0)
    episodes: int = param(0, doc='Demonstrations after which the node ends; 0: no end.', lo=0, hi=1_000_000)
    call_intervene: bool = param(
        True, doc='Tell the session by its service when it takes over and hands back, where there is one.'
    )
    seed: int = param(0, doc='Of all that is left to chance.', lo=0, hi=2**31 - 1)
    noise: float = param(0.1, doc='Noise on each action, as a share of the largest one.', lo=0.0, hi=1.0)
    aim_error_m: float = param(0.001, doc='Aim error of each attempt.', unit='m', lo=0.0, hi=0.05)
    speed: float = param(1.0, doc='Fastest action, as a share of the largest one.', lo=0.05, hi=1.0)
    hesitation: float = param(0.0, doc='Probability of not moving in a step.', lo=0.0, hi=0.95)
    attention: float = param(1.0, doc='Probability of watching an episode at all.', lo=0.0, hi=1.0)
    patience_s: float = param(
        1.5,
        doc='How long nothing may come closer to the goal before it takes over.',
        unit='s',
        lo=0.1,
        hi=60.0,
    )

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)

    @property
    def skill(self) -> Skill:
        """How well it acts."""
        return Skill(
            noise=self.noise, aim_error_m=self.aim_error_m, speed=self.speed, hesitation=self.hesitation
        )

    @property
    def habits(self) -> Habits:
        """When it acts."""
        return Habits(attention=self.attention, patience_steps=max(1, round(self.patience_s * self.rate_hz)))
