# SPDX-License-Identifier: Apache-2.0
import math

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_contract.joints import ARM_JOINTS, JOINT_LIMITS_RAD
from so101_kinematics.closed_form import ArmGeometry
from so101_kinematics.fk import ForwardKinematics
from so101_kinematics.starts import closest_solution

FK = ForwardKinematics()
GEOMETRY = ArmGeometry.from_fk(FK)

arm_vectors = st.tuples(*(st.floats(*JOINT_LIMITS_RAD[name]) for name in ARM_JOINTS))


def pairs(count, seed):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        goal, here = rng.uniform(FK.lower, FK.upper, (2, 5))
        yield tuple(FK.pose(goal).position.tolist()), tuple(here.tolist()), tuple(goal.tolist())


def on_a_fine_grid(position, here, roll):
    """The distance of the closest solution, over every pitch."""
    return min(
        (
            math.dist(q, here)
            for pitch in np.radians(np.arange(0.0, 360.0, 0.5)).tolist()
            for q in GEOMETRY.solve(position, pitch, roll)
        ),
        default=math.inf,
    )


def test_the_solution_reaches_the_position_within_limits_and_keeps_the_roll():
    for position, here, _ in pairs(300, 0):
        q = closest_solution(GEOMETRY, position, here, here[4])
        if q is not None:
            np.testing.assert_allclose(FK.pose(q).position, position, atol=1e-9)
            assert (np.array(q) >= FK.lower).all()
            assert (np.array(q) <= FK.upper).all()
            assert q[4] == here[4]


def test_it_is_the_closest_one_nearly_always_and_close_to_it_otherwise():
    excess = []
    for position, here, _ in pairs(120, 1):
        q = closest_solution(GEOMETRY, position, here, here[4])
        best = on_a_fine_grid(position, here, here[4])
        if q is None:
            assert math.isinf(best)
        else:
            excess.append(math.dist(q, here) - best)
    assert np.percentile(excess, 75) < 0.02
    assert np.percentile(excess, 95) < 0.5


@settings(deadline=None, max_examples=100)
@given(arm_vectors)
def test_an_arm_that_is_there_stays_there(q):
    position = tuple(FK.pose(q).position.tolist())
    found = closest_solution(GEOMETRY, position, q, q[4])
    assert found is not None
    assert math.dist(found, q) < 1e-5


def test_following_a_target_is_smooth():
    here = (0.1, -0.4, 0.5, 0.8, 0.3)
    x, y, z = FK.pose(here).position
    for i in range(1, 100):
        angle = 0.05 * i
        target = (
            x + 0.02 * math.sin(angle),
            y + 0.02 * math.cos(angle) - 0.02,
            z + 0.01 * math.sin(2 * angle),
        )
        found = closest_solution(GEOMETRY, target, here, 0.3)
        assert math.dist(found, here) < 0.02
        here = found


@pytest.mark.parametrize(
    'position', [(0.9, 0.0, 0.1), (0.25, 0.0, -0.6), (0.0388, 0.0, 0.1), (-0.3, 0.0, 0.1)]
)
def test_what_cannot_be_reached_has_no_solution(position):
    here = (0.1, -0.4, 0.5, 0.8, 0.3)
    assert (closest_solution(GEOMETRY, position, here, 0.3) is None) == math.isinf(
        on_a_fine_grid(position, here, 0.3)
    )
