# SPDX-License-Identifier: Apache-2.0
"""What a bag or a dataset gave, and why the rest of it gave nothing; it lies beside what it became."""

from collections import Counter
from dataclasses import dataclass, field
import json
from pathlib import Path

from hilserl_learner.errors import IngestError
from so101_contract.record import Json
from so101_contract.transition import EpisodeReport
from so101_interfaces_py.files import read_file


@dataclass
class BagReport:
    """What a bag gave.

    Attributes:
        episodes: episodes that gave transitions.
        outcomes: how episodes ended, by name.
        discarded: episodes that the human threw away.
        steps: steps that came.
        transitions: transitions that they gave.
        intervened: transitions that a human decided.
        reward: sum of the rewards.
        successes: episodes with a terminal transition and a reward above 0 there.
        gaps: steps that gave no transition, by reason.
        skipped: messages that could not be used, by reason.
        left_out: episodes that cannot be learned from, by number, and why.
        repaired: episodes whose zero actions were replaced.
        clipped: share of the replaced actions that were clipped, by axis.
        said: what a dataset does not say, and what was made of that.
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
    left_out: dict[str, str] = field(default_factory=dict)
    repaired: tuple[int, ...] = ()
    clipped: dict[str, float] = field(default_factory=dict)
    said: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the report as JSON text that is equal for equal content."""
        plain: dict[str, Json] = {
            name: dict(sorted(value.items())) if isinstance(value, dict) else value
            for name, value in vars(self).items()
        }
        return json.dumps(plain, indent=2, sort_keys=True) + '\n'

    @classmethod
    def read(cls, path: Path) -> 'BagReport':
        """Read what `to_json` wrote.

        Raises:
            IngestError: there is none, or it is damaged.
        """
        try:
            values = json.loads(read_file(path))
            for name in ('outcomes', 'gaps', 'skipped'):
                values[name] = Counter(values[name])
            lists = {name: tuple(values.get(name, ())) for name in ('repaired', 'said')}
            report = cls(**{**values, **lists})
            if any(type(getattr(report, name)) is not int for name in ('episodes', 'transitions', 'steps')):
                raise ValueError('counts that are no numbers')
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise IngestError(
                f'expected the report of a bag in {path}, got {type(error).__name__} ({error}); ingest that bag again '
                f'with --replace'
            ) from error
        return report


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
    told = [f'{number} x {reason}' for reason, number in {**account.gaps, **account.skipped}.items()]
    told += [f'{number} x {why}' for why, number in Counter(account.left_out.values()).items()]
    return ', '.join(told) or 'no step belongs to an episode'
