# SPDX-License-Identifier: Apache-2.0
"""A policy behind a socket, as the page shows it: what it is told to do, how its server answers, what it lacks."""

import math
import time
from typing import Any

STALE_S = 5.0
LONGEST_INSTRUCTION = 200
"""Characters of an instruction that a page may send."""


class ModelWatch:
    """Remembers what `policy/chunks` says, while it is said."""

    def __init__(self) -> None:
        self._status: Any = None
        self._heard_s = -math.inf

    def hear(self, message: Any) -> None:
        """Take a ChunkStatus."""
        self._status, self._heard_s = message, time.monotonic()

    def said(self, now: float) -> dict[str, Any] | None:
        """Return the instruction, a line about the server, and whether that is bad; None where no model acts."""
        status = self._status
        if status is None or now - self._heard_s > STALE_S:
            return None
        if status.trouble:
            line = f'{status.server}: {status.trouble}'
        elif not status.chunk:
            line = f'{status.server}: no chunk yet'
        else:
            line = (
                f'{status.server} ({status.encoding}): answers after {_ms(status.latency_p50)}, 95 % within '
                f'{_ms(status.latency_p95)}; {_share(status.late_share)} late, {_share(status.cut_share)} of the '
                f'actions cut short; {status.left} targets left of chunk {status.chunk}'
            )
        return {'instruction': status.instruction, 'said': line, 'bad': bool(status.trouble)}


def instruction_of(message: Any) -> str:
    """Return the instruction in a page's message, in one line.

    Raises:
        ValueError: it is none.
    """
    text = message.get('text')
    if not isinstance(text, str) or not text.strip() or len(text) > LONGEST_INSTRUCTION:
        raise ValueError(
            f'expected an instruction of 1 to {LONGEST_INSTRUCTION} characters, got {text!r:.60}; it stays as it was'
        )
    return ' '.join(text.split())


def _ms(seconds: float) -> str:
    return f'{1e3 * seconds:.0f} ms' if math.isfinite(seconds) else '- ms'


def _share(value: float) -> str:
    return f'{value:.0%}' if math.isfinite(value) else '-'
