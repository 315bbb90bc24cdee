# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics: joint positions in, pose and Jacobian of the TCP out.

MuJoCo evaluates the robot model of `so101_description`; it takes about a microsecond. This is the only
forward kinematics of the package set: what a policy is fed, what the controller commands and what RViz shows
agree.
"""

from dataclasses import dataclass

import mujoco
import numpy as np
import numpy.typing as npt

from so101_contract.assembly import StateOf
from so101_contract.joints import ARM_JOINTS, JOINT_NAMES
from so101_contract.observation import state_builder
from so101_contract.observation_spec import ObservationSpec
from so101_contract.orientation import matrix_to_quat
from so101_description.model import arm_index, load_model
from so101_description.tcp import TcpPreset
from so101_kinematics.errors import KinematicsError

Array = npt.NDArray[np.float64]

NUM_ARM_JOINTS = len(ARM_JOINTS)
NUM_JOINTS = len(JOINT_NAMES)
BASE_BODY = 'base'

PITCH_ROW: Array = np.array([0.0, 1.0, 1.0, 1.0, 0.0])
"""Pitch as a function of the arm joints: lift, elbow and wrist_flex have parallel axes, so they add up."""


@dataclass(frozen=True)
class Pose:
    """Pose of the TCP in the base frame.

    Attributes:
        position: (3,) origin of the TCP frame [m].
        rotation: (3, 3) rotation matrix; its columns are the axes of the TCP frame in the base frame.
    """

    position: Array
    rotation: Array

    @property
    def quat_xyzw(self) -> tuple[float, float, float, float]:
        """Unit quaternion (x, y, z, w), the order of `geometry_msgs/Quaternion`."""
        w, x, y, z = matrix_to_quat(self.rotation).tolist()
        return x, y, z, w


class ForwardKinematics:
    """Forward kinematics of one arm with one TCP.

    Every result depends on the argument alone, whatever was asked before. An instance owns scratch memory, so
    each thread needs its own.
    """

    def __init__(self, source: str | TcpPreset | mujoco.MjModel = 'so101', *, prefix: str = '') -> None:
        """Prepare for one TCP.

        Args:
            source: name of a TCP preset, a preset, or a compiled model that holds the robot of
                `so101_description.model.build_spec`. Joints are found in it by name, so it may hold other
                things too.
            prefix: what was given to `attach` as prefix, where the model holds the robot attached to a scene.
        """
        if isinstance(source, mujoco.MjModel):
            self._model = source
        else:
            self._model = load_model(tcp=source, visuals='none', collision=False)
        index = arm_index(self._model, prefix)
        self._data = mujoco.MjData(self._model)
        self._site = index.tcp_site
        self._qpos = _slice_or_indices(index.qpos[:NUM_ARM_JOINTS])
        self._dofs = _slice_or_indices(index.qvel[:NUM_ARM_JOINTS])
        self._jac_position = np.zeros((3, self._model.nv))
        self._jac_rotation = np.zeros((3, self._model.nv))
        joints = [mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_JOINT, prefix + n) for n in ARM_JOINTS]
        limits = self._model.jnt_range[joints]
        self.lower = _frozen(limits[:, 0])
        self.upper = _frozen(limits[:, 1])
        # The base does not move: one evaluation says where it stands, and every result is relative to it.
        mujoco.mj_kinematics(self._model, self._data)
        base = self._data.body(prefix + BASE_BODY)
        self._base_position = _frozen(base.xpos)
        self._base_rotation = _frozen(base.xmat.reshape(3, 3))
        self._at_origin = bool(
            np.allclose(self._base_position, 0.0, atol=1e-12)
            and np.allclose(self._base_rotation, np.eye(3), atol=1e-12)
        )
        zero = np.zeros(NUM_ARM_JOINTS)
        self._place(zero)
        anchors = self._data.xanchor[joints]
        self.anchors_at_zero = _frozen((anchors - self._base_position) @ self._base_rotation)
        """(5, 3) a point on each joint's axis with all arm joints at zero, in the base frame [m]."""

    def pose(self, q: npt.ArrayLike) -> Pose:
        """Return the pose of the TCP.

        Args:
            q: joint positions [rad], five (arm) or six (with the gripper, which does not move the TCP).
        """
        self._place(arm_vector(q))
        position = self._data.site_xpos[self._site]
        rotation = self._data.site_xmat[self._site].reshape(3, 3)
        if self._at_origin:
            return Pose(position.copy(), rotation.copy())
        return Pose(
            self._base_rotation.T @ (position - self._base_position), self._base_rotation.T @ rotation
        )

    def positions(self, q: npt.ArrayLike) -> Array:
        """Return the TCP positions (n, 3) [m] of many joint vectors (n, 5) or (n, 6) [rad]."""
        rows = np.asarray(q, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] not in (NUM_ARM_JOINTS, NUM_JOINTS) or not np.isfinite(rows).all():
            raise KinematicsError(
                f'expected finite joint positions of shape (n, 5) or (n, 6), got shape {rows.shape}; '
                f'give one row per pose in the order {list(JOINT_NAMES)}'
            )
        out = np.empty((len(rows), 3))
        for row, position in zip(rows[:, :NUM_ARM_JOINTS], out, strict=True):
            self._place(row)
            position[:] = self._data.site_xpos[self._site]
        return out if self._at_origin else (out - self._base_position) @ self._base_rotation

    def jacobian(self, q: npt.ArrayLike) -> Array:
        """Return the (6, 5) Jacobian in the base frame: rows vx vy vz [m/rad], wx wy wz [rad/rad]."""
        self.evaluate(arm_vector(q))
        mujoco.mj_jacSite(self._model, self._data, self._jac_position, self._jac_rotation, self._site)
        turn = self._base_rotation.T
        return np.concatenate(
            (turn @ self._jac_position[:, self._dofs], turn @ self._jac_rotation[:, self._dofs])
        )

    def pitch(self, q: npt.ArrayLike) -> float:
        """Return the approach pitch below the horizontal [rad]: 0 points forward, pi/2 straight down.

        It is shoulder_lift + elbow_flex + wrist_flex, whatever the roll and the TCP preset, and is not
        wrapped.
        """
        return float(arm_vector(q) @ PITCH_ROW)

    def evaluate(self, q: Array) -> tuple[Array, Array]:
        """Return the TCP position (3,) [m] and its Jacobian (3, 5) [m/rad], without checking the input.

        This is the inner loop of the solvers; `pose` and `jacobian` check what they are given.
        """
        self._place(q)
        mujoco.mj_comPos(self._model, self._data)  # mj_jacSite builds on the centres of mass
        mujoco.mj_jacSite(self._model, self._data, self._jac_position, None, self._site)
        position, J = self._data.site_xpos[self._site], self._jac_position[:, self._dofs]
        if self._at_origin:
            return position.copy(), J.copy()
        turn = self._base_rotation.T
        return turn @ (position - self._base_position), turn @ J

    def position(self, q: Array) -> Array:
        """Return the TCP position (3,) [m] of (5,) joint positions [rad], without checking the input."""
        self._place(q)
        position: Array = self._data.site_xpos[self._site].copy()
        if self._at_origin:
            return position
        return self._base_rotation.T @ (position - self._base_position)

    def _place(self, q: Array) -> None:
        self._data.qpos[self._qpos] = q
        mujoco.mj_kinematics(self._model, self._data)


