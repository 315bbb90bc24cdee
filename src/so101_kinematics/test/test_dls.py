# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from so101_kinematics.fk import ForwardKinematics
from so101_kinematics.ik import InverseKinematics
from so101_kinematics.profiles import dls_step


@pytest.fixture(scope='module')
def fk():
    return ForwardKinematics('pick101')


def poses(fk, count):
    """Random joint vectors whose TCP is in the workspace of pick-101, well inside the limits."""
    rng = np.random.default_rng(0)
    found = []
    while len(found) < count:
        q = rng.uniform(0.9 * fk.lower, 0.9 * fk.upper)
        p = fk.pose(q).position
        if 0.10 < p[0] < 0.50 and abs(p[1]) < 0.30 and 0.01 < p[2] < 0.40:
            found.append((q, rng.normal(size=3)))
    return found


def test_the_step_is_that_of_the_normal_equations(fk):
    for q, direction in poses(fk, 20):
        delta = 0.02 * direction / np.linalg.norm(direction)
        J = fk.jacobian(q)[:3]
        dq = np.linalg.solve(J.T @ J + 0.1**2 * np.eye(5), J.T @ delta)
        expected = np.clip(q + 0.5 * np.clip(dq, -0.5, 0.5), fk.lower, fk.upper)
        np.testing.assert_allclose(dls_step(fk, q, delta, gain=0.5), expected, atol=1e-12)


@pytest.mark.parametrize(('damping', 'median'), [(0.1, 0.77), (0.05, 0.91), (0.01, 1.00)])
def test_A5_a_single_damped_step_realises_part_of_a_displacement_only(fk, damping, median):
    parts = []
    for q, direction in poses(fk, 400):
        unit = direction / np.linalg.norm(direction)
        J = fk.jacobian(q)[:3]
        dq = dls_step(fk, q, 0.02 * unit, damping=damping, max_step=10.0) - q
        parts.append(J @ dq @ unit / 0.02)
    assert np.median(parts) == pytest.approx(median, abs=0.05)


def test_A5_the_iteration_realises_all_of_it(fk):
    ik = InverseKinematics(fk)
    for q, direction in poses(fk, 100):
        goal = fk.pose(q).position + 0.02 * direction / np.linalg.norm(direction)
        result = ik.solve(goal, q)
        if result.success:
            assert np.linalg.norm(fk.pose(result.q).position - goal) < 5e-4


def test_joints_that_are_not_free_keep_their_place(fk):
    q = np.array([0.1, -0.3, 0.5, 0.6, 0.2])
    free = np.array([True, True, True, False, False])
    moved = dls_step(fk, q, np.array([0.02, 0.01, 0.0]), free=free)
    np.testing.assert_array_equal(moved[3:], q[3:])
    assert (moved[:3] != q[:3]).all()


def test_no_step_leaves_the_limits_or_exceeds_its_own(fk):
    for q, direction in poses(fk, 50):
        moved = dls_step(fk, q, 10.0 * direction)
        assert (moved >= fk.lower).all()
        assert (moved <= fk.upper).all()
        assert np.abs(moved - q).max() <= 0.5 + 1e-12
