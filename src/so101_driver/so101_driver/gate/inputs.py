# SPDX-License-Identifier: Apache-2.0
"""Tells for how long the joints have given nothing to believe."""

import math

import numpy as np
import numpy.typing as npt

from so101_contract.joints import JOINT_NAMES
from so101_driver.gate.config import GateConfig
from so101_driver.gate.types import ArmReading, NUM_JOINTS


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
