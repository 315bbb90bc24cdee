# SPDX-License-Identifier: Apache-2.0
"""Faults of the wire of the virtual arm, at random with a seed or on demand, changed while it runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from enum import Enum
import random
import threading


class Fault(Enum):
    """What can happen to one answer."""

    DROP = 'drop'
    CORRUPT = 'corrupt'
    TRUNCATE = 'truncate'
    DELAY = 'delay'
    NOISE = 'noise'


@dataclass(frozen=True)
class FaultRates:
    """Probabilities of faults, 0..1 each.

    Attributes:
        drop: an answer does not come.
        corrupt: one byte of an answer is another one.
        truncate: an answer misses its end.
        delay: an answer comes `delay_s` late, behind all others.
        noise: random bytes come before an answer.
        deaf: a request reaches no servo.
        delay_s: how late a delayed answer comes [s].
    """

    drop: float = 0.0
    corrupt: float = 0.0
    truncate: float = 0.0
    delay: float = 0.0
    noise: float = 0.0
    deaf: float = 0.0
    delay_s: float = 0.02

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            upper = 1.0 if field.name != 'delay_s' else 60.0
            if not 0.0 <= value <= upper:
                raise ValueError(f'{field.name} must lie in 0..{upper:g}, got {value}.')
        total = sum(getattr(self, fault.value) for fault in Fault)
        if total > 1.0 + 1e-9:
            raise ValueError(
                f'An answer suffers one fault at most, so their rates add up to 1; got {total:g}.'
            )

    @classmethod
    def bad_packets(cls, share: float) -> FaultRates:
        """`share` of all answers are dropped, corrupted or truncated, a third each."""
        return cls(drop=share / 3.0, corrupt=share / 3.0, truncate=share / 3.0)


@dataclass(frozen=True)
class Delivery:
    """Bytes to put on the wire.

    Attributes:
        data: the bytes.
        delay_s: how much later than they are due [s].
    """

    data: bytes
    delay_s: float = 0.0


class FaultInjector:
    """Decides what happens to each answer and request. All methods may be called from any thread.

    Args:
        seed: of the random choices.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._rates = FaultRates()
        self._muted: frozenset[int] = frozenset()
        self._queued: deque[tuple[Fault, int | None, float]] = deque()

    @property
    def rates(self) -> FaultRates:
        """Probabilities in force."""
        return self._rates

    def set_rates(self, rates: FaultRates | None = None, **changes: float) -> None:
        """Set all probabilities, or change some by name."""
        with self._lock:
            self._rates = replace(rates or self._rates, **changes)

    def mute(self, ids: Iterable[int]) -> None:
        """Exactly these servos give no answers and hear no requests, as with a loose cable."""
        with self._lock:
            self._muted = frozenset(ids)

    def is_muted(self, servo_id: int) -> bool:
        """Whether a servo is cut off."""
        return servo_id in self._muted

    def inject(
        self, fault: Fault | str, *, servo_id: int | None = None, count: int = 1, delay_s: float = 0.02
    ) -> None:
        """The next `count` answers suffer this fault.

        Args:
            fault: what happens.
            servo_id: only answers of this servo; of any by default.
            count: how many.
            delay_s: lateness for DELAY [s].
        """
        with self._lock:
            self._queued.extend([(Fault(fault), servo_id, delay_s)] * count)

    def clear(self) -> None:
        """Back to a perfect wire."""
        with self._lock:
            self._rates = FaultRates()
            self._muted = frozenset()
            self._queued.clear()

    def request_is_lost(self) -> bool:
        """Whether the servos do not hear the request that just came."""
        with self._lock:
            return self._rates.deaf > 0.0 and self._random.random() < self._rates.deaf

    def answer(self, servo_id: int, data: bytes) -> list[Delivery]:
        """What becomes of an answer."""
        with self._lock:
            fault, delay_s = self._choose(servo_id)
            if fault is None:
                return [Delivery(data)]
            return self._apply(fault, data, delay_s)

    def _choose(self, servo_id: int) -> tuple[Fault | None, float]:
        for index, (fault, wanted, delay_s) in enumerate(self._queued):
            if wanted is None or wanted == servo_id:
                del self._queued[index]
                return fault, delay_s
        rates = self._rates
        draw = self._random.random() if rates != FaultRates() else 1.0
        for fault in Fault:
            draw -= getattr(rates, fault.value)
            if draw < 0.0:
                return fault, rates.delay_s
        return None, 0.0

    def _apply(self, fault: Fault, data: bytes, delay_s: float) -> list[Delivery]:
        pick = self._random
        if fault is Fault.DROP:
            return []
        if fault is Fault.DELAY:
            return [Delivery(data, delay_s)]
        if fault is Fault.TRUNCATE:
            return [Delivery(data[: pick.randrange(1, len(data))])]
        if fault is Fault.NOISE:
            return [Delivery(pick.randbytes(pick.randint(1, 8)) + data)]
        place = pick.randrange(len(data))
        damaged = bytearray(data)
        damaged[place] ^= pick.randint(1, 255)
        return [Delivery(bytes(damaged))]
