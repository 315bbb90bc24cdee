# SPDX-License-Identifier: Apache-2.0
"""Checks joint commands and keeps the newest good one."""

from collections.abc import Callable, Sequence
import math

import numpy as np
import numpy.typing as npt

from so101_contract.joints import JOINT_NAMES, order_by_name
from so101_driver.gate.types import GateCounters, NUM_JOINTS, Vector, Verdict


class CommandError(ValueError):
    """A joint command cannot be followed; the message says why."""


def check_command(names: Sequence[str], positions: npt.ArrayLike) -> Vector:
    """Put a joint command into `JOINT_NAMES` order.

    Args:
        names: joint names as they came, in any order.
        positions: one position per name [rad].

    Returns:
        The (6,) positions [rad], finite, not yet clamped.

    Raises:
        CommandError: wrong length; unknown, repeated or missing joint; a value that is not finite.
    """
    try:
        values = np.asarray(positions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CommandError(f'expected {NUM_JOINTS} numbers [rad], got {positions!r}; send floats.') from error
    if values.shape != (len(names),):
        raise CommandError(
            f'expected one position per joint name, got {len(names)} names and positions of shape '
            f'{values.shape}; fill both lists.'
        )
    unknown = sorted(set(names) - set(JOINT_NAMES))
    if unknown:
        raise CommandError(
            f'expected the joints {", ".join(JOINT_NAMES)}, got {", ".join(unknown)}; '
            'send this arm only its own joints.'
        )
    try:
        ordered = order_by_name(names, values)
    except (KeyError, ValueError) as error:
        raise CommandError(str(error)) from error
    bad = [name for name, value in zip(JOINT_NAMES, ordered, strict=True) if not np.isfinite(value)]
    if bad:
        raise CommandError(
            f'expected finite positions in rad, got NaN or infinity for {", ".join(bad)}; '
            'look for the fault upstream.'
        )
    return ordered


class CommandSlot:
    """Holds one joint command with the time at which it was made."""

    def __init__(self, timeout_s: float, clamp: Callable[[Vector], Vector], counters: GateCounters) -> None:
        self._timeout_s = timeout_s
        self._clamp = clamp
        self._counters = counters
        self._positions: Vector | None = None
        self._time = -math.inf

    def drop(self) -> None:
        """Forget the command."""
        self._positions = None

    def fresh(self, now: float) -> Vector | None:
        """Return the command (6,) [rad] if it may still be followed at this time [s]."""
        return self._positions if 0.0 <= now - self._time <= self._timeout_s else None

    def offer(
        self, now: float, stamp_age: float, names: Sequence[str], positions: npt.ArrayLike, closed: str = ''
    ) -> Verdict:
        """Take a command if it is good; see `SafetyGate.command`.

        Args:
            now: monotonic time [s].
            stamp_age: age of the command on arrival [s].
            names: joint names.
            positions: wanted joint positions [rad].
            closed: why no command is followed at the moment, or an empty string.
        """
        try:
            wanted = check_command(names, positions)
        except CommandError as error:
            self._counters.refused += 1
            return Verdict(False, f'command refused: {error}')
        if not (math.isfinite(now) and abs(stamp_age) <= self._timeout_s):
            self._counters.stale += 1
            return Verdict(
                False,
                f'command refused: expected a stamp at most {self._timeout_s} s old, got {stamp_age:.3f} s; '
                'check the load of the machine and the clocks.',
            )
        if closed:
            self._counters.dropped += 1
            return Verdict(False, f'command not followed: {closed}')
        clamped = self._clamp(wanted)
        outside = [name for name, a, b in zip(JOINT_NAMES, clamped, wanted, strict=True) if a != b]
        self._counters.clamped += bool(outside)
        self._counters.commands += 1
        self._positions, self._time = clamped, now - max(stamp_age, 0.0)
        return Verdict(True, f'clamped into the limits: {", ".join(outside)}' if outside else 'taken')
