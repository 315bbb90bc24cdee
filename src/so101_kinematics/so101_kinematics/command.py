# SPDX-License-Identifier: Apache-2.0
"""What goes into the end-effector controller, and what comes out of it."""

from dataclasses import dataclass
from enum import StrEnum

import numpy.typing as npt

from so101_kinematics.fk import Array
from so101_kinematics.profile import Clip


class Hold(StrEnum):
    """Why the arm holds."""

    NO_COMMAND = 'no displacement yet'
    STALE_COMMAND = 'no recent displacement'
    BAD_COMMAND = 'displacement is not finite or has the wrong shape'
    WRONG_FRAME = 'displacement is in another frame'
    NO_JOINTS = 'no joint reading'
    STALE_JOINTS = 'no recent joint reading'
    BAD_JOINTS = 'joint reading is not finite or has the wrong shape'


@dataclass(frozen=True)
class DeltaCommand:
    """One displacement, as it came.

    Attributes:
        xyz: (3,) displacement of the TCP [m].
        gripper: target opening, 0 closed .. 1 open.
        stamp_s: when it was decided, on the clock of `update` [s].
        frame_id: frame that `xyz` is said in.
        source: who decided it; a change of it is a takeover, from which control starts over.
    """

    xyz: npt.ArrayLike
    gripper: float
    stamp_s: float
    frame_id: str
    source: int | str = ''


@dataclass(frozen=True)
class Command:
    """What to tell the servos for one control period.

    Attributes:
        q_goal: (6,) joint goals within limits [rad]; None as long as there has been nothing to command.
        setpoint: (3,) where the TCP is sent, in the base frame [m]; None as long as there is no goal.
        held: the goal is that of an earlier period.
        reason: why it holds; None when it does not.
        clipped: why less was done than was asked for.
    """

    q_goal: Array | None
    setpoint: Array | None
    held: bool
    reason: Hold | None
    clipped: frozenset[Clip]
