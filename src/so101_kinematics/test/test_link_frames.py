# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from so101_contract.joints import JOINT_LIMITS_RAD, JOINT_NAMES
from so101_description.pose import Pose
from so101_description.urdf import urdf_text
from so101_kinematics.fk import ForwardKinematics
from so101_kinematics.visualization import LinkFrames


@pytest.mark.parametrize('tcp', ['so101', 'pick101'])
def test_the_chain_of_transforms_ends_where_forward_kinematics_does(tcp):
    frames, fk = LinkFrames(urdf_text(tcp=tcp)), ForwardKinematics(tcp)
    random = np.random.default_rng(1)
    for _ in range(50):
        q = {name: random.uniform(*JOINT_LIMITS_RAD[name]) for name in JOINT_NAMES}
        parents = {t.child: t for t in [*frames.fixed(), *frames.moving(q)]}
        pose, link = Pose((0.0, 0.0, 0.0)), 'gripper_frame_link'
        while link != 'base_link':
            transform = parents[link]
            pose, link = Pose(transform.position, transform.quat) @ pose, transform.parent
        expected = fk.pose(list(q.values()))
        assert np.allclose(pose.position, expected.position, atol=1e-9)
        assert np.allclose(pose.rotation(), expected.rotation, atol=1e-9)


def test_joints_without_a_position_are_left_out():
    moving = LinkFrames(urdf_text()).moving({'gripper': 0.3})
    assert [transform.child for transform in moving] == ['moving_jaw_so101_v1_link']
