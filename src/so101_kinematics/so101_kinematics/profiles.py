# SPDX-License-Identifier: Apache-2.0
"""The control laws of the end-effector controller: displacements of the TCP in, joint goals out.

`SetpointProfile` is the one for everything but policies of pick-101, and `Pick101Profile` the one that those were
trained with. `EeController` decides when a profile moves; a profile decides how.
"""

from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from so101_contract.joints import ARM_JOINTS
from so101_kinematics.config import Workspace
from so101_kinematics.descent import Preference
from so101_kinematics.fk import Array, ForwardKinematics, NUM_ARM_JOINTS
from so101_kinematics.ik import InverseKinematics

KEEP_GRIPPER = Preference(weights=(1.0, 1.0, 1.0, 1.0, 1e5), pitch_weight=1e3)
"""The pitch is kept rather than the joints, and the roll, which hardly helps to reach anything, above all."""

UNSEEN_RAD = 0.001
"""Sag smaller than this is left alone [rad]: just above half an encoder tick, so that the integral rests."""

REST_S = 0.2
"""How long the setpoint must have rested before sag is learned [s]: the arm has arrived by then."""

PICK101_DAMPING = 0.1
PICK101_GAIN = 0.5
PICK101_MAX_STEP_RAD = 0.5
"""The constants of pick-101's training environment: lambda [m/rad], share of the step, largest motion [rad]."""


class Clip(StrEnum):
    """Why less was done than was asked for."""

    DELTA = 'displacement too long'
    WORKSPACE = 'workspace'
    LEASH = 'leash'
    REACH = 'out of reach'
    JOINT_LEAD = 'joint lead'
    GRIPPER = 'gripper opening outside 0..1'


class Profile(Protocol):
    """A control law: displacements of the TCP in, joint goals out."""

    @property
    def setpoint(self) -> Array:
        """(3,) where the TCP is sent now, in the base frame [m]."""

    def reseed(self, q: Array, q_goal: Array | None, at_rest: bool, *, keep_posture: bool = False) -> None:
        """Start over from the measured joints.

        Args:
            q: (5,) measured joint positions [rad].
            q_goal: (5,) what the servos are told to hold now [rad], if that is known.
            at_rest: whether the arm stands still, so that the difference of the two is sag.
            keep_posture: pitch and roll stay those wanted before, since only the one who drives has changed.
        """

    def stop(self, q_goal: Array) -> None:
        """Give up what is left of the last displacement: stay at the joint goals (5,) [rad] that are commanded now."""

    def step(self, dt: float, q: Array, delta: Array | None, clipped: set[Clip]) -> Array:
        """Advance by one control period.

        Args:
            dt: time since the last step [s].
            q: (5,) measured joint positions [rad].
            delta: (3,) a displacement of the TCP that has not been executed yet [m], or None.
            clipped: why less is done than was asked for is added here.

        Returns:
            (5,) joint goals within limits [rad].
        """


class SetpointProfile:
    """A persistent Cartesian setpoint on a leash to the measured TCP.

    Because the setpoint persists, it does not sink with an arm that sags under gravity, and errors of single
    steps do not add up. Because of the leash, it cannot run away from an arm that is blocked, pushed or switched
    off.

    Servos that are springs leave the arm below its setpoint. While the setpoint rests, an integral per joint
    takes that sag out, within a limit; while it moves, what has been learned is kept. When control starts over
    with the arm at rest, what the servos were told beyond what they do is taken for sag at once: the first
    command after it repeats the last one before it, and the arm does not sink a second time.

    The gripper keeps its roll, and its pitch as far as the position allows.
    """

    def __init__(
        self,
        ik: InverseKinematics,
        *,
        workspace: Workspace,
        leash: float,
        interpolation: float,
        droop_gain: float,
        droop_limit: float,
        locked: tuple[str, ...] = (),
    ) -> None:
        """Prepare.

        Args:
            ik: solver that never changes the arm's configuration (no restarts).
            workspace: box that the setpoint stays in.
            leash: how far the setpoint may lead the measured TCP [m].
            interpolation: time that a displacement is spread over [s].
            droop_gain: how fast sag is taken out [1/s].
            droop_limit: largest sag that is taken out [rad].
            locked: joints that take no part.
        """
        self._ik = ik
        self._workspace = workspace
        self._leash = leash
        self._interpolation = interpolation
        self._droop_gain = droop_gain
        self._droop_limit = droop_limit
        self._locked = locked
        self._free = np.array([name not in locked for name in ARM_JOINTS])
        self._posture = np.zeros(len(ARM_JOINTS))
        self._sag = np.zeros(len(ARM_JOINTS))
        self._setpoint = np.zeros(3)
        self._end = np.zeros(3)
        self._remaining = 0.0
        self._rested = 0.0

    @property
    def setpoint(self) -> Array:
        """(3,) where the TCP is sent now [m]."""
        return self._setpoint.copy()

    def reseed(self, q: Array, q_goal: Array | None, at_rest: bool, *, keep_posture: bool = False) -> None:
        """Make the measured TCP the setpoint, and the measured pitch and roll, or those of before, what is kept."""
        if not keep_posture:
            self._posture = q.copy()
        self._setpoint = self._ik.fk.position(q)
        self._end = self._setpoint.copy()
        self._remaining = self._rested = 0.0
        if q_goal is not None and at_rest:
            sag = np.where(self._free, q_goal - q, 0.0)
            # More than the limit is no sag: somebody has moved the arm since it was told that goal.
            self._sag = np.where(np.abs(sag) <= self._droop_limit, sag, self._sag)

    def stop(self, q_goal: Array) -> None:
        """Let the setpoint rest where it is; the goals are those that it has now."""
        del q_goal
        self._end = self._setpoint.copy()
        self._remaining = 0.0

    def step(self, dt: float, q: Array, delta: Array | None, clipped: set[Clip]) -> Array:
        """Advance the setpoint and solve for it."""
        measured = self._ik.fk.position(q)
        if delta is not None:
            box = self._workspace.extended_to(self._end)
            self._end, outside = box.clamp(self._end + delta)
            if outside:
                clipped.add(Clip.WORKSPACE)
            if delta.any():
                self._remaining = self._interpolation
                self._rested = 0.0
        self._end, pulled = self._on_leash(self._end, measured)
        if pulled:
            clipped.add(Clip.LEASH)
        part = 1.0 if self._remaining <= dt else dt / self._remaining
        self._setpoint, _ = self._on_leash(self._setpoint + part * (self._end - self._setpoint), measured)
        self._remaining = max(0.0, self._remaining - dt)

        seed = np.clip(q, self._ik.fk.lower, self._ik.fk.upper)
        found = self._ik.solve(
            self._setpoint, seed, posture=self._posture, preference=KEEP_GRIPPER, locked=self._locked
        )
        if not found.success:  # stay where the arm can follow, so that the way back takes effect at once
            self._setpoint, _ = self._on_leash(self._ik.fk.position(found.q), measured)
            self._end = self._setpoint.copy()
            self._remaining = 0.0
            clipped.add(Clip.REACH)
        self._learn_sag(dt, found.q - q)
        return np.clip(found.q + self._sag, self._ik.fk.lower, self._ik.fk.upper)

    def _on_leash(self, point: Array, measured: Array) -> tuple[Array, bool]:
        """Return the point, or where the leash from the measured TCP ends on the way to it."""
        lead = point - measured
        distance = float(np.linalg.norm(lead))
        if distance <= self._leash:
            return point, False
        return measured + lead * (self._leash / distance), True

    def _learn_sag(self, dt: float, error: Array) -> None:
        """Take out a part of what the arm hangs below the solution, if the setpoint rests."""
        if self._remaining > 0.0:
            return
        self._rested += dt
        if self._rested < REST_S:
            return
        sag = np.clip(error, -self._droop_limit, self._droop_limit)
        sag = np.where(self._free & (np.abs(sag) > UNSEEN_RAD), sag, 0.0)
        self._sag = np.clip(self._sag + self._droop_gain * dt * sag, -self._droop_limit, self._droop_limit)


