# SPDX-License-Identifier: Apache-2.0
"""The account of what a bag gave."""

from collections import Counter
from dataclasses import dataclass, field
import json

from so101_contract.record import Json
from so101_contract.transition import EpisodeReport


@dataclass
class BagReport:
    """What a bag gave.

    Attributes:
        episodes: episodes that gave transitions.
        outcomes: how episodes ended, by name.
        discarded: episodes that the person threw away.
        steps: steps that came.
        transitions: transitions that they gave.
        intervened: transitions that a person decided.
        reward: sum of the rewards.
        successes: episodes with a terminal transition and a reward above 0 there.
        gaps: steps that gave no transition, by reason.
        skipped: messages that could not be used, by reason.
        repaired: episodes whose zero actions were replaced.
        clipped: share of the replaced actions that were cut, by axis.
    """

    episodes: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    discarded: int = 0
    steps: int = 0
    transitions: int = 0
    intervened: int = 0
    reward: float = 0.0
    successes: int = 0
    gaps: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    repaired: tuple[int, ...] = ()
    clipped: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the report as JSON text that is equal for equal content."""
        plain: dict[str, Json] = {
            name: dict(sorted(value.items())) if isinstance(value, dict) else value
            for name, value in vars(self).items()
        }
        return json.dumps(plain, indent=2, sort_keys=True) + '\n'

    @classmethod
    def from_json(cls, text: str) -> 'BagReport':
        """Read what `to_json` wrote."""
        values = json.loads(text)
        for name in ('outcomes', 'gaps', 'skipped'):
            values[name] = Counter(values[name])
        return cls(**{**values, 'repaired': tuple(values['repaired'])})


def count(account: BagReport, report: EpisodeReport) -> None:
    """Add the report of an episode."""
    account.steps += report.steps
    account.discarded += report.discarded
    if report.outcome is not None:
        account.outcomes[report.outcome.name.lower()] += 1
    for reason, number in report.dropped.items():
        account.gaps[reason.value] += number


def reasons(account: BagReport) -> str:
    """Say why steps and messages gave nothing."""
    told = {**account.gaps, **account.skipped}
    return (
        ', '.join(f'{number} x {reason}' for reason, number in told.items())
        or 'no step belongs to an episode'
    )
