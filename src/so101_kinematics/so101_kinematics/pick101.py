# SPDX-License-Identifier: Apache-2.0
"""The controller that policies of ggand0/pick-101 were trained with, for those policies.

A commanded TCP position persists from the start of the episode. Each control step takes one linear
damped-least-squares step from the measured joints towards it, half of which is commanded. It lags and it does
not correct for gravity: a policy that has learned with it expects that. For anything else use the setpoint
profile.
"""

import numpy as np

from so101_contract.joints import ARM_JOINTS
from so101_kinematics.dls import dls_step
from so101_kinematics.fk import Array, ForwardKinematics
from so101_kinematics.profile import Clip, ProfileStep
from so101_kinematics.workspace import Workspace

RATE_HZ = 50.0
TCP = 'pick101'
WORKSPACE = Workspace((0.10, -0.30, 0.01), (0.50, 0.30, 0.40))
DAMPING = 0.1
GAIN = 0.5
MAX_STEP_RAD = 0.5


class Pick101Profile:
    """Turns displacements into joint goals as the training environment did."""

    def __init__(self, fk: ForwardKinematics, locked: tuple[str, ...] = ()) -> None:
        """Prepare; `locked` names the joints that take no part."""
        self._fk = fk
        self._free = np.array([name not in locked for name in ARM_JOINTS])
        self._target: Array | None = None

    def reseed(self, q: Array, q_goal: Array | None, at_rest: bool, *, keep_posture: bool = False) -> None:
        """Make the measured TCP the commanded one, as training does at reset."""
        del q_goal, at_rest, keep_posture
        self._target = self._fk.position(q)

    def stop(self, q_goal: Array) -> None:
        """Make the TCP of what is commanded now the commanded one."""
        self._target = self._fk.position(q_goal)

    def step(self, dt: float, q: Array, delta: Array | None) -> ProfileStep:
        """Take one step.

        Args:
            dt: not used; training knows one rate only.
            q: (5,) measured joint positions [rad].
            delta: (3,) displacement of the commanded TCP [m], or None.
        """
        del dt
        assert self._target is not None  # the controller seeds a profile before its first step
        clipped: set[Clip] = set()
        if delta is not None:
            self._target, outside = WORKSPACE.clamp(self._target + delta)
            if outside:
                clipped.add(Clip.WORKSPACE)
        error = self._target - self._fk.position(q)
        goal = dls_step(
            self._fk, q, error, damping=DAMPING, max_step=MAX_STEP_RAD, gain=GAIN, free=self._free
        )
        return ProfileStep(goal, self._target.copy(), frozenset(clipped))