class Pick101Profile:
    """The controller that policies of ggand0/pick-101 were trained with, for those policies.

    A commanded TCP position persists from the start of the episode. Each control step takes one linear
    damped-least-squares step from the measured joints towards it, half of which is commanded. It lags and it does
    not correct for gravity: a policy that has learned with it expects that.
    """

    def __init__(self, fk: ForwardKinematics, *, workspace: Workspace, locked: tuple[str, ...] = ()) -> None:
        """Prepare.

        Args:
            fk: the arm.
            workspace: box that the commanded TCP stays in, that of training.
            locked: joints that take no part.
        """
        self._fk = fk
        self._workspace = workspace
        self._free = np.array([name not in locked for name in ARM_JOINTS])
        self._target = np.zeros(3)

    @property
    def setpoint(self) -> Array:
        """(3,) the commanded TCP [m]."""
        return self._target.copy()

    def reseed(self, q: Array, q_goal: Array | None, at_rest: bool, *, keep_posture: bool = False) -> None:
        """Make the measured TCP the commanded one, as training does at reset."""
        del q_goal, at_rest, keep_posture
        self._target = self._fk.position(q)

    def stop(self, q_goal: Array) -> None:
        """Make the TCP of what is commanded now the commanded one."""
        self._target = self._fk.position(q_goal)

    def step(self, dt: float, q: Array, delta: Array | None, clipped: set[Clip]) -> Array:
        """Take one step; its length does not depend on `dt`, since training knows one rate only."""
        del dt
        if delta is not None:
            self._target, outside = self._workspace.clamp(self._target + delta)
            if outside:
                clipped.add(Clip.WORKSPACE)
        error = self._target - self._fk.position(q)
        return dls_step(
            self._fk,
            q,
            error,
            damping=PICK101_DAMPING,
            max_step=PICK101_MAX_STEP_RAD,
            gain=PICK101_GAIN,
            free=self._free,
        )


def dls_step(
    fk: ForwardKinematics,
    q: Array,
    delta: Array,
    *,
    damping: float = 0.1,
    max_step: float = 0.5,
    gain: float = 1.0,
    free: npt.NDArray[np.bool_] | None = None,
) -> Array:
    """Take a single linear damped-least-squares step, as the training environment of pick-101 does.

    With the damping of 0.1 it realises about three quarters of the displacement: use `InverseKinematics`
    unless that very behaviour is wanted.

    Args:
        fk: the arm.
        q: (5,) joint positions [rad].
        delta: (3,) displacement of the TCP that is asked for [m].
        damping: the lambda of (J'J + lambda^2 I) [m/rad].
        max_step: largest motion of one joint, before the gain [rad].
        gain: part of the step that is taken.
        free: (5,) joints that may move; all of them by default.

    Returns:
        (5,) new joint positions within limits; joints that are not free keep theirs.
    """
    moving = np.ones(NUM_ARM_JOINTS, dtype=bool) if free is None else free
    J = fk.evaluate(q)[1][:, moving]
    dq = J.T @ np.linalg.solve(
        J @ J.T + damping**2 * np.eye(3), delta
    )  # the same as (J'J + lambda^2 I)^-1 J' delta
    result = q.copy()
    step = gain * np.clip(dq, -max_step, max_step)
    result[moving] = np.clip(q[moving] + step, fk.lower[moving], fk.upper[moving])
    return result
