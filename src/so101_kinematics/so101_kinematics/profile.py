# SPDX-License-Identifier: Apache-2.0
"""What the end-effector controller asks of a control law."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from so101_kinematics.fk import Array


class Clip(StrEnum):
    """Why less was done than was asked for."""

    DELTA = 'displacement too long'
    WORKSPACE = 'workspace'
    LEASH = 'leash'
    REACH = 'out of reach'
    JOINT_LEAD = 'joint lead'
    GRIPPER = 'gripper opening outside 0..1'


@dataclass(frozen=True)
class ProfileStep:
    """What a control law wants for one control period.

    Attributes:
        q_goal: (5,) joint goals within limits [rad].
        setpoint: (3,) where the TCP is sent now, in the base frame [m].
        clipped: why less was done than was asked for.
    """

    q_goal: Array
    setpoint: Array
    clipped: frozenset[Clip]


class Profile(Protocol):
    """A control law: displacements of the TCP in, joint goals out."""

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

    def step(self, dt: float, q: Array, delta: Array | None) -> ProfileStep:
        """Advance by one control period.

        Args:
            dt: time since the last step [s].
            q: (5,) measured joint positions [rad].
            delta: (3,) a displacement of the TCP that has not been executed yet [m], or None.
        """