def arm_vector(q: npt.ArrayLike) -> Array:
    """Return the five arm joints of a vector of five or six joint positions [rad], as a new array.

    Raises:
        KinematicsError: another shape, or a value that is not finite.
    """
    vector = np.array(q, dtype=np.float64)
    if vector.shape not in ((NUM_ARM_JOINTS,), (NUM_JOINTS,)):
        raise KinematicsError(
            f'expected 5 or 6 joint positions [rad], got shape {vector.shape}; '
            f'give them in the order {list(JOINT_NAMES)}'
        )
    if not np.isfinite(vector).all():
        raise KinematicsError(
            f'expected finite joint positions [rad], got {vector.tolist()}; check the joint readings'
        )
    return vector[:NUM_ARM_JOINTS]


def _slice_or_indices(indices: npt.NDArray[np.intp]) -> slice | npt.NDArray[np.intp]:
    """Return a slice where the indices follow each other: numpy is several times faster with it."""
    first = int(indices[0])
    if np.array_equal(indices, np.arange(first, first + len(indices))):
        return slice(first, first + len(indices))
    return indices


def _frozen(values: npt.ArrayLike) -> Array:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


def state_function(spec: ObservationSpec) -> StateOf:
    """Return what turns joint positions (6,) [rad] and velocities (6,) [rad/s] into the state vector (D,).

    Raises:
        ObservationError: the spec has blocks that the arm alone does not tell, such as the cube's position.
    """
    fk = ForwardKinematics(spec.tcp)

    def tcp_pose(joints: Array) -> tuple[Array, Array]:
        pose = fk.pose(joints)
        return pose.position, pose.rotation

    return state_builder(spec, tcp_pose)
