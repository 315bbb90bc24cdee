# SPDX-License-Identifier: Apache-2.0
import math

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_kinematics.closed_form import ArmGeometry
from so101_kinematics.config import KinematicsConfig, Workspace
from so101_kinematics.errors import WorkspaceError
from so101_kinematics.fk import ForwardKinematics
from so101_kinematics.ik import InverseKinematics

BOX = Workspace((0.10, -0.25, 0.01), (0.40, 0.25, 0.30))
points = st.tuples(*[st.floats(-1.0, 1.0)] * 3)


def inside(box, point):
    return all(low <= x <= high for low, x, high in zip(box.lower, point, box.upper, strict=True))


def reachable_pitches(geometry, position, roll=0.0):
    """Return the approach pitches that the arm can take at a point, facing it."""
    x, y, z = (float(v) for v in np.asarray(position, dtype=np.float64))
    planes = [(pan, forward) for pan, forward in geometry.pan_solutions(x, y, roll) if forward >= 0.0]
    grid = np.arange(-180, 181) * math.radians(1.0)
    found = [
        pitch
        for pitch in grid.tolist()
        if any(geometry.solve_in_plane(pan, forward, z, pitch, roll) for pan, forward in planes)
    ]
    return np.array(found)


def is_reachable(geometry, position, roll=0.0):
    """Return whether the TCP reaches a point (3,) [m] with some pitch, facing it, at a given roll [rad]."""
    return len(reachable_pitches(geometry, position, roll)) > 0


@given(points)
def test_clamping_ends_inside_and_says_whether_it_did_anything(point):
    clamped, clipped = BOX.clamp(point)
    assert inside(BOX, clamped)
    assert clipped == (not inside(BOX, point))
    assert clipped == (tuple(clamped) != point)
    np.testing.assert_array_equal(BOX.clamp(clamped)[0], clamped)


@given(points, points)
def test_no_point_of_the_box_is_closer_than_the_clamped_one(point, other):
    clamped, _ = BOX.clamp(point)
    inside, _ = BOX.clamp(other)
    assert np.linalg.norm(clamped - point) <= np.linalg.norm(inside - point) + 1e-12


@given(points)
def test_an_extended_box_holds_the_point_and_the_box(point):
    extended = BOX.extended_to(point)
    assert inside(extended, point)
    assert inside(extended, BOX.lower)
    assert inside(extended, BOX.upper)


def test_the_box_does_not_change():
    BOX.extended_to((9.0, 9.0, 9.0))
    assert BOX.upper == (0.40, 0.25, 0.30)


@pytest.mark.parametrize(
    ('lower', 'upper'),
    [
        ((0, 0, 0), (1, 0, 1)),
        ((0, 0, 1), (1, 1, 0)),
        ((0, 0), (1, 1)),
        ((0, 0, math.nan), (1, 1, 1)),
        ((0, 0, 0), (1, 1, math.inf)),
    ],
)
def test_a_box_without_inside_is_refused(lower, upper):
    with pytest.raises(WorkspaceError, match='workspace'):
        Workspace(lower, upper)


@pytest.fixture(scope='module')
def geometry():
    return ArmGeometry.from_fk(ForwardKinematics())


def test_the_arm_reaches_most_of_the_default_workspace(geometry):
    box = KinematicsConfig().workspace
    rng = np.random.default_rng(0)
    inside = rng.uniform(box.lower, box.upper, (150, 3))
    reached = [is_reachable(geometry, point) for point in inside]
    assert np.mean(reached) > 0.85


def test_reachable_pitches_are_those_that_can_be_solved_for(geometry):
    ik = InverseKinematics()
    pitches = reachable_pitches(geometry, (0.25, 0.05, 0.1), roll=0.2)
    assert len(pitches) > 20
    for pitch in pitches[::10]:
        assert ik.solve((0.25, 0.05, 0.1), (0, 0, 0, 0, 0.2), pitch=pitch, locked=['wrist_roll']).success
    steeper = pitches.max() + math.radians(4)
    assert not ik.solve((0.25, 0.05, 0.1), (0, 0, 0, 0, 0.2), pitch=steeper, locked=['wrist_roll']).success


def test_the_steepest_pitch_falls_with_the_height(geometry):
    steepest = [reachable_pitches(geometry, (0.22, 0.0, z)).max() for z in (0.02, 0.10, 0.15, 0.20)]
    assert steepest == sorted(steepest, reverse=True)
    assert steepest[0] > math.radians(89)
    assert steepest[-1] < math.radians(60)


def test_a_point_out_of_reach_has_no_pitch(geometry):
    assert len(reachable_pitches(geometry, (0.9, 0.0, 0.1))) == 0
    assert not is_reachable(geometry, (0.9, 0.0, 0.1))
    assert not is_reachable(geometry, (-0.3, 0.0, 0.1))  # behind the arm, where pan cannot turn
