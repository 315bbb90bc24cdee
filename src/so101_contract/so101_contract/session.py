# SPDX-License-Identifier: Apache-2.0
"""The words of a session: who acts, what happens to an episode, how it ends; and what the session says of itself.

`Source`, `EventKind` and `Outcome` have the values of the messages' constants. `SessionStatus` (`session/status`, both
ways) is for people and programs that wait; nothing is learned from it. No ROS here: messages are taken by their fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
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
    """State of the session, in the order of the message's constants."""

    WAITING = 'waiting'
    RESETTING = 'resetting'
    READY = 'ready'
    ARMED = 'armed'
    RUNNING = 'running'
    PAUSED = 'paused'
    DONE = 'done'


class Driver(StrEnum):
    """Who moves the arm, in the order of the message's constants."""

    NOBODY = 'nobody'
    POLICY = 'policy'
    HUMAN = 'human'


STATES, DRIVERS = tuple(SessionState), tuple(Driver)
OUTCOMES = tuple(outcome.name.lower() for outcome in Outcome)
"""Names under which episodes are counted by outcome."""

ANSWERS = ('policy', 'human', 'unanswered', 'late', 'repeated', 'foreign', 'overruled', 'refused')
"""Names under which steps are counted by who answered, and messages thrown away by reason."""


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


def to_record(message: Any) -> SessionStatus:
    """Read a `SessionStatus` message."""
    return SessionStatus(
        state=STATES[message.state],
        sentence=str(message.sentence),
        driver=DRIVERS[message.driver],
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
    )


def from_record(status: SessionStatus, message: Message) -> Message:
    """Fill in an empty `SessionStatus` message, and return it; its stamp is the caller's."""
    out: Any = message
    out.state, out.driver = STATES.index(status.state), DRIVERS.index(status.driver)
    out.sentence, out.intervening, out.paused = status.sentence, status.intervening, status.paused
    out.episode, out.index, out.limit = status.episode, status.index, status.limit
    out.episodes, out.wanted = status.episodes, status.wanted
    for names, counts in ((OUTCOMES, status.outcomes), (ANSWERS, status.answers)):
        for name in names:
            setattr(out, name, counts.get(name, 0))
    out.clipped = [float(status.clipped.get(axis, 0.0)) for axis in AXES]
    out.jitter_p50, out.jitter_p99 = status.jitter_p50_s, status.jitter_p99_s
    out.intervention_rate, out.intervention_length = status.intervention_rate, status.intervention_length
    return message
