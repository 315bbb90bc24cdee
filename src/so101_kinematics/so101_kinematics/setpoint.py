# SPDX-License-Identifier: Apache-2.0
"""The control law of the setpoint profile: a persistent Cartesian setpoint on a leash to the measured TCP.

Because the setpoint persists, it does not sink with an arm that sags under gravity, and errors of single
steps do not add up. Because of the leash, it cannot run away from an arm that is blocked, pushed or switched
off.

Servos that are springs leave the arm below its setpoint. While the setpoint rests, an integral per joint
takes that sag out, within a limit; while it moves, what has been learned is kept. When control starts over
with the arm at rest, what the servos were told beyond what they do is taken for sag at once: the first
command after it repeats the last one before it, and the arm does not sink a second time.

The gripper keeps its roll, and its pitch as far as the position allows.
"""

import numpy as np

from so101_contract.joints import ARM_JOINTS
from so101_kinematics.descent import Preference
from so101_kinematics.fk import Array
from so101_kinematics.ik import InverseKinematics
from so101_kinematics.profile import Clip, ProfileStep
from so101_kinematics.workspace import Workspace

KEEP_GRIPPER = Preference(weights=(1.0, 1.0, 1.0, 1.0, 1e5), pitch_weight=1e3)
"""The pitch is kept rather than the joints, and the roll, which hardly helps to reach anything, above all."""

UNSEEN_RAD = 0.001
"""Sag smaller than this is left alone [rad]: just above half an encoder tick, so that the integral rests."""

REST_S = 0.2
"""How long the setpoint must have rested before sag is learned [s]: the arm has arrived by then."""


class SetpointProfile:
    """Turns displacements into joint goals; see the module's description."""

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

    def step(self, dt: float, q: Array, delta: Array | None) -> ProfileStep:
        """Advance the setpoint and solve for it."""
        clipped: set[Clip] = set()
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
        goal = np.clip(found.q + self._sag, self._ik.fk.lower, self._ik.fk.upper)
        return ProfileStep(goal, self._setpoint.copy(), frozenset(clipped))

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
