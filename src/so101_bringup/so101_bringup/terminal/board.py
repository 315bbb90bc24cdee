# SPDX-License-Identifier: Apache-2.0
"""The status of a stack in a few lines: what is known of it, and how it reads."""

from __future__ import annotations

from collections import Counter, deque
import re
from typing import Any, NamedTuple

from so101_contract.session import Driver, SessionState, SessionStatus

LAST_WORDS = 8
"""So many lines of a process are shown where it ends and should not."""

_LOGGED = re.compile(r'^\[(?P<level>[A-Z]+)\] (?:\[\d+\.\d+\] )?\[(?P<node>[^\]]+)\]: (?P<words>.*)$')
_PAGE = re.compile(r'the page is (http\S+)')
_DRIVERS = {
    Driver.NOBODY: 'nobody drives',
    Driver.POLICY: 'the policy drives',
    Driver.HUMAN: 'the human drives',
    Driver.UNKNOWN: 'someone drives',
}


def page_address(line: str) -> str:
    """Return the address of the page where a line tells it, with the port that was free and the token."""
    found = _PAGE.search(line)
    return found[1] if found else ''


class Row(NamedTuple):
    """One line of the status.

    Attributes:
        name: what it is about.
        words: what there is to say.
        alarming: it asks for a look.
    """

    name: str
    words: str
    alarming: bool = False


class Board:
    """What is known of a stack that runs.

    Args:
        log: where the lines of the nodes go.
    """

    def __init__(self, log: str) -> None:
        self._log = log
        self._address = ''
        self._session: SessionStatus | None = None
        self._arm: tuple[str, str] = ('', '')
        self._learner: Any = None
        self._warnings: Counter[str] = Counter()
        self._last_warning = ''
        self._lines: dict[str, deque[str]] = {}

    def hear(self, label: str, line: str) -> None:
        """Take a line of a process: warnings are counted, the last lines are kept."""
        self._lines.setdefault(label, deque(maxlen=LAST_WORDS)).append(line)
        self._address = page_address(line) or self._address
        found = _LOGGED.match(line)
        if found and found['level'] in ('WARN', 'ERROR', 'FATAL'):
            self._warnings[label] += 1
            self._last_warning = f'{found["node"]}: {found["words"]}'

    def last_words(self, label: str) -> list[str]:
        """Return the last lines of a process."""
        return list(self._lines.get(label, ()))

    def hear_session(self, status: SessionStatus) -> None:
        """Take the state of the session."""
        self._session = status

    def hear_arm(self, state: str, reason: str) -> None:
        """Take the state of the arm, and why it is in it."""
        self._arm = state, reason

    def hear_learner(self, status: Any) -> None:
        """Take a `LearnerStatus` message."""
        self._learner = status

    def rows(self) -> list[Row]:
        """Return what is known, in the order in which people ask."""
        rows = []
        if self._address:
            rows.append(Row('page', self._address))
        if self._session is not None:
            rows += _session_rows(self._session)
        else:
            rows.append(Row('now', 'the nodes start'))
        state, reason = self._arm
        if state in ('e-stop', 'fault', 'disabled', 'hold'):
            rows.append(Row('arm', f'{state}: {reason}' if reason else state, state in ('e-stop', 'fault')))
        if self._learner is not None:
            rows.append(_learner_row(self._learner))
        if self._warnings:
            counts = ', '.join(f'{name} {count}' for name, count in self._warnings.most_common(4))
            rows.append(
                Row('warnings', f'{self._warnings.total()} ({counts}); last: {self._last_warning}', True)
            )
        rows.append(Row('log', f'{self._log}; Ctrl-C ends it'))
        return rows


def _session_rows(session: SessionStatus) -> list[Row]:
    now = session.sentence
    if session.state in (SessionState.ARMED, SessionState.RUNNING, SessionState.PAUSED):
        limit = f' of {session.limit}' if session.limit else ''
        now = f'episode {session.episode}, step {session.index}{limit}: {_DRIVERS[session.driver]}'
        if session.driver is Driver.NOBODY or session.state is not SessionState.RUNNING:
            now += f' ({session.sentence})'
    rows = [Row('now', now)]
    ended = sum(session.outcomes.values())
    if ended:
        wanted = f' of {session.wanted}' if session.wanted else ''
        outcomes = ', '.join(
            f'{count} {name.replace("_", " ")}' for name, count in session.outcomes.items() if count
        )
        rows.append(Row('episodes', f'{session.episodes}{wanted}: {outcomes}'))
    if session.answers['human'] or session.human.worked:
        rows.append(
            Row(
                'human',
                f'{session.human.worked / 60.0:.1f} minutes of work; {100.0 * session.intervention_rate:.0f} % of the '
                f'actions of the last 20 episodes, {session.intervention_length:.0f} steps at a time',
            )
        )
    return rows


def _learner_row(status: Any) -> Row:
    if not status.updates:
        return Row('learner', f'{status.state} {status.reason}'.strip(), status.state == 'failed')
    return Row(
        'learner',
        f'{status.state}: {status.updates} updates, {status.updates_per_second:.1f} a second, '
        f'policy version {status.version}',
        status.state == 'failed',
    )
