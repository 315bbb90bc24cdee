# SPDX-License-Identifier: Apache-2.0
"""Times and retries of the servo bus, and the counts of what happened on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class BusConfig:
    """Times and retries of the bus.

    Attributes:
        min_timeout_s: shortest wait for the answers to one sync read, beyond their time on the wire [s].
        timeout_s: longest such wait [s]; in between, the wait follows what the line usually takes.
        retries: how often missing servos are asked again within one cycle.
        budget_s: no retry begins later than this after the begin of the cycle [s].
        single_timeout_s: wait for the answers to requests outside the control loop [s].
        single_retries: how often such a request is sent again.
        late_window_s: how late an answer can come [s]; older ones are told apart or waited out.
        reconnect_interval_s: `reconnect` tries at most this often [s].
    """

    min_timeout_s: float = 0.002
    timeout_s: float = 0.025
    retries: int = 4
    budget_s: float = 0.007
    single_timeout_s: float = 0.020
    single_retries: int = 5
    late_window_s: float = 0.05
    reconnect_interval_s: float = 0.25

    def __post_init__(self) -> None:
        for name in ('min_timeout_s', 'timeout_s', 'single_timeout_s'):
            if not 0.0 < getattr(self, name) <= 10.0:
                raise ValueError(f'{name} must lie in 0..10 s, got {getattr(self, name)}.')
        for name in ('retries', 'single_retries', 'budget_s', 'late_window_s', 'reconnect_interval_s'):
            if not getattr(self, name) >= 0:
                raise ValueError(f'{name} must not be negative, got {getattr(self, name)}.')
        if self.min_timeout_s > self.timeout_s:
            raise ValueError(
                f'min_timeout_s is at most {self.timeout_s} (timeout_s), got {self.min_timeout_s}.'
            )


@dataclass(slots=True)
class BusCounters:
    """Counts since the bus was made; they survive a reconnect.

    Attributes:
        cycles: reads of the whole arm.
        full_cycles: those in which every servo answered.
        sent: requests sent, retries included.
        received: good answers taken.
        lost: answers that were due and did not come.
        corrupt: answers that came damaged.
        late: whole answers thrown away since they belong to an earlier request.
        retried: requests sent again.
        reconnects: times that the port was opened again after it was lost.
    """

    cycles: int = 0
    full_cycles: int = 0
    sent: int = 0
    received: int = 0
    lost: int = 0
    corrupt: int = 0
    late: int = 0
    retried: int = 0
    reconnects: int = 0

    def snapshot(self) -> BusCounters:
        """A copy that later traffic does not change."""
        return replace(self)

    def as_dict(self) -> dict[str, int]:
        """Name -> count."""
        return asdict(self)
