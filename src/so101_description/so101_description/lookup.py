# SPDX-License-Identifier: Apache-2.0
"""Where the arm's joints, actuators, TCP and camera are in a compiled model, found by name.

An arm that shares a model with other things does not start at index 0: a loose cube before it takes seven
places of `qpos`.
"""

from dataclasses import dataclass

import mujoco
import numpy as np
import numpy.typing as npt

from so101_contract.joints import JOINT_NAMES
from so101_description.errors import ModelError
from so101_description.model import CAMERA_NAME, TCP_SITE
from so101_description.tcp import GRIPPER_BODY

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class ArmIndex:
    """Indices of one arm in a model; arrays are (6,), read-only, in `JOINT_NAMES` order.

    Attributes:
        qpos: into `data.qpos`.
        qvel: into `data.qvel` and every other array of degrees of freedom, such as the columns of a Jacobian.
        ctrl: into `data.ctrl`.
        tcp_site: of the TCP, into `data.site_xpos`.
        camera: of the wrist camera, into `data.cam_xpos`.
        gripper_body: of the gripper, into `data.xpos`.
    """

    qpos: Indices
    qvel: Indices
    ctrl: Indices
    tcp_site: int
    camera: int
    gripper_body: int


def arm_index(model: mujoco.MjModel, prefix: str = '') -> ArmIndex:
    """Find the arm in a compiled model.

    Args:
        model: a model that holds the robot of `build_spec`, alone or attached.
        prefix: what was given to `attach` as prefix.

    Raises:
        ModelError: the model lacks one of the names.
    """
    joints = [_find(model, mujoco.mjtObj.mjOBJ_JOINT, prefix + name) for name in JOINT_NAMES]
    actuators = [_find(model, mujoco.mjtObj.mjOBJ_ACTUATOR, prefix + name) for name in JOINT_NAMES]
    return ArmIndex(
        qpos=_frozen(model.jnt_qposadr[joints]),
        qvel=_frozen(model.jnt_dofadr[joints]),
        ctrl=_frozen(actuators),
        tcp_site=_find(model, mujoco.mjtObj.mjOBJ_SITE, prefix + TCP_SITE),
        camera=_find(model, mujoco.mjtObj.mjOBJ_CAMERA, prefix + CAMERA_NAME),
        gripper_body=_find(model, mujoco.mjtObj.mjOBJ_BODY, prefix + GRIPPER_BODY),
    )


def _find(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str) -> int:
    index = mujoco.mj_name2id(model, kind, name)
    if index < 0:
        what = kind.name.removeprefix('mjOBJ_').lower()
        raise ModelError(
            f'expected a model with the {what} {name!r}, found none; build the robot with build_spec, '
            'and give the prefix under which it was attached'
        )
    return int(index)


def _frozen(values: npt.ArrayLike) -> Indices:
    array = np.array(values, dtype=np.intp)
    array.setflags(write=False)
    return array
