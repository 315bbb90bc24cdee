# SPDX-License-Identifier: Apache-2.0
"""What `session/status` says: one JSON object for people and pages; nothing that is learned from."""

from dataclasses import asdict, dataclass
import json
from typing import Self

from so101_session.session.clock import Jitter
from so101_session.session.machine import Session


@dataclass(frozen=True, kw_only=True)
class SessionStatus:
    """State of the session.

    Attributes:
        state: one of `session.State`.
        sentence: what goes on, for people.
        driver: who moves the arm: nobody, policy, person.
        intervening: the person has control, acting or not.
        episode: number of the running episode; 0 for none.
        index: steps of it so far.
        limit: its actions, after which it is cut short; 0 for none.
        episodes: how many that count have ended.
        wanted: how many are wanted; 0: no end.
        outcomes: episodes by outcome.
        answers: steps by who answered, and messages thrown away by reason.
        clipped: share of the actions that were cut, by axis.
        jitter_p50_ms: deviation of the control clock from its period that half of the ticks stay below [ms].
        jitter_p99_ms: the same for 99 of 100 [ms].
        intervention_rate: share of a person's actions in the last 20 episodes, 0..1.
        intervention_length: mean length of an intervention in the last 20 episodes [steps].
        paused: a person asked for a pause.
    """

    state: str
    sentence: str
    driver: str
    intervening: bool
    episode: int
    index: int
    limit: int
    episodes: int
    wanted: int
    outcomes: dict[str, int]
    answers: dict[str, int]
    clipped: dict[str, float]
    jitter_p50_ms: float
    jitter_p99_ms: float
    intervention_rate: float
    intervention_length: float
    paused: bool

    @classmethod
    def of(cls, session: Session, jitter: Jitter, wanted: int) -> Self:
        """Return the state of a session."""
        episode = session.episode
        return cls(
            state=session.state.value,
            sentence=session.sentence,
            driver=session.driver.value,
            intervening=session.arbiter.takeover.intervening,
            episode=0 if episode is None else episode.number,
            index=0 if episode is None else episode.index,
            limit=0 if episode is None else episode.limit,
            episodes=session.account.counted,
            wanted=wanted,
            outcomes=session.account.tally(),
            answers=dict(session.arbiter.counts),
            clipped={axis: round(share, 4) for axis, share in session.arbiter.clips.fraction.items()},
            jitter_p50_ms=round(1e3 * jitter.quantile(0.5), 2),
            jitter_p99_ms=round(1e3 * jitter.quantile(0.99), 2),
            intervention_rate=round(session.account.intervention_rate, 3),
            intervention_length=round(session.account.intervention_length, 1),
            paused=session.paused,
        )

    def to_json(self) -> str:
        """Return it as a JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` has written; keys that are not known are ignored."""
        values = json.loads(text)
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})
