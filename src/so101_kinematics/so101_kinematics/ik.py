# SPDX-License-Identifier: Apache-2.0
"""Inverse kinematics: which joint positions bring the TCP where it should be.

A target is a position, a position with an approach pitch, or a full pose, of which five joints reach the
position and come as close to the orientation as they can. The result never leaves the joint limits, never
moves a locked joint, stays as close to a posture as the target allows, and is the same whenever the question
is the same.

The closed form answers plain questions, with the solution closest to the seed. Damped least squares answers
the others, with locked joints, a posture or a preference, and finds the closest point to a target out of
reach. It starts next to the seed, so that following a moving target is continuous, then from the closed form
or, where locked joints rule that out, from samples.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
import math

import numpy as np
import numpy.typing as npt

from so101_contract.joints import ARM_JOINTS, JOINT_NAMES
from so101_kinematics.closed_form import ArmGeometry
from so101_kinematics.descent import Descent, Mask, PITCH_LEVER_M, Preference, Target
from so101_kinematics.errors import IkError
from so101_kinematics.fk import Array, ForwardKinematics, NUM_ARM_JOINTS, NUM_JOINTS
from so101_kinematics.orientation import angle_between, pitch_and_roll, pose_starts
from so101_kinematics.starts import closed_form_starts, sampled_starts

__all__ = ['PITCH_FIRST', 'IkOptions', 'IkResult', 'InverseKinematics']

NEAR_M = 0.05
"""Targets closer to the seed's TCP than this are looked for next to the seed first [m]."""

NEAR_JOINTS_RAD = 0.5
"""A solution for such a target further from the seed than this may be one that jumps [rad]."""

NEAR_PITCH_RAD = 0.3
"""The same for the pitch [rad]."""

SAME_SCORE_M = 1e-4
"""A start further from the seed must come this much closer to a target out of reach to be preferred [m]."""

LIMIT_TOLERANCE_RAD = 1e-6
"""How far beyond its limit a locked joint may stand [rad]: what rounding does."""

MAX_DESCENTS = 64
"""Combinations of locked joints and preference that are kept ready: more than the 32 of one preference."""

PLAIN = Preference()
"""All joints alike."""

PITCH_FIRST = Preference(weights=(1.0, 1.0, 1.0, 1.0, 1e3), pitch_weight=1e3)
"""Preference that holds the pitch and the roll rather than the joints one by one."""

ROTATION_TOLERANCE = 1e-3
"""How far a rotation matrix may be from orthonormal, element by element."""


@dataclass(frozen=True)
class IkOptions:
    """When a solution counts, and how long it is looked for.

    Attributes:
        position_tolerance: largest distance from the target position [m].
        pitch_tolerance: largest distance from the target pitch [rad].
        orientation_tolerance: largest angle to the target orientation [rad].
        max_iterations: steps of one descent.
        restarts: further descents, from samples, when the first ones fail; 0 looks next to the seed only, so
            that the arm never changes its configuration (a rotation takes the closest exact solution still).
    """

    position_tolerance: float = 5e-4
    pitch_tolerance: float = 5e-3
    orientation_tolerance: float = 2e-2
    max_iterations: int = 40
    restarts: int = 24

    def __post_init__(self) -> None:
        """Check the numbers."""
        tolerances = (self.position_tolerance, self.pitch_tolerance, self.orientation_tolerance)
        if not all(t > 0.0 for t in tolerances) or self.max_iterations < 1 or self.restarts < 0:
            raise IkError(
                f'expected positive tolerances and iterations, and restarts >= 0, got {self}; correct them'
            )


@dataclass(frozen=True)
class IkResult:
    """What was found.

    Attributes:
        success: everything that was asked for is within its tolerance.
        q: joint positions [rad], as many as the seed had, within limits; the closest point found where
            success is False.
        position_error: distance from the target position [m].
        pitch_error: distance from the target pitch [rad]; 0 where none was asked for.
        orientation_error: angle to the target orientation [rad]; 0 where none was asked for.
        iterations: steps taken, over all starts.
    """

    success: bool
    q: Array
    position_error: float
    pitch_error: float
    orientation_error: float
    iterations: int


