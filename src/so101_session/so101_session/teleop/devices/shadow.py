# SPDX-License-Identifier: Apache-2.0
"""The leader as the follower's shadow: where it is led, and whether a hand pulls it away."""

from collections import deque
import math

import numpy as np

from so101_session.teleop.devices.base import FloatArray

ALIGNED_RAD = 0.1
ALIGNED_FOR_S = 0.3
PATH_S = 0.8
"""A leader that lags is somewhere on the way that it was led in this time [s]; one that is pulled is not."""

ARM = slice(0, 5)


class Shadow:
    """Leads the leader to the follower: slowly until they agree, then as fast as the follower moves."""

    def __init__(self, align_speed_rad_s: float, speed_rad_s: float, pull_rad: float, pull_s: float) -> None:
        """Prepare.

        Args:
            align_speed_rad_s: of a joint, on the way to the follower.
            speed_rad_s: of a joint, once they agree.
            pull_rad: distance of a joint from where it was led that counts as pulled.
            pull_s: for how long.
        """
        self._align_speed, self._speed = align_speed_rad_s, speed_rad_s
        self._pull_rad, self._pull_s = pull_rad, pull_s
        self.begin()

    def begin(self) -> None:
        """Begin from where the leader is."""
        self.aligned = False
        self._goal: FloatArray | None = None
        self._path: deque[tuple[float, FloatArray]] = deque()
        self._near_s = self._pulled_s = math.inf
        self._now_s = -math.inf

    def goal(self, leader_rad: FloatArray, follower_rad: FloatArray, now: float) -> FloatArray:
        """Return where the leader is to go now (6,) [rad]."""
        if self._goal is None:
            self._goal, self._now_s = np.array(leader_rad), now
        largest = (self._speed if self.aligned else self._align_speed) * min(now - self._now_s, 0.1)
        self._goal = self._goal + np.clip(follower_rad - self._goal, -largest, largest)
        self._now_s = now
        self._path.append((now, self._goal))
        while self._path[0][0] < now - PATH_S:
            self._path.popleft()
        self._align(leader_rad, follower_rad, now)
        return self._goal

    def pulled(self, leader_rad: FloatArray, now: float) -> bool:
        """Return whether a hand holds the leader away from where it was led."""
        if not self.aligned or not self._path:
            self._pulled_s = math.inf
            return False
        off = min(float(np.max(np.abs(leader_rad - goal)[ARM])) for _, goal in self._path)
        if off <= self._pull_rad:
            self._pulled_s = math.inf
            return False
        self._pulled_s = min(self._pulled_s, now)
        return now - self._pulled_s >= self._pull_s

    def _align(self, leader_rad: FloatArray, follower_rad: FloatArray, now: float) -> None:
        if self.aligned:
            return
        if float(np.max(np.abs(leader_rad - follower_rad)[ARM])) > ALIGNED_RAD:
            self._near_s = math.inf
            return
        self._near_s = min(self._near_s, now)
        self.aligned = now - self._near_s >= ALIGNED_FOR_S
