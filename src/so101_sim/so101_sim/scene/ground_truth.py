# SPDX-License-Identifier: Apache-2.0
"""What is really the case in the scene: known to a simulator, to rewards and to whoever plays the human."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
import json
from typing import Any, Self

import mujoco
import numpy as np

from so101_contract.joints import gripper_rad_to_opening
from so101_description.tcp import get_tcp
from so101_sim.errors import SimulationError
from so101_sim.scene.scene import SceneIndex, TRAY, Vector3

GRIP_IN_GRIPPER = np.array(get_tcp('so101').pose.position)
"""Tip of the static finger on its inner face, in the gripper body [m]."""

Quaternion = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """The scene at one moment; positions and orientations in the base frame.

    Attributes:
        time_s: since the last reset [s], simulated.
        cube_position: centre of the cube [m].
        cube_quat_wxyz: its orientation.
        cube_speed: speed of its centre [m/s].
        tcp_position: where the tool centre point really is [m], whatever kinematics believe.
        grip_position: the tip of the static finger, on its inner face [m].
        jaw_direction: unit vector from there to the moving finger.
        finger_position: middle of the moving finger [m].
        opening: opening of the gripper, 0 closed .. 1 open.
        touches_static: the static finger touches the cube.
        touches_moving: the moving finger touches the cube.
        on_table: the cube touches the table.
        in_tray: the cube touches the tray.
        tray_position: centre of the tray's floor [m], or None without a tray.
    """

    time_s: float
    cube_position: Vector3
    cube_quat_wxyz: Quaternion
    cube_speed: float
    tcp_position: Vector3
    grip_position: Vector3
    jaw_direction: Vector3
    finger_position: Vector3
    opening: float
    touches_static: bool
    touches_moving: bool
    on_table: bool
    in_tray: bool
    tray_position: Vector3 | None = None

    @property
    def held(self) -> bool:
        """Whether the cube is between both fingers, touching them."""
        return self.touches_static and self.touches_moving

    @property
    def finite(self) -> bool:
        """Whether the physics has not blown up."""
        return bool(np.isfinite([*self.cube_position, *self.tcp_position, self.cube_speed]).all())

    def to_json(self) -> str:
        """Return the truth as a JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_json` has written; other keys are ignored.

        Raises:
            SimulationError: a value is missing.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in values]
        if missing:
            raise SimulationError(
                f'expected the ground truth of the scene, got one without {missing}; '
                f'publish and read it with the same version of so101_sim'
            )
        return cls(**{name: _tuples(values[name]) for name in names})


def measure(
    model: mujoco.MjModel, data: mujoco.MjData, index: SceneIndex, since_s: float = 0.0
) -> GroundTruth:
    """Read the truth off a state whose positions and contacts have been computed.

    Args:
        model: the scene.
        data: its state, after `mj_step` or `mj_forward`.
        index: where things are.
        since_s: simulated time that counts as zero [s].
    """
    cube = data.qpos[index.cube_qpos : index.cube_qpos + 7].tolist()
    touched = _touched(data, index.cube_geom)
    tray = None
    if index.tray_geoms:
        x, y, z = data.body(TRAY).xpos.tolist()
        tray = (x, y, z)
    gripper = index.arm.gripper_body
    rotation = data.xmat[gripper].reshape(3, 3)
    speed = data.qvel[index.cube_qvel : index.cube_qvel + 3]
    return GroundTruth(
        time_s=float(data.time) - since_s,
        cube_position=_vector3(cube[:3]),
        cube_quat_wxyz=(cube[3], cube[4], cube[5], cube[6]),
        cube_speed=float(np.sqrt(speed @ speed)),
        tcp_position=_vector3(data.site_xpos[index.arm.tcp_site].tolist()),
        grip_position=_vector3((data.xpos[gripper] + rotation @ GRIP_IN_GRIPPER).tolist()),
        jaw_direction=_vector3(rotation[:, 0].tolist()),
        finger_position=_vector3(data.geom_xpos[index.moving_finger].tolist()),
        opening=gripper_rad_to_opening(float(data.qpos[index.arm.qpos[-1]])),
        touches_static=index.static_finger in touched,
        touches_moving=index.moving_finger in touched,
        on_table=index.table_geom in touched,
        in_tray=bool(touched & index.tray_geoms),
        tray_position=tray,
    )


def _touched(data: mujoco.MjData, geom: int) -> set[int]:
    """Return the geoms that touch a geom."""
    pairs = data.contact.geom[: data.ncon].tolist()
    return {b if a == geom else a for a, b in pairs if geom in (a, b)}


def _vector3(values: list[float]) -> Vector3:
    x, y, z = values
    return x, y, z


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