class InverseKinematics:
    """Inverse kinematics of one arm with one TCP; each thread needs its own, as of `ForwardKinematics`."""

    def __init__(self, fk: ForwardKinematics | None = None, options: IkOptions | None = None) -> None:
        """Prepare; by default for the TCP preset so101."""
        self.fk = ForwardKinematics() if fk is None else fk
        self.options = IkOptions() if options is None else options
        self.geometry = ArmGeometry.from_fk(self.fk)
        self._rotation_at_zero = self.fk.pose(np.zeros(NUM_ARM_JOINTS)).rotation
        self._descents: dict[tuple[bytes, Preference], Descent] = {}

    def solve(
        self,
        position: npt.ArrayLike,
        seed: npt.ArrayLike,
        *,
        pitch: float | None = None,
        rotation: npt.ArrayLike | None = None,
        posture: npt.ArrayLike | None = None,
        preference: Preference | None = None,
        locked: Iterable[str] = (),
    ) -> IkResult:
        """Find joint positions that reach a target.

        Args:
            position: (3,) TCP position in the base frame [m].
            seed: (5,) or (6,) joint positions to start from [rad], usually the measured ones. Those outside
                the limits are brought onto them.
            pitch: approach pitch below the horizontal [rad], whole turns do not matter; any without it.
            rotation: (3, 3) orientation of the TCP in the base frame, instead of a pitch. The position comes
                first, the orientation as close to it as five joints can.
            posture: (5,) or (6,) joint positions to stay close to [rad]; the seed without it.
            preference: what "close" means; all joints alike without it.
            locked: names of joints that keep the seed's value.

        Raises:
            IkError: a value is not finite, has the wrong shape, or names no joint of this arm; or a locked
                joint stands outside its limits.
        """
        goal = finite_array('position', position, (3,))
        whole_seed = joint_vector('seed', seed)
        free = self._free(locked)
        start = self._within_limits(whole_seed[:NUM_ARM_JOINTS], free)
        wish = start
        if posture is not None:
            wished = joint_vector('posture', posture)[:NUM_ARM_JOINTS]
            wish = self._within_limits(np.where(free, wished, start), free)
        if rotation is not None:
            if pitch is not None:
                raise IkError('expected a pitch or a rotation, got both; leave one out')
            found = self._solve_pose(goal, rotation_matrix(rotation), start, wish, free)
        else:
            angle = None if pitch is None else float(finite_array('pitch', pitch, ()))
            found = self._solve(Target(goal, angle), start, wish, free, preference or PLAIN)
        whole = whole_seed.copy()
        whole[:NUM_ARM_JOINTS] = found.q
        return IkResult(
            found.success,
            whole,
            found.position_error,
            found.pitch_error,
            found.orientation_error,
            found.iterations,
        )

    def _solve(
        self, target: Target, seed: Array, posture: Array, free: Mask, preference: Preference
    ) -> IkResult:
        """Descend from one start after the other until one ends on the target."""
        in_closed_form = bool(self.options.restarts) and bool(free[:4].all())
        near = self._is_near(target, seed)
        if in_closed_form and posture is seed and preference is PLAIN:
            # Nothing but the distance to the seed counts: the closed form answers at once.
            quick = next(closed_form_starts(self.geometry, target, seed, free), None)
            if quick is not None and (not near or self._is_next_to(quick, seed)):
                return self._judge(target, quick, 0)
        descent = self._descent(free, preference)
        best: IkResult | None = None
        best_score, iterations = math.inf, 0
        starts = self._starts(target, seed, free, near=near, in_closed_form=in_closed_form)
        for start, promising in starts:
            attempt = self._keeping_posture if promising else self._posture_last
            found, iterations = attempt(descent, target, start, posture, iterations)
            if found.success:
                return found
            score = found.position_error + PITCH_LEVER_M * found.pitch_error
            if score < best_score - SAME_SCORE_M:
                best, best_score = found, score
        assert best is not None  # the first start always beats an infinite score
        if target.pitch is None:
            return replace(best, iterations=iterations)
        return self._position_first(target, best, free, iterations)

    def _keeping_posture(
        self, descent: Descent, target: Target, start: Array, posture: Array, iterations: int
    ) -> tuple[IkResult, int]:
        """Head for the posture from a start, or go the shortest way where that does not arrive.

        Returns:
            What was found, and the number of steps with those taken before.
        """
        found, iterations = self._run(descent, target, start, posture, iterations)
        if found.success:
            return found, iterations
        # Next to a stretched arm the pull of the posture can keep it from arriving: go the shortest way.
        closer, iterations = self._run(descent, target, start, None, iterations)
        better = closer.success or closer.position_error < found.position_error
        return (closer if better else found), iterations

    def _posture_last(
        self, descent: Descent, target: Target, start: Array, posture: Array, iterations: int
    ) -> tuple[IkResult, int]:
        """Go the shortest way from a start, and head for the posture once on the target."""
        found, iterations = self._run(descent, target, start, None, iterations)
        if not found.success:
            return found, iterations
        closer, iterations = self._run(descent, target, found.q, posture, iterations)
        return (closer if closer.success else found), iterations

    def _position_first(self, target: Target, best: IkResult, free: Mask, iterations: int) -> IkResult:
        """Reach the position where the pitch cannot be had, then come as close to the pitch as that allows."""
        place, descent = Target(target.position), self._descent(free, PITCH_FIRST)
        q, taken = descent.run(place, best.q, None, self.options.max_iterations)
        wish = q.copy()
        wish[3] += target.pitch_error(q)
        q, refined = descent.run(place, q, wish, self.options.max_iterations)
        compromise = self._judge(target, q, iterations + taken + refined)
        if compromise.position_error < best.position_error:
            return compromise
        return replace(best, iterations=compromise.iterations)

    def _run(
        self, descent: Descent, target: Target, start: Array, posture: Array | None, iterations: int
    ) -> tuple[IkResult, int]:
        q, taken = descent.run(target, start, posture, self.options.max_iterations)
        return self._judge(target, q, iterations + taken), iterations + taken

    def _judge(self, target: Target, q: Array, iterations: int) -> IkResult:
        position_error = math.dist(self.fk.position(q), target.position)
        pitch_error = abs(target.pitch_error(q))
        success = (
            position_error <= self.options.position_tolerance and pitch_error <= self.options.pitch_tolerance
        )
        return IkResult(success, q, position_error, pitch_error, 0.0, iterations)

    def _is_near(self, target: Target, seed: Array) -> bool:
        if abs(target.pitch_error(seed)) >= NEAR_PITCH_RAD:
            return False
        return math.dist(self.fk.position(seed), target.position) < NEAR_M

    def _is_next_to(self, q: Array, seed: Array) -> bool:
        """Return whether a solution for a near target belongs to the seed, and was not reached by a jump."""
        return float(q[4]) == float(seed[4]) and math.dist(q, seed) < NEAR_JOINTS_RAD

    def _starts(
        self, target: Target, seed: Array, free: Mask, *, near: bool, in_closed_form: bool
    ) -> Iterator[tuple[Array, bool]]:
        """Yield starts, and whether to head for the posture from there at once; the most promising first."""
        if near or not in_closed_form:
            yield seed, True
        if not self.options.restarts:
            return
        if in_closed_form:
            for start in closed_form_starts(self.geometry, target, seed, free):
                yield start, True
        for start in sampled_starts(
            self.fk, self.geometry, target, seed, free=free, count=self.options.restarts
        ):
            yield start, False

    def _solve_pose(self, goal: Array, rotation: Array, seed: Array, posture: Array, free: Mask) -> IkResult:
        """Solve in closed form where five joints can take the orientation, else come as close as possible."""
        x, y, z = goal.tolist()
        exact: list[IkResult] = []
        if free[:4].all():
            for pitch, roll in pitch_and_roll(rotation, self._rotation_at_zero):
                if free[4] or abs(math.remainder(roll - float(seed[4]), math.tau)) < LIMIT_TOLERANCE_RAD:
                    for q in self.geometry.solve((x, y, z), pitch, roll):
                        exact.append(self._judge_pose(goal, rotation, np.array(q), 0))
        exact = [found for found in exact if found.success]
        if exact:
            return min(exact, key=lambda found: float(np.linalg.norm(found.q - posture)))
        best: IkResult | None = None
        iterations = 0
        for pitch, roll, start in pose_starts(
            self.geometry, goal, rotation, rotation_at_zero=self._rotation_at_zero, seed=seed, free=free
        ):
            wish = posture.copy()
            wish[4] = roll
            wish[3] = pitch - wish[1] - wish[2]
            found = self._solve(Target(goal), start, wish, free, PITCH_FIRST)
            iterations += found.iterations
            found = self._judge_pose(goal, rotation, found.q, iterations)
            if best is None or self._pose_rank(found) < self._pose_rank(best):
                best = found
        assert best is not None  # there is always a compromise
        return replace(best, iterations=iterations)

    def _pose_rank(self, result: IkResult) -> tuple[bool, float]:
        """Return what the better of two poses has less of: the position comes first."""
        missed = result.position_error > self.options.position_tolerance
        return missed, result.position_error if missed else result.orientation_error

    def _judge_pose(self, goal: Array, rotation: Array, q: Array, iterations: int) -> IkResult:
        pose = self.fk.pose(q)
        position_error = float(np.linalg.norm(pose.position - goal))
        orientation_error = angle_between(rotation, pose.rotation)
        success = (
            position_error <= self.options.position_tolerance
            and orientation_error <= self.options.orientation_tolerance
        )
        return IkResult(success, q, position_error, 0.0, orientation_error, iterations)

    def _descent(self, free: Mask, preference: Preference) -> Descent:
        """Return the iteration for these joints, which keeps what it has computed."""
        key = (free.tobytes(), preference)
        if key not in self._descents:
            if len(self._descents) >= MAX_DESCENTS:
                self._descents.clear()
            self._descents[key] = Descent(self.fk, free, preference)
        return self._descents[key]

    def _free(self, locked: Iterable[str]) -> Mask:
        """Return which of the arm's joints may move; the gripper never does."""
        names = (locked,) if isinstance(locked, str) else tuple(locked)
        unknown = [name for name in names if name not in JOINT_NAMES]
        if unknown:
            raise IkError(
                f'expected locked joints among {list(JOINT_NAMES)}, got {unknown}; correct the names'
            )
        return np.array([name not in names for name in ARM_JOINTS])

    def _within_limits(self, q: Array, free: Mask) -> Array:
        """Return the joints within their limits, and refuse locked ones that are not."""
        bounded = np.minimum(np.maximum(q, self.fk.lower), self.fk.upper)
        if free.all():
            return bounded
        for i in np.flatnonzero(~free & (np.abs(bounded - q) > LIMIT_TOLERANCE_RAD)):
            raise IkError(
                f'expected the locked joint {ARM_JOINTS[i]} within '
                f'[{self.fk.lower[i]:.4f}, {self.fk.upper[i]:.4f}] rad, got {q[i]:.4f}; '
                f'move it there first or do not lock it'
            )
        return bounded


def finite_array(name: str, values: npt.ArrayLike, *shapes: tuple[int, ...]) -> Array:
    """Return finite numbers of one of some shapes as a new array."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise IkError(f'expected {name} as numbers of shape {shapes[0]}, got {values!r}') from error
    if array.shape not in shapes or not all(map(math.isfinite, array.flat)):
        wanted = ' or '.join(map(str, shapes))
        raise IkError(
            f'expected {name} as finite numbers of shape {wanted}, got {array.tolist()}; '
            f'check where it comes from'
        )
    return array


def joint_vector(name: str, values: npt.ArrayLike) -> Array:
    """Return (5,) or (6,) joint positions [rad] as a new array."""
    return finite_array(name, values, (NUM_ARM_JOINTS,), (NUM_JOINTS,))


def rotation_matrix(values: npt.ArrayLike) -> Array:
    """Return a (3, 3) rotation matrix as a new array."""
    rotation = finite_array('rotation', values, (3, 3))
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > ROTATION_TOLERANCE or np.linalg.det(rotation) < 0.0:
        raise IkError(f'expected a rotation matrix, got {rotation.tolist()}; normalise it')
    return rotation
