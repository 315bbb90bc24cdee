# SPDX-License-Identifier: Apache-2.0
"""Damped least squares, followed to the nearest solution.

The iteration solves, from a start and without ever leaving the joint limits,

    minimise (q - posture)' H (q - posture)   subject to   task(q) = target,

where the task is the TCP position, and the approach pitch where one is asked for. Each step is the damped
pseudo-inverse of the task's Jacobian in the metric H, plus what moves towards the posture in its null space.
Joints that would pass a limit are put on it and the rest of the step is solved again for the others. The
damping follows the remaining error, so that it vanishes at a solution and holds the step back at a
singularity or out of reach.
"""

from dataclasses import dataclass
import math

import numpy as np
import numpy.typing as npt

from so101_kinematics.fk import Array, ForwardKinematics, NUM_ARM_JOINTS, PITCH_ROW

Mask = npt.NDArray[np.bool_]

CONVERGED_M = 1e-5
"""Task error below which a point counts as on the target [m]; fifty times finer than what callers ask for."""

SETTLED_RAD = 0.01
"""Motion along the solutions below which the posture counts as settled [rad]."""

PITCH_LEVER_M = 0.1
"""What a radian of pitch counts as in metres: the length of the gripper."""

MAX_STEP_RAD = 0.5
"""Largest motion of one joint in one step, about as far as the linearisation can be trusted [rad]."""

DAMPING_FLOOR = 1e-9
"""Damping that remains at a solution [m^2/rad^2], so that a singular system can be solved."""

SETTLED_COST = 1e-4
"""Gain of the preference below which a point on the target counts as the best one [rad^2]."""

METRIC_FLOOR = 1e-12
"""The same for a metric with weights up to a million [m^2/rad^2]."""

MAX_POSTURE_ERROR_M = 0.02
"""How far from the target a step towards the posture may lead before it counts as too long [m]."""

MIN_PULL = 0.05
"""Part of the way towards the posture below which a step gives the posture up."""

MIN_DAMPING, MAX_DAMPING = 0.01, 1e3
"""Bounds of the factor between squared error and damping [1/rad^2]."""

STALLED_RAD, STALLED_GAIN = 1e-4, 1e-3
"""A step this small [rad], or one that takes off less than this part of the squared error, and does not end
on the target: it cannot be reached from here."""


@dataclass(frozen=True)
class Target:
    """What the TCP must reach.

    Attributes:
        position: (3,) in the base frame [m].
        pitch: approach pitch below the horizontal [rad], or None where any will do.
    """

    position: Array
    pitch: float | None = None

    def pitch_error(self, q: Array) -> float:
        """Return by how much the pitch of (5,) joint positions is too small [rad], 0 where any will do."""
        return 0.0 if self.pitch is None else math.remainder(self.pitch - float(PITCH_ROW @ q), math.tau)


@dataclass(frozen=True)
class Preference:
    """What is best among all the joint vectors that reach a target.

    Attributes:
        weights: cost of each arm joint's distance from the posture.
        pitch_weight: cost of the distance from the preferred pitch.
    """

    weights: tuple[float, ...] = (1.0,) * NUM_ARM_JOINTS
    pitch_weight: float = 0.0

    def hessian(self) -> Array:
        """Return the metric H (5, 5)."""
        return np.diag(self.weights) + self.pitch_weight * np.outer(PITCH_ROW, PITCH_ROW)


@dataclass(frozen=True, slots=True)
class _Point:
    """Joint positions and what is left of the task there.

    Attributes:
        q: (5,) joint positions [rad].
        error: (m,) what is left of the task [m]: three rows, or four with the pitch.
        J: (m, 5) its Jacobian.
        squared: square of the error [m^2].
        on_target: whether that is close enough.
    """

    q: Array
    error: Array
    J: Array
    squared: float
    on_target: bool


