# SPDX-License-Identifier: Apache-2.0
"""What driving was like, in numbers: what a human cannot do through this path, a policy cannot learn either."""

from collections import OrderedDict
from dataclasses import dataclass, field
import math
from typing import Any

import numpy as np

from so101_contract.action import AXES, EeDeltaValue
from so101_kinematics.fk import ForwardKinematics
from so101_session.teleop.devices.base import Axes, DeviceState
from so101_session.teleop.pilot import Say

MEMORY = 6000
OPEN_STEPS = 20
SETTLED_S = 0.5
"""The arm has finished a motion this long after its last action [s]."""

EXECUTED_TOLERANCE_M = 1e-9
GOOD_RATE = 0.9
GOOD_SHARE = 0.9
GOOD_LATENCY_S = 0.05
GOOD_TRACKING = (0.7, 1.3)
SHORTEST_M = 0.02
GOOD, BAD = 'good: what you can do through this path, a policy can', 'not good yet'


@dataclass
class TeleopReport:
    """Counts and times; feed it and ask for `lines`. Times are monotonic [s].

    Attributes:
        rate_hz: actions per second that are wanted while the human acts.
        tcp: of the motion that is measured.
    """

    rate_hz: float
    tcp: str = 'so101'
    actions: int = 0
    answers: int = 0
    accepted: int = 0
    changed: int = 0
    dead_s: float = 0.0
    acting_s: float = 0.0
    asked_m: float = 0.0
    moved_m: float = 0.0
    latency_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    clipped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(AXES, 0))
    _open: OrderedDict[tuple[int, int], tuple[float, EeDeltaValue]] = field(default_factory=OrderedDict)
    _tick_s: float = math.nan
    _said_s: float = -math.inf
    _acts: bool = False
    _fk: ForwardKinematics | None = None
    _begin: Any = None
    _asked: Any = None
    _last_joints: Any = None

    def said(self, say: Say, now: float) -> None:
        """Take note of an action."""
        if self._acts and self.actions and math.isfinite(self._said_s):
            _keep(self.gaps_s, now - self._said_s)
        self._said_s = now
        self.actions += 1
        for axis, cut in zip(AXES, say.value.clipped, strict=True):
            self.clipped[axis] += cut
        if not say.answers:
            return
        self.answers += 1
        self._open[say.episode, say.index] = (now, say.value)
        while len(self._open) > OPEN_STEPS:
            self._open.popitem(last=False)

    def executed(self, key: tuple[int, int], way: Axes, now: float) -> None:
        """Take note of what the session had executed for a step, in the name of the human."""
        if self._asked is not None:
            self._asked = self._asked + np.array(way)
        found = self._open.pop(key, None)
        if found is None:
            return
        said_s, value = found
        self.accepted += 1
        _keep(self.latency_s, now - said_s)
        self.changed += bool(np.max(np.abs(np.array(way) - value.translation)) > EXECUTED_TOLERANCE_M)

    def tick(self, state: DeviceState, joints_rad: Any, now: float) -> None:
        """Take note of the device and of the arm's joints (6,) [rad]; None while they are unknown."""
        dt = now - self._tick_s if math.isfinite(self._tick_s) else 0.0
        self._tick_s = now
        self._acts = state.alive and state.active
        self.acting_s += dt * self._acts
        self.dead_s += dt * (not state.alive)
        if not self._acts:
            self._said_s = -math.inf if now - self._said_s > SETTLED_S else self._said_s
        if joints_rad is not None:
            self._measure(joints_rad, now)

    def _measure(self, joints_rad: Any, now: float) -> None:
        """Compare the way that the TCP went with the one that was asked for, from rest to rest."""
        if self._acts and self._begin is None:
            self._begin, self._asked = self._position(joints_rad), np.zeros(3)
        elif not self._acts and self._begin is not None and self._said_s == -math.inf:
            asked = float(np.linalg.norm(self._asked))
            if asked >= SHORTEST_M:
                way = self._position(joints_rad) - self._begin
                self.asked_m += asked
                self.moved_m += float(way @ self._asked) / asked
            self._begin = None

    def _position(self, joints_rad: Any) -> Any:
        if self._fk is None:
            self._fk = ForwardKinematics(self.tcp)
        return self._fk.position(np.asarray(joints_rad)[:5])

    @property
    def said_hz(self) -> float:
        """Actions per second while the human acted; NaN before two."""
        return len(self.gaps_s) / sum(self.gaps_s) if self.gaps_s else math.nan

    def latency(self, share: float) -> float:
        """Return the time from saying to execution that this share stays below [s]; NaN without any."""
        return float(np.quantile(self.latency_s, share)) if self.latency_s else math.nan

    def problems(self) -> list[str]:
        """Say what would keep a policy from learning as well."""
        if not self.actions:
            return ['nobody drove: hold a key, a stick or the leader, and look again']
        found = []
        if not self.answers:
            found.append('no step came while you drove: does session_node run, and an episode?')
        if self.said_hz < GOOD_RATE * self.rate_hz:
            found.append(f'only {self.said_hz:.1f} actions per second; the machine or the line is too slow')
        if self.accepted < GOOD_SHARE * self.answers:
            found.append(
                f'{self.answers - self.accepted} of {self.answers} answers to steps were not executed; '
                'take over first, and look at session/status'
            )
        if self.latency(0.99) > GOOD_LATENCY_S:
            found.append(f'an action takes up to {1e3 * self.latency(0.99):.0f} ms to be executed')
        if self.asked_m and not GOOD_TRACKING[0] <= self.moved_m / self.asked_m <= GOOD_TRACKING[1]:
            found.append(
                f'the hand went {self.moved_m / self.asked_m:.0%} of the way that was asked for: '
                'the workspace ends there, the arm is blocked, or its calibration is off'
            )
        return found

    def lines(self) -> list[str]:
        """Return the report, a line for each fact and the verdict at the end."""
        total, answers = max(self.actions, 1), max(self.answers, 1)
        cut = ', '.join(f'{axis} {count / total:.0%}' for axis, count in self.clipped.items())
        way = f'{self.moved_m / self.asked_m:.0%} of {self.asked_m:.2f} m' if self.asked_m else 'not measured'
        problems = self.problems()
        return [
            f'actions        {self.actions} in {self.acting_s:.1f} s of driving, {self.said_hz:.1f} per second '
            f'(wanted {self.rate_hz:.0f})',
            f'executed       {self.accepted / answers:.0%} of {self.answers} answers to steps, '
            f'{self.changed / answers:.0%} changed by the session; {self.actions - self.answers} outside of episodes',
            f'latency        p50 {1e3 * self.latency(0.5):.1f}, p95 {1e3 * self.latency(0.95):.1f}, '
            f'p99 {1e3 * self.latency(0.99):.1f} ms from device to command',
            f'cut to scale   {cut}',
            f'way of the TCP {way} that was asked for',
            f'device dead    {self.dead_s:.1f} s',
            *(f'problem        {problem}' for problem in problems),
            'verdict        ' + (BAD if problems else GOOD),
        ]


def _keep(values: list[float], value: float) -> None:
    values.append(value)
    if len(values) > MEMORY:
        del values[: MEMORY // 2]
