# SPDX-License-Identifier: Apache-2.0
"""What a check of a bag finds, and the limits by which it judges."""

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from so101_contract.config import LONG_INTERVENTION_STEPS
from so101_contract.human_time import HumanTime


class Level(Enum):
    """How bad a finding is."""

    FAULT = 'fault'
    WARNING = 'warning'


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a code for machines, a sentence for people."""

    level: Level
    code: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class CheckLimits:
    """Beyond which values a bag is faulty or suspicious.

    Attributes:
        joint_gap_s: longest time without a joint message inside an episode [s].
        image_gap_s: longest time without an image inside an episode [s].
        step_jitter_s: largest deviation of a step from the control period [s].
        clock_jump_s: largest sudden change between the stamps and the recorder's clock [s].
        age_s: oldest joint message or image that a step may name [s].
        min_motion_m: motion of the TCP beyond which actions cannot all have been zero [m].
        zero_action: what counts as zero [m].
        saturated: share of action components at their limit.
        lost: share of an episode's steps that may give no transition.
        max_run: mean length of an intervention beyond which it harms the values learned [steps].
    """

    joint_gap_s: float = 0.2
    image_gap_s: float = 0.5
    step_jitter_s: float = 0.1
    clock_jump_s: float = 0.5
    age_s: float = 0.3
    min_motion_m: float = 0.01
    zero_action: float = 1e-6
    saturated: float = 0.5
    lost: float = 0.1
    max_run: float = LONG_INTERVENTION_STEPS


@dataclass(frozen=True)
class TopicRow:
    """One topic of the bag; rates and gaps by header stamp where there is one.

    Attributes:
        topic: absolute name.
        msgtype: its type.
        count: messages.
        rate_hz: messages per second from the first to the last [Hz]; 0 below two messages.
        gap_s: longest time between two messages [s].
        delay_s: median time from stamp to reception [s]; None without stamps.
    """

    topic: str
    msgtype: str
    count: int
    rate_hz: float
    gap_s: float
    delay_s: float | None


@dataclass(frozen=True, kw_only=True)
class EpisodeRow:
    """One episode of the bag.

    Attributes:
        episode: its number.
        session: 1; counts up where the session was restarted and counts its episodes from the beginning.
        outcome: how it ended; `none` where nothing says so.
        steps: steps in the bag.
        transitions: what they give.
        seconds: from the first step to the last one [s].
        reward: sum of the rewards.
        teleop: share of the transitions that a human decided.
        interventions: how many times a human took over.
        run: mean length of an intervention [steps].
        max_action: largest displacement in one axis of one action [m].
        saturated: share of action components at their limit.
        motion_m: how far the TCP got from where it began [m].
        dropped: steps that gave no transition, by reason.
    """

    episode: int
    session: int
    outcome: str
    steps: int
    transitions: int
    seconds: float
    reward: float
    teleop: float
    interventions: int
    run: float
    max_action: float
    saturated: float
    motion_m: float
    dropped: dict[str, int]

    @property
    def name(self) -> str:
        """What to call it."""
        return episode_name(self.episode, self.session)


def episode_name(episode: int, session: int) -> str:
    """Return what to call an episode."""
    return f'{episode}' if session == 1 else f'{episode} of session {session}'


@dataclass
class CheckReport:
    """Everything that was found out about a bag."""

    bags: list[str]
    namespace: str = ''
    seconds: float = 0.0
    messages: int = 0
    observation: str = ''
    calibration: str = ''
    topics: list[TopicRow] = field(default_factory=list)
    episodes: list[EpisodeRow] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    parity: dict[str, Any] | None = None
    human: HumanTime = field(default_factory=HumanTime)

    def fault(self, code: str, sentence: str) -> None:
        """Note something that makes the bag unfit."""
        self.findings.append(Finding(Level.FAULT, code, sentence))

    def warn(self, code: str, sentence: str) -> None:
        """Note something that one should know."""
        self.findings.append(Finding(Level.WARNING, code, sentence))

    @property
    def faults(self) -> list[Finding]:
        """What makes the bag unfit."""
        return [finding for finding in self.findings if finding.level is Level.FAULT]

    @property
    def codes(self) -> set[str]:
        """Codes of all findings."""
        return {finding.code for finding in self.findings}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        content = asdict(self)
        content['human'] = self.human.report()
        content['findings'] = [{**asdict(f), 'level': f.level.value} for f in self.findings]
        content['ok'] = not self.faults
        return content