class _Search:
    """A descent under way: where it is, how bold its next step may be, and the best point on the target so far."""

    def __init__(self, start: _Point, pull: float) -> None:
        self.here = start
        self.pull = pull
        """Part of the way towards the posture that a step takes on top of the task's own."""
        self.damping = 1.0
        """Factor between squared error and damping [1/rad^2]."""
        self.best = start.q
        self.best_cost = math.inf
        self._last_step = np.zeros(NUM_ARM_JOINTS)

    def turn(self, step: Array) -> None:
        """Weaken the pull where steps go to and fro: the way to the posture bends too much for it."""
        if float(step @ self._last_step) < 0.0:
            self.pull = _less(self.pull)
        self._last_step = step

    def gains(self, trial: _Point) -> bool:
        """Whether a point takes off a part of the squared error that is worth a step."""
        return self.here.squared - trial.squared >= STALLED_GAIN * self.here.squared

    def refuses(self, trial: _Point, size: float) -> bool:
        """Whether the step to a point was too long, `size` being its largest motion [rad].

        Moving towards the posture costs some error, which the next step takes back; beyond that, a step must gain:
        one that does not may have been too long, as beyond a valley lies as much error again.
        """
        if trial.squared > self.here.squared + (self.pull * MAX_POSTURE_ERROR_M) ** 2:
            return True
        can_be_shorter = self.pull == 0.0 and size >= STALLED_RAD and self.damping <= MAX_DAMPING
        return can_be_shorter and not (self.gains(trial) or trial.on_target)

    @property
    def is_exhausted(self) -> bool:
        """Whether no shorter step is left to try."""
        return self.pull == 0.0 and self.damping > MAX_DAMPING

    def shorten(self) -> None:
        """Make the next step from here shorter; without its pull it starts over with the damping."""
        gives_up = self.pull > 0.0 and _less(self.pull) == 0.0
        self.pull, self.damping = _less(self.pull), 1.0 if gives_up else 4.0 * self.damping

    def move(self, trial: _Point) -> None:
        """Go on from a point, more boldly."""
        self.here = trial
        self.damping = max(0.3 * self.damping, MIN_DAMPING)

    def improve(self, cost: float) -> float:
        """Keep where the search is if that is preferred to the best so far; return by how much [rad^2]."""
        gain = self.best_cost - cost
        if gain > 0.0:
            self.best, self.best_cost = self.here.q, cost
        return gain


