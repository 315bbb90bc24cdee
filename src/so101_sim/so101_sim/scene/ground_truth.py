# SPDX-License-Identifier: Apache-2.0
"""What is really the case in the scene, read off the state of the simulation."""

import mujoco
import numpy as np

from so101_contract.joints import gripper_rad_to_opening
from so101_contract.task_report import GroundTruth, Quaternion
from so101_description.tcp import get_tcp
from so101_sim.scene.scene import SceneIndex
from so101_sim.scene.surroundings import Vector3

__all__ = ['GRIP_IN_GRIPPER', 'GroundTruth', 'Quaternion', 'measure']

GRIP_IN_GRIPPER = np.array(get_tcp('so101').pose.position)
"""Tip of the static finger on its inner face, in the gripper body [m]."""


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
    if index.goal_body >= 0:
        x, y, z = data.xpos[index.goal_body].tolist()
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
