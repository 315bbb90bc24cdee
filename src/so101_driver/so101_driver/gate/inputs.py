# SPDX-License-Identifier: Apache-2.0
"""What the safety gate takes in (readings, commands, time), each checked once, on arrival; and its torque switch."""

from collections.abc import Sequence
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from so101_contract.joints import JOINT_NAMES
from so101_contract.messages import order_by_name
from so101_driver.calibration.calibration import ArmReading
from so101_driver.gate.config import GateConfig
from so101_driver.gate.types import GateCounters, NUM_JOINTS, Reply, Vector


class ReadingWatch:
    """Keeps the newest reading and the time at which each joint last gave a believable one.

    A position is believable when it is finite and not farther outside its limits than any calibration error
    explains; else it is treated like no answer at all.
    """

    def __init__(self, config: GateConfig, servo_ids: tuple[int, ...]) -> None:
        self._max_age_s = config.reading_max_age_s
        self._lower = np.array(config.joint_lower_rad) - config.max_outside_rad
        self._upper = np.array(config.joint_upper_rad) + config.max_outside_rad
        self._ids = servo_ids
        self._last_good = np.full(NUM_JOINTS, -math.inf)
        self.reading = ArmReading.nothing()
        self.silent_s = math.inf

    @property
    def fresh(self) -> bool:
        """Whether every joint has a believable and recent position."""
        return self.silent_s <= self._max_age_s

    def take(self, now: float, reading: ArmReading) -> None:
        """Take a reading in.

        Args:
            now: monotonic time [s]; where it is not finite the reading does not count as fresh.
            reading: the joints, with ages relative to `now`.
        """
        self.reading = reading
        stale = math.nextafter(self._max_age_s, math.inf)
        if not math.isfinite(now):
            self.silent_s = stale
            return
        self._last_good = np.minimum(self._last_good, now)  # the clock may have run backwards
        usable = self._believable() & np.isfinite(reading.age_s) & (reading.age_s >= 0.0)
        age = np.where(usable, reading.age_s, 0.0)
        self._last_good = np.where(usable, np.maximum(self._last_good, now - age), self._last_good)
        silent = np.where(usable, age, np.maximum(now - self._last_good, stale))
        self.silent_s = float(np.max(silent))

    def silent_joints(self) -> str:
        """Return the joints whose present reading is old or not believable, with their servos."""
        believable = self._believable()
        names = []
        for i, joint in enumerate(JOINT_NAMES):
            position = self.reading.position_rad[i]
            if not self.reading.age_s[i] <= self._max_age_s or not math.isfinite(position):
                names.append(f'{joint} (servo {self._ids[i]})')
            elif not believable[i]:
                names.append(f'{joint} (servo {self._ids[i]}, which reads an impossible {position:.2f} rad)')
        return ', '.join(names) or 'the arm'

    def _believable(self) -> npt.NDArray[np.bool_]:
        position = self.reading.position_rad
        inside: npt.NDArray[np.bool_] = (position >= self._lower) & (position <= self._upper)  # False for NaN
        return inside


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

    def __init__(self, config: GateConfig, counters: GateCounters) -> None:
        self._timeout_s = config.command_timeout_s
        self._lower, self._upper = np.array(config.joint_lower_rad), np.array(config.joint_upper_rad)
        self._counters = counters
        self._positions: Vector | None = None
        self._time = -math.inf

    def drop(self) -> None:
        """Forget the command."""
        self._positions = None

    def fresh(self, now: float) -> Vector | None:
        """Return the command (6,) [rad], finite but not yet clamped, if it may still be followed at this time [s]."""
        return self._positions if 0.0 <= now - self._time <= self._timeout_s else None

    def offer(
        self, now: float, stamp_age: float, names: Sequence[str], positions: npt.ArrayLike, closed: str = ''
    ) -> Reply:
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
            return Reply(False, f'command refused: {error}')
        if not (math.isfinite(now) and abs(stamp_age) <= self._timeout_s):
            self._counters.stale += 1
            return Reply(
                False,
                f'command refused: expected a stamp at most {self._timeout_s} s old, got {stamp_age:.3f} s; '
                'check the load of the machine and the clocks.',
            )
        if closed:
            self._counters.dropped += 1
            return Reply(False, f'command not followed: {closed}')
        far = (wanted < self._lower) | (wanted > self._upper)
        outside = [name for name, out in zip(JOINT_NAMES, far, strict=True) if out]
        self._counters.clamped += bool(outside)
        self._counters.commands += 1
        self._positions, self._time = wanted, now - max(stamp_age, 0.0)
        return Reply(True, f'clamped into the limits: {", ".join(outside)}' if outside else 'taken')


class Tick(NamedTuple):
    """One step of time.

    Attributes:
        dt: time to account for [s], 0 .. `max_tick_s`.
        late: more time had passed than may be accounted for.
        jumped: the time was not finite or ran backwards; ages from before cannot be told any longer.
    """

    dt: float
    late: bool = False
    jumped: bool = False


class TickClock:
    """Turns the times of ticks into bounded steps, so that a stalled loop never makes a goal jump."""

    def __init__(self, max_tick_s: float) -> None:
        self._max_tick_s = max_tick_s
        self.last: float | None = None

    def advance(self, now: float) -> Tick:
        """Take the time of a tick [s] in and return the step."""
        if not math.isfinite(now):
            return Tick(0.0, jumped=True)
        before, self.last = self.last, now
        if before is None:
            return Tick(0.0)
        if now < before:
            return Tick(0.0, jumped=True)
        return Tick(min(now - before, self._max_tick_s), late=now - before > self._max_tick_s)

    def since(self, now: float) -> float:
        """Return the time since the last tick [s], infinite where it cannot be told."""
        if self.last is None or not math.isfinite(now):
            return math.inf
        return max(now - self.last, 0.0)


class TorqueSwitch:
    """Whether torque is wanted. It starts off, and the first write says so."""

    def __init__(self, refresh_s: float) -> None:
        self.on = False
        self._refresh_s = refresh_s
        self._written: bool | None = None
        self._unwritten_s = math.inf

    def advance(self, dt: float) -> None:
        """Let time pass [s]."""
        self._unwritten_s += dt

    def to_write(self, *, always: bool, quiet: bool) -> bool:
        """Return whether the switch is to be written now, and take it as written.

        Args:
            always: repeat it in every tick.
            quiet: do not repeat a switch that is on: nothing is to be sent to servos that hold on their own.
        """
        repeat = always or self._unwritten_s >= self._refresh_s
        write = self.on != self._written or (repeat and not (quiet and self.on))
        if write:
            self._written, self._unwritten_s = self.on, 0.0
        return write