class Descent:
    """The iteration, for one arm, one set of joints that may move and one preference."""

    def __init__(self, fk: ForwardKinematics, free: Mask, preference: Preference) -> None:
        """Prepare; `free` (5,) says which joints may move."""
        self._fk = fk
        self._free = free.copy()
        self._hessian = preference.hessian()
        self._uniform = preference == Preference()
        self._inverses: dict[bytes, Array] = {}

    def run(
        self, target: Target, start: Array, posture: Array | None, max_iterations: int
    ) -> tuple[Array, int]:
        """Follow the damped step to the nearest solution, or to the nearest point if there is none.

        Args:
            target: what to reach.
            start: (5,) joint positions within limits [rad].
            posture: (5,) joint positions to end up close to [rad]; their sum of lift, elbow and wrist is the
                preferred pitch. None goes the shortest way: surer to arrive, anywhere.
            max_iterations: number of steps at most.

        Returns:
            (5,) joint positions within limits, and the number of steps taken.
        """
        wanted = start if posture is None else posture
        search = _Search(self._point(target, start), pull=0.0 if posture is None else 1.0)
        if search.here.on_target:
            search.best_cost = self._cost(start, wanted)
        for iteration in range(1, max_iterations + 1):
            if search.here.on_target and search.pull == 0.0:
                return search.best, iteration - 1
            step = self._step(search, wanted)
            size = max(map(abs, step.tolist()))
            if search.here.on_target and size < SETTLED_RAD:
                return search.best, iteration
            search.turn(step)
            trial = self._point(target, self._trial(search.here.q, step, size))
            if search.refuses(trial, size):
                if search.is_exhausted:
                    break
                search.shorten()
                continue
            stalled = size < STALLED_RAD or not search.gains(trial)
            search.move(trial)
            if trial.on_target:
                if search.improve(self._cost(trial.q, wanted)) < SETTLED_COST:
                    return search.best, iteration  # at a corner of the limits the posture is never reached
            elif stalled and search.pull == 0.0:
                break
            elif size < STALLED_RAD:
                search.pull = 0.0  # out of reach: come as close as possible, whatever the posture
        return (search.best if math.isfinite(search.best_cost) else search.here.q), iteration

    def _trial(self, q: Array, step: Array, size: float) -> Array:
        """Return where a step (5,) leads, no joint further than it may go in one step and within limits."""
        if size > MAX_STEP_RAD:
            step = step * (MAX_STEP_RAD / size)
        return np.minimum(np.maximum(q + step, self._fk.lower), self._fk.upper)

    def _cost(self, q: Array, posture: Array) -> float:
        away = posture - q
        return float(away @ self._hessian @ away)

    def _point(self, target: Target, q: Array) -> '_Point':
        """Return joint positions (5,) [rad] with what is left of the task there."""
        position, J = self._fk.evaluate(q)
        if target.pitch is None:
            error = target.position - position
        else:
            error = np.empty(4)
            error[:3] = target.position - position
            error[3] = PITCH_LEVER_M * target.pitch_error(q)
            J = np.concatenate((J, PITCH_LEVER_M * PITCH_ROW[None]))
        squared = float(error @ error)
        return _Point(q, error, J, squared, squared < CONVERGED_M**2)

    def _step(self, search: '_Search', wanted: Array) -> Array:
        """Return the damped step (5,) [rad] from where the search is that keeps every joint within its limits.

        Joints that would pass a limit are put on it, one after the other, and the rest of the step is solved again
        for those that still move.
        """
        q, error, J = search.here.q, search.here.error, search.here.J
        damping = search.damping * search.here.squared + DAMPING_FLOOR
        wish = search.pull * (self._hessian @ (wanted - q))  # the posture's pull, as a gradient
        moving = self._free
        stopped: Array | None = None
        rest_error, rest_wish = error, wish
        while True:
            step = self._unbounded_step(rest_error, J, damping, rest_wish, moving)
            if stopped is not None:
                step += stopped
            reached = q + step
            bounded = np.minimum(np.maximum(reached, self._fk.lower), self._fk.upper)
            beyond = np.flatnonzero((bounded != reached) & moving)
            if not len(beyond):
                return step
            # One at a time, the first to arrive: the others may not have to go that far once it stands still.
            room = (bounded - q)[beyond]
            first = beyond[np.argmin(np.abs(room / step[beyond]))]
            stopped = np.zeros(NUM_ARM_JOINTS) if stopped is None else stopped
            stopped[first] = bounded[first] - q[first]
            moving = moving.copy()
            moving[first] = False
            rest_error = error - J @ stopped
            rest_wish = wish - self._hessian @ stopped

    def _unbounded_step(self, error: Array, J: Array, damping: float, wish: Array, moving: Mask) -> Array:
        """Return the damped step (5,) [rad] of the joints that move, whatever their limits.

        Args:
            error: (m,) task error.
            J: (m, 5) Jacobian of the task.
            damping: added to the diagonal of J H^-1 J'.
            wish: (5,) the posture's pull, as a gradient: H (posture - q).
            moving: (5,) joints that move.
        """
        inverse = self._inverse(moving)
        free_step = inverse @ wish
        M = inverse @ J.T
        if self._uniform:
            return free_step + M @ _solve(J @ M, damping, error - J @ free_step)
        # Damp in plain joint space, so that a heavy weight does not slow the task down, then realise exactly that
        # part of the task in the metric.
        plain = (J * moving) @ J.T
        part = plain @ _solve(plain.copy(), damping, error)
        return free_step + M @ _solve(J @ M, METRIC_FLOOR, part - J @ free_step)

    def _inverse(self, moving: Mask) -> Array:
        """Return the inverse (5, 5) of the metric on the joints that move, with zeros for the others."""
        key = moving.tobytes()
        if key not in self._inverses:
            indices = np.flatnonzero(moving)
            grid = np.ix_(indices, indices)
            inverse = np.zeros((NUM_ARM_JOINTS, NUM_ARM_JOINTS))
            inverse[grid] = np.linalg.inv(self._hessian[grid])
            self._inverses[key] = inverse
        return self._inverses[key]


def _less(pull: float) -> float:
    """Return half the pull towards the posture, or none once it is small."""
    return 0.5 * pull if pull > MIN_PULL else 0.0


def _solve(A: Array, damping: float, b: Array) -> Array:
    """Return (A + damping I)^-1 b; A is overwritten."""
    A.flat[:: len(A) + 1] += damping
    return np.linalg.solve(A, b).astype(np.float64, copy=False)
