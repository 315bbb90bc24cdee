# SPDX-License-Identifier: Apache-2.0
"""The words of a session: who acts, what happens to an episode, how it ends; and what the session says of itself.

`Source`, `EventKind` and `Outcome` have the values of the messages' constants. `SessionStatus` (`session/status`, both
ways) is for people and programs that wait; nothing is learned from it. No ROS here: messages are taken by their fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum, StrEnum
import math
from typing import Any, TypeVar

from so101_contract.action import AXES

NO_EPISODE = 0
"""Episode number of the steps between episodes; nothing is learned from them."""


class Source(IntEnum):
    """Who decided an action (`EeDelta.source`)."""

    NONE = 0
    POLICY = 1
    TELEOP = 2
    RESET = 3


class EventKind(IntEnum):
    """What happened to an episode (`EpisodeEvent.kind`)."""

    START = 0
    SUCCESS = 1
    FAILURE = 2
    DISCARD = 3
    TIME_LIMIT = 4
    ABORT = 5
    PAUSE = 6
    RESUME = 7
    INTERVENTION_START = 8
    INTERVENTION_END = 9
    RESET_START = 10
    RESET_DONE = 11
    SUCCESS_NOW = 12
    """A human sees success at this step and from it on: a label for pictures, no outcome."""
    NOT_YET = 13
    """A human sees none any more, or none yet."""
    NEED_RESET = 16
    NEED_START = 17
    NEED_OVER = 18
    PUT_BACK = 19

    @property
    def outcome(self) -> 'Outcome | None':
        """The outcome that this event gives its episode, or None where it gives none."""
        return Outcome(self.value) if self.value in {outcome.value for outcome in Outcome} else None


class Outcome(IntEnum):
    """How an episode ended."""

    SUCCESS = 1
    FAILURE = 2
    DISCARD = 3
    TIME_LIMIT = 4
    ABORT = 5

    @property
    def terminal(self) -> bool:
        """Whether nothing follows, so that no value is bootstrapped; else the episode was cut short."""
        return self in (Outcome.SUCCESS, Outcome.FAILURE)


Message = TypeVar('Message')


class SessionState(StrEnum):
    """State of the session, in the order of the message's constants; the last one has none."""

    WAITING = 'waiting'
    RESETTING = 'resetting'
    READY = 'ready'
    ARMED = 'armed'
    RUNNING = 'running'
    PAUSED = 'paused'
    DONE = 'done'
    UNKNOWN = 'unknown'
    """One that only a newer version knows."""


class Driver(StrEnum):
    """Who moves the arm, in the order of the message's constants; the last one has none."""

    NOBODY = 'nobody'
    POLICY = 'policy'
    HUMAN = 'human'
    UNKNOWN = 'unknown'
    """Somebody that only a newer version knows."""


STATES, DRIVERS = tuple(SessionState), tuple(Driver)


def what_start_does(state: SessionState, policy_drives: bool) -> str:
    """Return what Start does in a state, for people; empty where it does nothing.

    Args:
        state: of the session.
        policy_drives: a policy is there that will act, and no human has control.
    """
    if state in (SessionState.ARMED, SessionState.DONE):
        return ''
    way = '' if state is SessionState.READY else 'back to the start pose, then '
    if state in (SessionState.RUNNING, SessionState.PAUSED):
        way = f'ends this episode, {way}'
    return f'{way}{"the policy drives" if policy_drives else "you drive"}'


OUTCOMES = tuple(outcome.name.lower() for outcome in Outcome)
"""Names under which episodes are counted by outcome."""

MEASURED = ('measured', 'truly', 'false_success', 'false_failure')
"""Names under which told outcomes are compared with the truth of a simulation."""

ANSWERS = ('policy', 'human', 'unanswered', 'late', 'repeated', 'foreign', 'overruled', 'refused')
"""Names under which steps are counted by who answered, and messages thrown away by reason."""


@dataclass(frozen=True, kw_only=True)
class HumanSeconds:
    """For how long a human was needed, by kind [s]; see `human_time`."""

    demonstrations: float = 0.0
    takeovers: float = 0.0
    labels: float = 0.0
    resets: float = 0.0
    waiting: float = 0.0

    @property
    def worked(self) -> float:
        """What the human did [s]."""
        return self.demonstrations + self.takeovers + self.labels + self.resets

    def __add__(self, other: 'HumanSeconds') -> 'HumanSeconds':
        """Return both together."""
        both = {each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)}
        return HumanSeconds(**both)

    def __str__(self) -> str:
        parts = [
            f'{name} {minutes(getattr(self, name))}'
            for name in ('demonstrations', 'takeovers', 'labels', 'resets')
            if getattr(self, name) > 0.0
        ]
        worked = f'a human worked for {minutes(self.worked)} min'
        worked += f' ({", ".join(parts)})' if parts else ''
        return f'{worked}, and the arm waited for one for {minutes(self.waiting)} min'


