# SPDX-License-Identifier: Apache-2.0
import math
import os
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_contract.joints import ARM_JOINTS, JOINT_LIMITS_RAD
from so101_kinematics.fk import ForwardKinematics
from so101_kinematics.orientation import angle_between, fit_pitch_and_roll, pitch_and_roll

FK = ForwardKinematics()
AT_ZERO = FK.pose(np.zeros(5)).rotation

arm_vectors = st.tuples(*(st.floats(*JOINT_LIMITS_RAD[name]) for name in ARM_JOINTS))


def about_z(angle):
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize('angle', [0.0, 1e-9, 1e-4, 1.0, math.pi - 1e-9, math.pi])
def test_the_angle_between_rotations_is_exact_for_all_angles(angle):
    assert angle_between(np.eye(3), about_z(angle)) == pytest.approx(angle, abs=1e-15)
    assert angle_between(about_z(angle), np.eye(3)) == pytest.approx(angle, abs=1e-15)


@settings(deadline=None, max_examples=100)
@given(arm_vectors)
def test_pitch_and_roll_of_a_pose_are_found_at_its_own_pan(q):
    rest, pitch, roll = fit_pitch_and_roll(FK.pose(q).rotation, AT_ZERO, q[0])
    assert rest < 1e-5
    found = FK.pose((q[0], pitch, 0.0, 0.0, roll)).rotation
    assert angle_between(FK.pose(q).rotation, found) < 1e-5


@settings(deadline=None, max_examples=100)
@given(arm_vectors)
def test_one_of_two_decompositions_is_that_of_the_arm(q):
    rotation = FK.pose(q).rotation
    pitch = FK.pitch(q)
    if abs(math.cos(pitch)) < 1e-3:  # straight up or down, pan and roll are one turn
        return
    errors = [
        abs(math.remainder(pitch - p, math.tau)) + abs(math.remainder(q[4] - r, math.tau))
        for p, r in pitch_and_roll(rotation, AT_ZERO)
    ]
    assert min(errors) < 1e-3


def test_no_other_pitch_and_roll_come_closer():
    rng = np.random.default_rng(0)
    for _ in range(20):
        wanted = FK.pose(rng.uniform(FK.lower, FK.upper)).rotation @ about_z(rng.uniform(-0.3, 0.3))
        pan = rng.uniform(-0.5, 0.5)
        rest, pitch, roll = fit_pitch_and_roll(wanted, AT_ZERO, pan)
        for _ in range(50):
            other = rng.normal(size=2) * 0.1
            turned = FK.pose((pan, pitch + other[0], 0.0, 0.0, roll + other[1])).rotation
            assert angle_between(wanted, turned) >= rest - 1e-6


def test_the_pure_part_needs_no_ros():
    code = (
        'import sys, so101_kinematics.ee_controller, so101_kinematics.ik;'
        'sys.exit(any(name.startswith("rclpy") for name in sys.modules))'
    )
    environment = os.environ | {'PYTHONPATH': os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, '-c', code], env=environment, check=True, timeout=600)
