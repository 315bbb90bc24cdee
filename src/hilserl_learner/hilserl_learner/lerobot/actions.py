# SPDX-License-Identifier: Apache-2.0
"""What the actions of a LeRobot dataset are, and the displacements of the TCP that say the same.

| in the dataset | what it says | becomes |
|---|---|---|
| six joint targets, absolute | what the leader arm sent | the way of a setpoint to the TCP of the target |
| `delta_x`, `delta_y`, `delta_z` in -1..1, and a discrete gripper | HIL-SERL's actions | themselves, in metres |
| `so101.action` | our export's, in metres and opening | themselves |

A setpoint follows the joint targets as our controller's does: it starts at the measured TCP, and what an action cannot
say in one step stays for the next. So a fast leader is followed late, but not to another place.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np

from hilserl_learner.errors import DatasetError
from hilserl_learner.lerobot.dataset import DatasetInfo, Feature
from hilserl_learner.lerobot.reader import Rows
from hilserl_learner.lerobot.units import FloatArray, joint_columns
from so101_contract.action import ActionSpec, AXES, ClipCounter, EeDeltaValue, GripperConvention
from so101_contract.joints import gripper_rad_to_opening, limits_arrays, NUM_JOINTS
from so101_driver.calibration.lerobot_units import JointScale
from so101_kinematics.fk import ForwardKinematics

ACTION, OWN_ACTION = 'action', 'so101.action'
DELTA_NAMES = ('delta_x', 'delta_y', 'delta_z')

_SAME = 1e-6
"""Targets that differ by less do not move: the recorder wrote none [units of the dataset]."""


class ActionReader(Protocol):
    """Turns the rows of an episode into one displacement for each step.

    Attributes:
        clipped: counts what an action could not say.
        said: what the user should know, in sentences.
    """

    clipped: ClipCounter
    said: list[str]

    def read(self, rows: Rows, positions: FloatArray, edges: Sequence[int]) -> list[EeDeltaValue]:
        """Return the displacements.

        Args:
            rows: of the episode.
            positions: measured joint positions (n, 6) [rad].
            edges: the row at which each step begins, and the row behind the last one.
        """


class OwnActions:
    """What our own export stores beside the actions for LeRobot."""

    def __init__(self) -> None:
        self.clipped = ClipCounter()
        self.said: list[str] = []

    def read(self, rows: Rows, positions: FloatArray, edges: Sequence[int]) -> list[EeDeltaValue]:
        """Return the displacements, as they were executed."""
        stored = rows[OWN_ACTION]
        return [
            EeDeltaValue(stored[b:e, :3].sum(axis=0), float(stored[e - 1, 3])) for b, e in pairwise(edges)
        ]


class DeltaActions:
    """Displacements as `lerobot.rl.gym_manipulator` records them, with a discrete gripper or none."""

    def __init__(self, feature: Feature, spec: ActionSpec, scale_m: float) -> None:
        scale = (scale_m,) * 3 if scale_m else spec.translation_scale_m
        self.clipped = ClipCounter()
        self.said = [
            f'a displacement of 1 was taken as {scale[0]:g} m, which the dataset does not say (--delta-scale)'
        ]
        self._spec = spec
        self._wire = ActionSpec(translation_scale_m=scale, gripper=GripperConvention.DISCRETE)
        names = feature.names or (*DELTA_NAMES, 'gripper')
        self._axes = [names.index(name) for name in DELTA_NAMES]
        self._gripper = next((k for k in range(feature.shape[0]) if k not in self._axes), None)
        if self._gripper is None:
            self.said.append('the actions have no gripper: it was taken to stay as it was at the beginning')

    def read(self, rows: Rows, positions: FloatArray, edges: Sequence[int]) -> list[EeDeltaValue]:
        """Return the displacements; those of several rows in a step add up."""
        actions = rows[ACTION].astype(np.float64)
        choices = np.ones(len(actions)) if self._gripper is None else actions[:, self._gripper]
        wrong = np.flatnonzero(~np.isin(choices, (0.0, 1.0, 2.0)))
        if len(wrong):
            raise DatasetError(
                f'expected 0 (close), 1 (stay) or 2 (open) for the gripper in {ACTION}, got {choices[wrong[0]]:g} in '
                f'row {wrong[0]}; record with the discrete gripper of LeRobot'
            )
        opening = float(np.clip(gripper_rad_to_opening(float(positions[edges[0], -1])), 0.0, 1.0))
        values = []
        for begin, end in pairwise(edges):
            moved, cut = np.zeros(3), np.zeros(len(AXES), dtype=np.bool_)
            for row in range(begin, end):
                said = np.append(actions[row, self._axes], choices[row])
                one = self._wire.to_wire(said, present_opening=opening)
                moved, cut, opening = moved + one.translation, cut | one.clipped, one.opening
            limited = self._spec.limit(EeDeltaValue(moved, opening))
            x, y, z, gripper = (cut | limited.clipped).tolist()
            values.append(EeDeltaValue(limited.translation, opening, (x, y, z, gripper)))
            self.clipped.add(values[-1])
        return values


class JointTargets:
    """Absolute joint targets, as `lerobot-record` writes what the leader arm sent."""

    def __init__(
        self, columns: Sequence[int], scale: JointScale, spec: ActionSpec, fk: ForwardKinematics
    ) -> None:
        self.clipped = ClipCounter()
        self.said = ['joint targets became displacements of the TCP by forward kinematics']
        self._columns, self._scale, self._spec, self._fk = list(columns), scale, spec, fk

    def read(self, rows: Rows, positions: FloatArray, edges: Sequence[int]) -> list[EeDeltaValue]:
        """Return the displacements of a setpoint that follows the targets."""
        said = rows[ACTION][:, self._columns]
        targets = np.clip(self._scale.to_rad(said), *limits_arrays())[np.array(edges[1:]) - 1]
        openings = np.clip(gripper_rad_to_opening(targets[:, -1]), 0.0, 1.0)
        if np.ptp(said, axis=0).max() < _SAME:  # nothing was sent: `--zero-actions` says what to do
            return [EeDeltaValue(np.zeros(3), float(opening)) for opening in openings]
        setpoint = self._fk.pose(positions[edges[0]]).position
        values = []
        for goal, opening in zip(self._fk.positions(targets), openings, strict=True):
            value = self._spec.limit(EeDeltaValue(goal - setpoint, float(opening)))
            setpoint = setpoint + value.translation
            self.clipped.add(value)
            values.append(value)
        return values


def action_kind(info: DatasetInfo) -> str:
    """Return `own`, `delta` or `joints`: what the actions of a dataset are.

    Raises:
        DatasetError: they are neither.
    """
    if OWN_ACTION in info.features and info.features[OWN_ACTION].shape == (len(AXES),):
        return 'own'
    feature = info.features.get(ACTION)
    if feature is None:
        raise DatasetError(f'expected the feature {ACTION} in {info.folder}, got {list(info.features)[:20]}')
    size, names = int(np.prod(feature.shape)), feature.names
    if size in (3, 4) and (not names or (set(DELTA_NAMES) <= set(names) and len(names) == size)):
        return 'delta'
    if size == NUM_JOINTS or any('.' in name or 'shoulder' in name for name in names):
        joint_columns(feature, info.folder)
        return 'joints'
    raise DatasetError(
        f'expected six joint targets, or {", ".join(DELTA_NAMES)} and a gripper, as {ACTION} of {info.folder}, got '
        f'{list(names) or f"{size} entries without names"}; record one of these'
    )