HUMAN_KINDS = tuple(each.name for each in fields(HumanSeconds))
"""What a human is needed for."""


def minutes(seconds: float) -> str:
    """Return a time in minutes, for people."""
    return f'{seconds / 60.0:.1f}'


@dataclass(frozen=True, kw_only=True)
class SessionStatus:
    """State of the session.

    Attributes:
        state: what it does.
        sentence: what goes on, for people.
        driver: who moves the arm.
        intervening: the human has control, acting or not.
        paused: somebody asked for a pause.
        episode: number of the running episode; 0 for none.
        index: steps of it so far.
        limit: its actions, after which it is cut short; 0 for none.
        episodes: how many that count have ended.
        wanted: how many are wanted; 0: no end.
        outcomes: episodes by outcome.
        answers: steps by who answered, and messages thrown away by reason.
        clipped: share of the actions that were cut, by axis.
        jitter_p50_s: deviation of the control clock from its period that half of the ticks stay below [s].
        jitter_p99_s: the same for 99 of 100 [s].
        intervention_rate: share of a human's actions in the last 20 episodes, 0..1.
        intervention_length: mean length of an intervention in the last 20 episodes [steps].
        reward: sources of the reward, with commas between.
        measured: episodes that count and whose truth a simulation knows.
        truly: those of them in which the task was done.
        false_success: those that were called a success and were none.
        false_failure: those that were one and were called something else.
        human: for how long a human was needed, by kind.
        human_until_unaided_s: work of a human until the policy needed none [s]; NaN while it does (`human_time`).
        resets_by_arm: times that the arm has put the object back.
        resets_by_human: times that a human was asked to arrange the scene.
    """

    state: SessionState
    sentence: str
    driver: Driver
    intervening: bool
    paused: bool
    episode: int
    index: int
    limit: int
    episodes: int
    wanted: int
    outcomes: Mapping[str, int]
    answers: Mapping[str, int]
    clipped: Mapping[str, float]
    jitter_p50_s: float
    jitter_p99_s: float
    intervention_rate: float
    intervention_length: float
    reward: str
    measured: int
    truly: int
    false_success: int
    false_failure: int
    human: HumanSeconds = field(default_factory=HumanSeconds)
    human_until_unaided_s: float = math.nan
    resets_by_arm: int = 0
    resets_by_human: int = 0


def to_record(message: Any) -> SessionStatus:
    """Read a `SessionStatus` message; states and drivers of a newer version are unknown ones."""
    return SessionStatus(
        state=STATES[min(message.state, len(STATES) - 1)],
        sentence=str(message.sentence),
        driver=DRIVERS[min(message.driver, len(DRIVERS) - 1)],
        intervening=bool(message.intervening),
        paused=bool(message.paused),
        episode=int(message.episode),
        index=int(message.index),
        limit=int(message.limit),
        episodes=int(message.episodes),
        wanted=int(message.wanted),
        outcomes={name: int(getattr(message, name)) for name in OUTCOMES},
        answers={name: int(getattr(message, name)) for name in ANSWERS},
        clipped=dict(zip(AXES, map(float, message.clipped), strict=True)),
        jitter_p50_s=float(message.jitter_p50),
        jitter_p99_s=float(message.jitter_p99),
        intervention_rate=float(message.intervention_rate),
        intervention_length=float(message.intervention_length),
        reward=str(message.reward),
        **{name: int(getattr(message, name)) for name in MEASURED},
        human=HumanSeconds(**{name: float(getattr(message, f'human_{name}')) for name in HUMAN_KINDS}),
        human_until_unaided_s=float(message.human_until_unaided),
        resets_by_arm=int(message.resets_by_arm),
        resets_by_human=int(message.resets_by_human),
    )


def from_record(status: SessionStatus, message: Message) -> Message:
    """Fill in an empty `SessionStatus` message, and return it; its stamp is the caller's."""
    out: Any = message
    out.state, out.driver = STATES.index(status.state), DRIVERS.index(status.driver)
    out.sentence, out.intervening, out.paused = status.sentence, status.intervening, status.paused
    out.episode, out.index, out.limit = status.episode, status.index, status.limit
    out.episodes, out.wanted = status.episodes, status.wanted
    out.reward = status.reward
    for name in MEASURED:
        setattr(out, name, getattr(status, name))
    for names, counts in ((OUTCOMES, status.outcomes), (ANSWERS, status.answers)):
        for name in names:
            setattr(out, name, counts.get(name, 0))
    out.clipped = [float(status.clipped.get(axis, 0.0)) for axis in AXES]
    out.jitter_p50, out.jitter_p99 = status.jitter_p50_s, status.jitter_p99_s
    out.intervention_rate, out.intervention_length = status.intervention_rate, status.intervention_length
    for name in HUMAN_KINDS:
        setattr(out, f'human_{name}', float(getattr(status.human, name)))
    out.human_until_unaided = float(status.human_until_unaided_s)
    out.resets_by_arm, out.resets_by_human = status.resets_by_arm, status.resets_by_human
    return message
