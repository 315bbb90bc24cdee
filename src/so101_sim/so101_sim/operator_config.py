# SPDX-License-Identifier: Apache-2.0
"""Parameters of operator_node."""

from dataclasses import dataclass

from so101_interfaces_py import topics
from so101_interfaces_py.params import check_bounds, param, ParameterError
from so101_sim.human.expert import Skill
from so101_sim.human.operator import Habits


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
        doc='Where its actions go. ee_delta_cmd: demonstrate without a session in between.',
    )
    rate_hz: float = param(
        10.0, doc='Actions per second; with a session, its steps per second.', unit='Hz', lo=1.0, hi=50.0
    )
    episodes: int = param(0, doc='Demonstrations after which the node ends; 0: no end.', lo=0, hi=1_000_000)
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
    shortest_s: float = param(0.8, doc='No intervention is shorter.', unit='s', lo=0.1, hi=60.0)
    longest_s: float = param(
        3.0,
        doc='After this it hands back, unless it holds the cube, or time runs out.',
        unit='s',
        lo=0.1,
        hi=600.0,
    )
    finish_s: float = param(
        3.5,
        doc='It finishes an episode of which no more than this is left; 0: never.',
        unit='s',
        lo=0.0,
        hi=600.0,
    )

    def __post_init__(self) -> None:
        """Check each value, and that somebody listens."""
        check_bounds(self)
        if self.mode == 'intervene' and not self.with_session:
            raise ParameterError(
                f'expected topic {topics.TELEOP_EE_DELTA} for the mode intervene, got {self.topic}; '
                f'only a session can tell an operator from a policy'
            )
        if self.shortest_s > self.longest_s:
            raise ParameterError(
                f'expected shortest_s up to longest_s, got {self.shortest_s} and {self.longest_s} s; correct one'
            )

    @property
    def with_session(self) -> bool:
        """Whether a session says what an episode is."""
        return self.topic != topics.EE_DELTA_CMD

    @property
    def skill(self) -> Skill:
        """How well it acts."""
        return Skill(
            noise=self.noise, aim_error_m=self.aim_error_m, speed=self.speed, hesitation=self.hesitation
        )

    @property
    def habits(self) -> Habits:
        """When it acts."""
        return Habits(
            attention=self.attention,
            patience_steps=max(1, round(self.patience_s * self.rate_hz)),
            shortest_steps=max(1, round(self.shortest_s * self.rate_hz)),
            longest_steps=max(1, round(self.longest_s * self.rate_hz)),
            finish_steps=round(self.finish_s * self.rate_hz),
        )
