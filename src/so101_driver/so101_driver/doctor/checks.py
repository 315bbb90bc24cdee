# SPDX-License-Identifier: Apache-2.0
"""What `doctor` finds out, as data: one `Check` per question."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import Enum
import json


class Status(Enum):
    """How a check came out; only FAIL makes the whole fail."""

    OK = 'ok'
    WARN = 'warn'
    FAIL = 'fail'
    SKIP = 'skip'


@dataclass(frozen=True)
class Check:
    """The answer to one question.

    Attributes:
        name: short, with dots for parts, such as `arm.voltage`.
        status: how it came out.
        finding: one sentence: what was found.
        remedy: one sentence: what to do; empty where nothing needs doing.
    """

    name: str
    status: Status
    finding: str
    remedy: str = ''

    @property
    def line(self) -> str:
        """The check as text."""
        remedy = f' {self.remedy}' if self.remedy else ''
        return f'{self.status.value:<5}{self.name}: {self.finding}{remedy}'


ExtraCheck = Callable[[], Check | Iterable[Check]]
"""A check that another package adds."""


def passed(checks: Iterable[Check]) -> bool:
    """Whether nothing failed."""
    return all(check.status is not Status.FAIL for check in checks)


def as_json(checks: Iterable[Check]) -> str:
    """One JSON object with every check and the outcome."""
    rows = tuple(checks)
    listed = [{**asdict(check), 'status': check.status.value} for check in rows]
    return json.dumps({'ok': passed(rows), 'checks': listed}, indent=2)


def run_extra(extra: ExtraCheck) -> list[Check]:
    """Run a check of another package; one that breaks is a failed check, not the end of `doctor`."""
    try:
        result = extra()
    except Exception as error:  # whatever it is, the other findings are still wanted
        name = getattr(extra, '__name__', 'extra')
        return [Check(name, Status.FAIL, f'The check itself broke: {error!r}.', 'Report this as a bug.')]
    return [result] if isinstance(result, Check) else list(result)
