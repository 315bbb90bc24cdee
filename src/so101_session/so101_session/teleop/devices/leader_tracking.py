# SPDX-License-Identifier: Apache-2.0
"""From the pose of a leader arm to displacements of the follower, without a jump and without drift.

At a take-over the two arms may disagree. What counts is how the leader moves from there on: the follower's target is
the leader's TCP plus an offset that is fixed at that moment (a clutch). Each step asks for the way from where the
follower was told to be to its target, so nothing that was cut or lost adds up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import math

import numpy as np
import numpy.typing as npt

from so101_contract.joints import GRIPPER_CLOSED_RAD, GRIPPER_OPEN_RAD, gripper_rad_to_opening, JOINT_NAMES
from so101_kinematics.fk import ForwardKinematics
from so101_session.teleop.devices.base import Axes, Feedback, FloatArray

REST_SPEED_M_S = 0.005
SAG_S = 0.5
"""While leader and follower rest, what the follower lacks to its target is asked for again with this time constant."""

HANDLE_MOVE = 0.08
"""The gripper stays as it was commanded until the handle has moved by this share of its way."""

CATCH_UP_PER_S = 1.0
"""How fast the opening then goes to where the handle is [strokes/s]."""

CONTROLLER_LEASH_M = 0.04


@dataclass(frozen=True)
class Drive:
    """What the leader says.

    Attributes:
        displacement: of the follower's TCP in the coming step (3,) [m].
        opening: target opening, 0 closed .. 1 open.
    """

    displacement: Axes
    opening: float


class Handle:
    """The gripper's handle: absolute, and yet nothing is dropped at a take-over."""

    def __init__(self) -> None:
        self._opening: float | None = None
        self._begin = 0.0
        self._moved = False

    def engage(self, handle: float, commanded: float | None) -> None:
        """Begin with what the gripper was told last."""
        self._opening = handle if commanded is None else commanded
        self._begin, self._moved = handle, False

    def follow(self, handle: float, dt: float) -> float:
        """Return the opening for the handle's position; both 0..1."""
        assert self._opening is not None
        self._moved |= abs(handle - self._begin) > HANDLE_MOVE
        if self._moved:
            largest = CATCH_UP_PER_S * dt + abs(handle - self._begin)
            self._opening += min(max(handle - self._opening, -largest), largest)
            self._begin = handle
        return self._opening


class Tracker:
    """Follows the leader while the person drives. Times are monotonic [s]."""

    def __init__(
        self,
        tcp: str,
        scale_m: npt.ArrayLike,
        leash_m: float,
        locked: Mapping[str, float | None] | None = None,
    ) -> None:
        """Prepare.

        Args:
            tcp: TCP preset whose displacement is asked for.
            scale_m: largest displacement of a step along each axis (3,) [m].
            leash_m: how far the target may lead the follower; beyond, the clutch slips.
            locked: joints of the follower that do not move, and where they are locked [rad]; None: where it is.
                The leader's own such joints count for nothing.
        """
        self._fk = ForwardKinematics(tcp)
        self._scale = np.array(scale_m, dtype=np.float64)
        self._leash = leash_m
        self._locked = dict(locked or {})
        self._handle = Handle()
        self._offset: FloatArray | None = None
        self._told: FloatArray = np.zeros(3)
        self._executed: FloatArray = np.zeros(3)
        self._target: FloatArray = np.zeros(3)
        self._follower: FloatArray = np.zeros(3)
        self._now_s = -math.inf
        self.slipped_m = 0.0
        """How far the clutch has slipped since it was engaged [m]."""

    @property
    def engaged(self) -> bool:
        """Whether the clutch is in."""
        return self._offset is not None

    def release(self) -> None:
        """Take the clutch out."""
        self._offset = None

    def follow(self, leader_rad: FloatArray, feedback: Feedback, now: float) -> Drive | None:
        """Return what the leader says; the first call after `release` engages, and asks for no displacement.

        Args:
            leader_rad: joints of the leader (6,) [rad].
            feedback: the follower; without its joints nothing can be said.
            now: time [s].
        """
        if feedback.joints_rad is None:
            self.release()
            return None
        leader = self._tcp(leader_rad, feedback.joints_rad)
        follower = self._fk.position(np.asarray(feedback.joints_rad)[:5])
        handle = handle_opening(leader_rad)
        executed = np.array(feedback.executed_m)
        if self._offset is None:
            self._offset, self._told, self.slipped_m = follower - leader, follower, 0.0
            self._handle.engage(handle, feedback.opening)
            dt = 0.0
        else:
            dt = now - self._now_s
            self._told = self._told + (executed - self._executed)
        self._keep_near(follower, leader + self._offset, dt)
        self._executed, self._now_s, self._follower = executed, now, follower
        self._target = self._slip(leader)
        wanted = self._target - self._told
        wanted = wanted / max(1.0, float(np.max(np.abs(wanted) / self._scale)))
        x, y, z = map(float, wanted)
        return Drive((x, y, z), self._handle.follow(handle, dt))

    def _tcp(self, leader_rad: FloatArray, follower_rad: FloatArray) -> FloatArray:
        joints = np.array(leader_rad[:5], dtype=np.float64)
        for name, value in self._locked.items():
            index = JOINT_NAMES.index(name)
            joints[index] = follower_rad[index] if value is None else value
        return self._fk.position(joints)

    def _keep_near(self, follower: FloatArray, target: FloatArray, dt: float) -> None:
        """Do as the controller does: its setpoint is on a leash; and take out sag while all rest."""
        if dt > 0.0:
            speeds = (follower - self._follower, target - self._target)
            if all(np.linalg.norm(way) / dt < REST_SPEED_M_S for way in speeds):
                self._told = self._told + (follower - self._told) * min(dt / SAG_S, 1.0)
        ahead = self._told - follower
        far = float(np.linalg.norm(ahead))
        if far > CONTROLLER_LEASH_M:
            self._told = follower + ahead * (CONTROLLER_LEASH_M / far)

    def _slip(self, leader: FloatArray) -> FloatArray:
        assert self._offset is not None
        ahead = leader + self._offset - self._told
        far = float(np.linalg.norm(ahead))
        if far > self._leash:
            slip = ahead * (1.0 - self._leash / far)
            self._offset = self._offset - slip
            self.slipped_m += float(np.linalg.norm(slip))
        target: FloatArray = leader + self._offset
        return target


def handle_opening(leader_rad: FloatArray) -> float:
    """Return how open a leader's handle is, 0..1."""
    angle = min(max(float(leader_rad[-1]), GRIPPER_CLOSED_RAD), GRIPPER_OPEN_RAD)
    return float(gripper_rad_to_opening(angle))
