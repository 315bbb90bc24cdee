# SPDX-License-Identifier: Apache-2.0
"""The running episode, how it ends, and the account of those that have ended."""

from collections import Counter, deque
from dataclasses import dataclass, field

from so101_contract.session import EventKind, MEASURED, Outcome, Source
from so101_contract.task_report import TaskReport


class SessionError(ValueError):
    """Something that the session was asked for or given cannot be right."""


RECENT = 20
"""Episodes over which interventions are counted."""

COUNTED = (Outcome.SUCCESS, Outcome.FAILURE, Outcome.TIME_LIMIT)
"""Outcomes of the episodes that are counted towards the number that is wanted."""


def outcome_name(outcome: Outcome) -> str:
    """Return what people call an outcome."""
    return outcome.name.lower().replace('_', ' ')


@dataclass(frozen=True)
class Verdict:
    """An outcome, and why.

    Attributes:
        outcome: how the episode ends.
        reason: for people, one sentence; may be empty.
        policy_silent: the policy is to blame, since it does not answer.
        by_human: a human says so.
        asked: Start or Reset was pressed, which goes on.
    """

    outcome: Outcome
    reason: str = ''
    policy_silent: bool = False
    by_human: bool = False
    asked: bool = False


@dataclass(frozen=True)
class Event:
    """Publish that something happened to an episode."""

    kind: EventKind
    episode: int
    index: int
    reason: str = ''
    by_human: bool = False


@dataclass
class Episode:
    """An episode while it runs.

    Attributes:
        number: counts up from 1.
        limit: its actions, after which it is cut short.
        resets: resets of the scene when it began.
        index: of the next step.
        verdict: how it ends with the next step, once that is known.
        policy_was_there: a policy was there at some moment; without one it is a demonstration, and nobody's silence
            cuts it short.
        actions: actions of a policy or a human.
        runs: lengths of the stretches in which a human acted [steps].
        truly: the task was done at some moment, as a simulation knows; None where none says.
    """

    number: int
    limit: int
    resets: int = 0
    index: int = 0
    verdict: Verdict | None = None
    policy_was_there: bool = False
    actions: int = 0
    runs: list[int] = field(default_factory=list)
    truly: bool | None = None
    _reached: bool = False
    _human: bool = False

    def measure(self, report: TaskReport | None) -> None:
        """Note the truth of a simulation, which decides nothing unless it is a source of the reward."""
        if report is None or report.state.resets < self.resets:
            return
        self.truly = bool(self.truly) or report.state.status.success
        self._reached = report.state.status.good_steps > 0

    @property
    def done_in_truth(self) -> bool | None:
        """Whether the task was done, or its goal is reached as the episode ends; None where nobody knows."""
        return None if self.truly is None else self.truly or self._reached

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

    def advice(self, long_steps: int) -> str:
        """Return what to do otherwise next time; empty where there is nothing to say.

        A success at the end of a long intervention makes the learner believe in everything that came before it.
        """
        longest = max(self.runs, default=0)
        if longest <= long_steps:
            return ''
        return f'the human drove {longest} steps in a row; several short corrections teach more'


@dataclass
class Account:
    """What became of the episodes of this session.

    Attributes:
        outcomes: of each episode that has ended, by its number.
        started: episodes begun.
        recent: actions, and stretches of a human's actions, of the last episodes.
        truths: whether the task was done, of each episode whose truth a simulation knows.
    """

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    started: int = 0
    recent: deque[tuple[int, tuple[int, ...]]] = field(default_factory=lambda: deque(maxlen=RECENT))
    truths: dict[int, bool] = field(default_factory=dict)

    def start(self, limit: int, resets: int) -> Episode:
        """Begin the next episode."""
        self.started += 1
        return Episode(self.started, limit, resets)

    def close(self, episode: Episode, outcome: Outcome) -> None:
        """Note how an episode has ended."""
        self.outcomes[episode.number] = outcome
        if episode.done_in_truth is not None:
            self.truths[episode.number] = episode.done_in_truth
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
    def last(self) -> tuple[int, Outcome]:
        """Number and outcome of the last episode that has ended.

        Raises:
            SessionError: none has.
        """
        if not self.outcomes:
            raise SessionError('expected an episode, got none so far; press Start')
        number = max(self.outcomes)
        return number, self.outcomes[number]

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

    def contradiction(self, number: int) -> str:
        """Return what an episode was in truth, as a clause, where it is called something else; empty else."""
        truly, told = self.truths.get(number), self.outcomes[number]
        if truly is None or told not in COUNTED or truly == (told is Outcome.SUCCESS):
            return ''
        return f', in truth {"a success" if truly else "none"}'

    def measured(self) -> dict[str, int]:
        """Return how what episodes are called compares with what they were, under the names of `MEASURED`."""
        pairs = [
            (self.outcomes[number] is Outcome.SUCCESS, truly)
            for number, truly in self.truths.items()
            if self.outcomes[number] in COUNTED
        ]
        counts = (
            len(pairs),
            sum(truly for _, truly in pairs),
            sum(told and not truly for told, truly in pairs),
            sum(truly and not told for told, truly in pairs),
        )
        return dict(zip(MEASURED, counts, strict=True))

    def __str__(self) -> str:
        tally = self.tally()
        said = [f'{count} {name.replace("_", " ")}' for name, count in tally.items() if count]
        return f'{len(self.outcomes)} episodes: {", ".join(said)}' if said else 'no episode yet'
