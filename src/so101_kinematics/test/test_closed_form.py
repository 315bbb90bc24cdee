# SPDX-License-Identifier: Apache-2.0
import math

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_contract.joints import ARM_JOINTS, JOINT_LIMITS_RAD
from so101_description.model import build_spec
from so101_description.tcp import TCP_PRESETS
from so101_kinematics.closed_form import ArmGeometry
from so101_kinematics.errors import KinematicsError
from so101_kinematics.fk import ForwardKinematics

ARMS = {}

arm_vectors = st.tuples(*(st.floats(*JOINT_LIMITS_RAD[name]) for name in ARM_JOINTS))


def arm(tcp):
    if tcp not in ARMS:
        fk = ForwardKinematics(tcp)
        ARMS[tcp] = fk, ArmGeometry.from_fk(fk)
    return ARMS[tcp]


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(tuple(TCP_PRESETS)), arm_vectors)
def test_every_pose_is_among_the_solutions_of_its_own_target(tcp, q):
    fk, geometry = arm(tcp)
    target = tuple(fk.pose(q).position.tolist())
    solutions = geometry.solve(target, fk.pitch(q), q[4])
    for solution in solutions:
        np.testing.assert_allclose(fk.pose(solution).position, target, atol=1e-9)
        assert math.isclose(math.cos(fk.pitch(solution) - fk.pitch(q)), 1.0, abs_tol=1e-12)
    # On the pan axis every pan reaches the target, and an elbow that is stretched out is two solutions in one.
    on_axis = math.hypot(target[0] - geometry.pan_x, target[1] - geometry.pan_y) < 0.03
    assert on_axis or min(np.abs(np.subtract(s, q)).max() for s in solutions) < 1e-3


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(tuple(TCP_PRESETS)), arm_vectors)
def test_the_forward_formula_is_that_of_the_model(tcp, q):
    fk, geometry = arm(tcp)
    np.testing.assert_allclose(geometry.position(q), fk.pose(q).position, atol=1e-6)


@pytest.mark.parametrize(
    ('pitch_deg', 'height', 'nearest', 'furthest'),
    [(90, 0.02, 0.088, 0.303), (75, 0.10, 0.148, 0.307), (60, 0.15, 0.178, 0.323), (45, 0.02, 0.194, 0.427)],
)
def test_the_reach_at_a_pitch_is_that_of_the_arm(pitch_deg, height, nearest, furthest):
    _, geometry = arm('so101')
    reached = [
        x
        for x in np.arange(0.06, 0.46, 0.001)
        if any(abs(q[0]) < 1.0 for q in geometry.solve((x, 0.0, height), math.radians(pitch_deg), 0.0))
    ]
    assert min(reached) == pytest.approx(nearest, abs=0.006)
    assert max(reached) == pytest.approx(furthest, abs=0.006)


def test_a_vertical_gripper_cannot_rise_above_9_cm():
    _, geometry = arm('so101')
    heights = [
        z
        for z in np.arange(0.0, 0.3, 0.002)
        if any(geometry.solve((x, 0.0, z), math.pi / 2, 0.0) for x in np.arange(0.08, 0.4, 0.01))
    ]
    assert max(heights) == pytest.approx(0.09, abs=0.003)


def test_a_roll_beyond_its_limit_has_no_solution():
    _, geometry = arm('so101')
    assert geometry.solve((0.25, 0.0, 0.1), 1.0, 0.0)
    assert not geometry.solve((0.25, 0.0, 0.1), 1.0, 3.0)


def test_a_locked_pan_is_served_by_roll():
    fk, geometry = arm('so101')
    q = (0.4, -0.3, 0.5, 0.6, 1.1)
    x, y, _ = fk.pose(q).position
    assert min(abs(roll - 1.1) for roll in geometry.roll_solutions(x, y, 0.4)) < 1e-9
    assert geometry.roll_solutions(x + 0.1, y + 0.1, 0.4) == []


def test_a_tcp_on_the_roll_axis_leaves_roll_nothing_to_do():
    preset_fk = ForwardKinematics('pick101')
    x, y, _ = preset_fk.pose(np.zeros(5)).position
    assert ArmGeometry.from_fk(preset_fk).roll_solutions(x, y, 0.3) == []


def test_an_arm_of_another_shape_is_refused():
    spec = build_spec(visuals='none', collision=False)
    spec.body('lower_arm').quat = [math.cos(0.45), 0.05, 0.0, math.sin(0.45)]
    with pytest.raises(KinematicsError, match='use a model of the SO-101'):
        ArmGeometry.from_fk(ForwardKinematics(spec.compile()))


def test_an_arm_with_other_lengths_is_accepted():
    spec = build_spec(visuals='none', collision=False)
    spec.body('lower_arm').pos = [-0.12257, -0.028, 0.0]
    fk = ForwardKinematics(spec.compile())
    geometry = ArmGeometry.from_fk(fk)
    q = (0.2, -0.3, 0.4, 0.9, -0.5)
    target = tuple(fk.pose(q).position.tolist())
    assert min(np.abs(np.subtract(s, q)).max() for s in geometry.solve(target, fk.pitch(q), -0.5)) < 1e-9
