# SPDX-License-Identifier: Apache-2.0
"""The FK and IK services of kinematics_node. Whatever is asked, an answer comes."""

from collections.abc import Callable

import numpy as np
from sensor_msgs.msg import JointState
from so101_interfaces.srv import ComputeFk, ComputeIk

from so101_contract.joints import ARM_JOINTS
from so101_description.errors import DescriptionError
from so101_interfaces_py.conversions import joint_positions, joint_state, pose_message
from so101_kinematics.errors import KinematicsError
from so101_kinematics.fk import Array, ForwardKinematics
from so101_kinematics.ik import IkResult, InverseKinematics

MODES = {ComputeIk.Request.POSITION, ComputeIk.Request.POSITION_PITCH, ComputeIk.Request.POSE}
# What a request can get wrong; each says so in a sentence.
REQUEST_ERRORS = (KinematicsError, DescriptionError, KeyError, ValueError)


class KinematicsServices:
    """Answers requests; one solver is kept for each TCP that is asked for.

    Args:
        tcp: TCP of requests that name none.
        base_frame: Frame of every pose.
        present: Returns the arm's present joints (5,) [rad], or None.
    """

    def __init__(self, tcp: str, base_frame: str, present: Callable[[], Array | None]) -> None:
        self._tcp = tcp
        self._base_frame = base_frame
        self._present = present
        self._solvers: dict[str, InverseKinematics] = {}

    def compute_fk(self, request: ComputeFk.Request, response: ComputeFk.Response) -> ComputeFk.Response:
        """Pose of the TCP for a joint vector."""
        try:
            q = joint_positions(request.joints, ARM_JOINTS)
            pose = self._solver(request.tcp).fk.pose(q)
        except REQUEST_ERRORS as error:
            response.success, response.message = False, _sentence(error)
            return response
        response.success = True
        response.pose.header.frame_id = self._base_frame
        response.pose.pose = pose_message(pose.position, pose.quat_xyzw)
        return response

    def compute_ik(self, request: ComputeIk.Request, response: ComputeIk.Response) -> ComputeIk.Response:
        """Joint vector for a pose of the TCP; the closest one where there is none."""
        try:
            result = self._solve(request)
        except REQUEST_ERRORS as error:
            response.success, response.message = False, _sentence(error)
            response.position_error = response.orientation_error = float('nan')
            return response
        response.success = result.success
        response.joints = joint_state(ARM_JOINTS, result.q.tolist())
        response.position_error = result.position_error
        response.orientation_error = max(result.pitch_error, result.orientation_error)
        if not result.success:
            response.message = (
                f'the target is out of reach: the closest pose is {1e3 * result.position_error:.1f} mm and '
                f'{np.degrees(response.orientation_error):.1f} degrees away.'
            )
        return response

    def _solve(self, request: ComputeIk.Request) -> IkResult:
        if request.mode not in MODES:
            raise ValueError(f'mode {request.mode} is not one of {sorted(MODES)}; see ComputeIk.')
        seed = joint_positions(request.seed, ARM_JOINTS) if request.seed.name else self._present()
        if seed is None:
            raise ValueError('the request has no seed and no joint_states have arrived; give a seed.')
        point, turn = request.target.position, request.target.orientation
        position = np.array([point.x, point.y, point.z])
        solver = self._solver(request.tcp)
        if request.mode == ComputeIk.Request.POSITION_PITCH:
            return solver.solve(position, seed, pitch=request.pitch, locked=request.locked)
        if request.mode == ComputeIk.Request.POSE:
            rotation = _rotation(np.array([turn.w, turn.x, turn.y, turn.z]))
            return solver.solve(position, seed, rotation=rotation, locked=request.locked)
        return solver.solve(position, seed, locked=request.locked)

    def _solver(self, tcp: str) -> InverseKinematics:
        name = tcp or self._tcp
        if name not in self._solvers:
            self._solvers[name] = InverseKinematics(ForwardKinematics(name))
        return self._solvers[name]


def present_arm(message: JointState | None) -> Array | None:
    """Arm joints (5,) [rad] of a message, or None where there is no usable one."""
    if message is None:
        return None
    try:
        return joint_positions(message, ARM_JOINTS)
    except (KeyError, ValueError):
        return None


def _rotation(quat_wxyz: Array) -> Array:
    from so101_contract.orientation import unit_quat_to_matrix

    norm = float(np.linalg.norm(quat_wxyz))
    if not np.isfinite(norm) or abs(norm - 1.0) > 1e-3:
        raise ValueError(f'expected a unit quaternion, got one of length {norm:.3g}; normalise it.')
    return unit_quat_to_matrix(quat_wxyz / norm)


def _sentence(error: Exception) -> str:
    # str() of a KeyError is the repr of its message.
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
