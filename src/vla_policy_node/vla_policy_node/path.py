# SPDX-License-Identifier: Apache-2.0
"""From joint targets to what the session passes on: displacements of the TCP, by forward kinematics.

The way of a setpoint: it begins at the measured TCP, each action moves it towards the TCP of the target, and what an
action cannot say in one step stays for the next. It is kept on the controller's leash, so that it goes no further from
an arm that is blocked than the controller's own. The hand's orientation is the controller's: a model that turns the
hand cannot be followed in that, which `cut` does not count.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from so101_contract.action import ActionSpec, ClipCounter, EeDeltaValue
from so101_contract.joints import gripper_rad_to_opening
from so101_kinematics.config import KinematicsConfig, Workspace
from so101_kinematics.fk import ForwardKinematics

FloatArray: TypeAlias = npt.NDArray[np.float64]

LEASH_M = KinematicsConfig().leash_m


class EePath:
    """Follows joint targets with displacements of the TCP."""

    def __init__(self, tcp: str, spec: ActionSpec, workspace: Workspace) -> None:
        """Prepare.

        Args:
            tcp: preset that actions move.
            spec: how large an action may be.
            workspace: box that the controller keeps the TCP in.
        """
        self.cut = ClipCounter()
        """How often an action could not say all of the displacement."""
        self._fk, self._spec, self._workspace = ForwardKinematics(tcp), spec, workspace
        self._setpoint: FloatArray | None = None
        self._before: FloatArray | None = None

    def start_over(self) -> None:
        """Begin at the measured TCP next time: the arm has held, or another one has moved it."""
        self._setpoint = self._before = None

    def carried_out(self, translation: FloatArray) -> None:
        """Take note of what was done in place of the last action (3,) [m]: another one acts on top of it."""
        if self._before is not None:
            self._setpoint = self._moved(self._before, translation)

    def action(self, target: FloatArray, measured: FloatArray) -> EeDeltaValue:
        """Return the action of a step.

        Args:
            target: where the joints shall be at its end (6,) [rad].
            measured: where they are (6,) [rad].
        """
        here = self._fk.pose(measured).position
        setpoint = here if self._setpoint is None else self._setpoint
        lead = setpoint - here
        distance = float(np.linalg.norm(lead))
        if distance > LEASH_M:
            setpoint = here + lead * (LEASH_M / distance)
        opening = float(np.clip(gripper_rad_to_opening(float(target[-1])), 0.0, 1.0))
        value = self._spec.limit(EeDeltaValue(self._fk.pose(target).position - setpoint, opening))
        self.cut.add(value)
        self._before = setpoint
        self._setpoint = self._moved(setpoint, value.translation)
        return value

    def _moved(self, setpoint: FloatArray, translation: FloatArray) -> FloatArray:
        moved: FloatArray = self._workspace.extended_to(setpoint).clamp(setpoint + translation)[0]
        return moved

    @property
    def cut_share(self) -> float:
        """Share of the actions that were cut along any axis, as the largest of the axes' shares, 0..1."""
        return max(self.cut.fraction.values())
