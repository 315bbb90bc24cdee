# SPDX-License-Identifier: Apache-2.0
"""The state vector of an arm from its joints: one function for live messages, bags and policies."""

from so101_contract.assembly import FloatArray, StateOf
from so101_contract.observation import state_builder
from so101_contract.observation_spec import ObservationSpec
from so101_kinematics.fk import ForwardKinematics


def state_function(spec: ObservationSpec) -> StateOf:
    """Return what turns joint positions (6,) [rad] and velocities (6,) [rad/s] into the state vector (D,).

    Raises:
        ObservationError: the spec has blocks that the arm alone does not tell, such as the cube's position.
    """
    fk = ForwardKinematics(spec.tcp)

    def tcp_pose(joints: FloatArray) -> tuple[FloatArray, FloatArray]:
        pose = fk.pose(joints)
        return pose.position, pose.rotation

    return state_builder(spec, tcp_pose)
