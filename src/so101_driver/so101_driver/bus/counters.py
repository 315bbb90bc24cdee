# SPDX-License-Identifier: Apache-2.0
"""Counts of what happened on the bus, for diagnostics."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace


@dataclass(slots=True)
class BusCounters:
    """Counts since the bus was made; they survive a reconnect.

    Attributes:
        cycles: cyclic reads.
        full_cycles: cyclic reads in which every servo answered.
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

    @property
    def loss_ratio(self) -> float:
        """Share of the due answers that did not come whole, 0..1."""
        due = self.received + self.lost + self.corrupt
        return (self.lost + self.corrupt) / due if due else 0.0

    def snapshot(self) -> BusCounters:
        """A copy that later traffic does not change."""
        return replace(self)

    def as_dict(self) -> dict[str, int]:
        """Name -> count."""
        return asdict(self)
