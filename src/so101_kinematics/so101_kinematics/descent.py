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
        lower, upper = self._fk.lower, self._fk.upper
        q, wanted = start, start if posture is None else posture
        error, J, squared = self._task(target, q)
        damping, pull = 1.0, 0.0 if posture is None else 1.0
        on_target = squared < CONVERGED_M**2
        best, best_cost = q, self._cost(q, wanted) if on_target else math.inf
        last_step = np.zeros(NUM_ARM_JOINTS)
        for iteration in range(1, max_iterations + 1):
            if on_target and pull == 0.0:
                return best, iteration - 1
            wish = pull * (self._hessian @ (wanted - q))
            step = self._step(q, error, J, damping * squared + DAMPING_FLOOR, wish)
            size = max(map(abs, step.tolist()))
            if on_target and size < SETTLED_RAD:
                return best, iteration
            if float(step @ last_step) < 0.0:  # to and fro: the way to the posture bends too much for it
                pull = _less(pull)
            last_step = step
            if size > MAX_STEP_RAD:
                step = step * (MAX_STEP_RAD / size)
            trial = np.minimum(np.maximum(q + step, lower), upper)
            trial_error, trial_J, trial_squared = self._task(target, trial)
            arrives = trial_squared < CONVERGED_M**2
            gains = squared - trial_squared >= STALLED_GAIN * squared
            # Moving towards the posture costs some error, which the next step takes back; beyond that, a step
            # must gain: one that does not may have been too long, as beyond a valley lies as much error again.
            misses = trial_squared > squared + (pull * MAX_POSTURE_ERROR_M) ** 2
            shorter = pull == 0.0 and size >= STALLED_RAD and damping <= MAX_DAMPING
            if misses or (shorter and not (gains or arrives)):
                if pull == 0.0 and damping > MAX_DAMPING:
                    break
                gives_up = pull > 0.0 and _less(pull) == 0.0
                pull, damping = _less(pull), 1.0 if gives_up else 4.0 * damping
                continue
            stalled = size < STALLED_RAD or not gains
            q, error, J, squared = trial, trial_error, trial_J, trial_squared
            damping = max(0.3 * damping, MIN_DAMPING)
            on_target = arrives
            if on_target:
                cost = self._cost(q, wanted)
                gain = best_cost - cost
                if gain > 0.0:
                    best, best_cost = q, cost
                if gain < SETTLED_COST:  # at a corner of the limits the posture is never reached
                    return best, iteration
            elif stalled and pull == 0.0:
                break
            elif size < STALLED_RAD:
                pull = 0.0  # out of reach: come as close as possible, whatever the posture
        return (best if math.isfinite(best_cost) else q), iteration

    def _cost(self, q: Array, posture: Array) -> float:
        away = posture - q
        return float(away @ self._hessian @ away)

    def _task(self, target: Target, q: Array) -> tuple[Array, Array, float]:
        """Return the error that is left [m] (3 rows, or 4 with the pitch), its Jacobian, and its square."""
        position, J = self._fk.evaluate(q)
        if target.pitch is None:
            error = target.position - position
            return error, J, float(error @ error)
        error = np.empty(4)
        error[:3] = target.position - position
        error[3] = PITCH_LEVER_M * target.pitch_error(q)
        return error, np.concatenate((J, PITCH_LEVER_M * PITCH_ROW[None])), float(error @ error)

    def _step(self, q: Array, error: Array, J: Array, damping: float, wish: Array) -> Array:
        """Return the damped step (5,) [rad] that keeps every joint within its limits.

        Args:
            q: (5,) joint positions [rad].
            error: (m,) task error.
            J: (m, 5) Jacobian of the task.
            damping: added to the diagonal of J H^-1 J'.
            wish: (5,) the posture's pull, as a gradient: H (posture - q).
        """
        moving = self._free
        stopped: Array | None = None
        rest_error, rest_wish = error, wish
        while True:
            inverse = self._inverse(moving)
            free_step = inverse @ rest_wish
            M = inverse @ J.T
            if self._uniform:
                step = free_step + M @ _solve(J @ M, damping, rest_error - J @ free_step)
            else:
                # Damp in plain joint space, so that a heavy weight does not slow the task down, then realise
                # exactly that part of the task in the metric.
                plain = (J * moving) @ J.T
                part = plain @ _solve(plain.copy(), damping, rest_error)
                step = free_step + M @ _solve(J @ M, METRIC_FLOOR, part - J @ free_step)
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
