# SPDX-License-Identifier: Apache-2.0
"""The running episode, how it ends, and the account of those that have ended."""

from collections import Counter, deque
from dataclasses import dataclass, field

from so101_contract.session import EventKind, Outcome, Source


class SessionError(ValueError):
    """Something that the session was asked for or given cannot be right."""


RECENT = 20
"""Episodes over which interventions are counted."""

COUNTED = (Outcome.SUCCESS, Outcome.FAILURE, Outcome.TIME_LIMIT)
"""Outcomes of the episodes that are counted towards the number that is wanted."""


@dataclass(frozen=True)
class Verdict:
    """An outcome, and why.

    Attributes:
        outcome: how the episode ends.
        reason: for people, one sentence; may be empty.
        policy_silent: the policy is to blame, since it does not answer.
    """

    outcome: Outcome
    reason: str = ''
    policy_silent: bool = False


@dataclass(frozen=True)
class Event:
    """Publish that something happened to an episode."""

    kind: EventKind
    episode: int
    index: int
    reason: str = ''


@dataclass
class Episode:
    """An episode while it runs.

    Attributes:
        number: counts up from 1.
        limit: its actions, after which it is cut short.
        resets: resets of the scene when it began.
        index: of the next step.
        verdict: how it ends with the next step, once that is known.
        actions: actions of a policy or a human.
        runs: lengths of the stretches in which a human acted [steps].
    """

    number: int
    limit: int
    resets: int = 0
    index: int = 0
    verdict: Verdict | None = None
    actions: int = 0
    runs: list[int] = field(default_factory=list)
    _human: bool = False

    def note(self, source: Source) -> None:
        """Count an action; one of nobody neither counts nor ends a stretch."""
        if source not in (Source.POLICY, Source.TELEOP):
            return
        self.actions += 1
        before, self._human = self._human, source is Source.TELEOP
        if self._human and before:
            self.runs[-1] += 1
        elif self._human:
            self.runs.append(1)

    def end(self, verdict: Verdict) -> None:
        """Let it end with the next step; the first word counts, but a human may still throw it away."""
        if self.verdict is None or verdict.outcome is Outcome.DISCARD:
            self.verdict = verdict


@dataclass
class Account:
    """What became of the episodes of this session.

    Attributes:
        outcomes: of each episode that has ended, by its number.
        started: episodes begun.
        recent: actions, and stretches of a human's actions, of the last episodes.
    """

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    started: int = 0
    recent: deque[tuple[int, tuple[int, ...]]] = field(default_factory=lambda: deque(maxlen=RECENT))

    def start(self, limit: int, resets: int) -> Episode:
        """Begin the next episode."""
        self.started += 1
        return Episode(self.started, limit, resets)

    def close(self, episode: Episode, outcome: Outcome) -> None:
        """Note how an episode has ended."""
        self.outcomes[episode.number] = outcome
        self.recent.append((episode.actions, tuple(episode.runs)))

    def relabel(self, number: int, outcome: Outcome) -> int:
        """Give an episode that has ended another outcome.

        Args:
            number: its number; 0 for the last one.
            outcome: the new one.

        Returns:
            The number.

        Raises:
            SessionError: there is no such episode.
        """
        wanted = number or max(self.outcomes, default=0)
        if wanted not in self.outcomes:
            known = f'1 to {max(self.outcomes)}' if self.outcomes else 'none yet'
            raise SessionError(
                f'expected an episode that has ended ({known}), got {number}; name one of them'
            )
        self.outcomes[wanted] = outcome
        return wanted

    @property
    def intervention_rate(self) -> float:
        """Share of a human's actions in the last episodes, 0..1."""
        return sum(sum(runs) for _, runs in self.recent) / max(1, sum(actions for actions, _ in self.recent))

    @property
    def intervention_length(self) -> float:
        """Mean length of the stretches in which a human acted, in the last episodes [steps]; 0 without any."""
        lengths = [length for _, runs in self.recent for length in runs]
        return sum(lengths) / max(1, len(lengths))

    @property
    def counted(self) -> int:
        """Episodes that count towards the number that is wanted."""
        return sum(outcome in COUNTED for outcome in self.outcomes.values())

    def tally(self) -> dict[str, int]:
        """Return how many episodes ended how."""
        counts = Counter(outcome.name.lower() for outcome in self.outcomes.values())
        return {outcome.name.lower(): counts[outcome.name.lower()] for outcome in Outcome}

    def __str__(self) -> str:
        tally = self.tally()
        said = [f'{count} {name.replace("_", " ")}' for name, count in tally.items() if count]
        return f'{len(self.outcomes)} episodes: {", ".join(said)}' if said else 'no episode yet'
