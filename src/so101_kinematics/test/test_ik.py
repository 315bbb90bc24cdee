# SPDX-License-Identifier: Apache-2.0
import math

from hypothesis import assume, given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_contract.joints import ARM_JOINTS, JOINT_LIMITS_RAD
from so101_kinematics.descent import Preference
from so101_kinematics.errors import IkError
from so101_kinematics.fk import ForwardKinematics, PITCH_ROW
from so101_kinematics.ik import IkOptions, InverseKinematics
from so101_kinematics.profiles import KEEP_GRIPPER

TOLERANCE_M = 5e-4
SOLVERS = {}

arm_vectors = st.tuples(*(st.floats(*JOINT_LIMITS_RAD[name]) for name in ARM_JOINTS)).map(np.array)
locks = st.sets(st.sampled_from(ARM_JOINTS)).map(sorted)


def solver(tcp='so101', **options):
    key = (tcp, *sorted(options.items()))
    if key not in SOLVERS:
        SOLVERS[key] = InverseKinematics(ForwardKinematics(tcp), IkOptions(**options))
    return SOLVERS[key]


def check(ik, result, seed, locked=()):
    """What holds for every result, found or not."""
    q = result.q[:5]
    assert np.isfinite(q).all()
    assert (q >= ik.fk.lower).all()
    assert (q <= ik.fk.upper).all()
    for name in locked:
        i = ARM_JOINTS.index(name)
        assert q[i] == pytest.approx(seed[i], abs=1e-12)


def targets(ik, count, seed=0):
    """Random reachable targets and random seeds, both anywhere within the limits."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.uniform(ik.fk.lower, ik.fk.upper), rng.uniform(ik.fk.lower, ik.fk.upper), rng


@pytest.mark.parametrize('tcp', ['so101', 'pick101'])
def test_A5_every_random_reachable_position_is_found_from_a_random_seed(tcp):
    ik = solver(tcp)
    missed = 0
    for goal, seed, _ in targets(ik, 1000):
        position = ik.fk.pose(goal).position
        result = ik.solve(position, seed)
        check(ik, result, seed)
        error = np.linalg.norm(ik.fk.pose(result.q).position - position)
        assert error == pytest.approx(result.position_error, abs=1e-12)
        missed += error > TOLERANCE_M
        assert result.success == (error <= TOLERANCE_M)
    assert missed <= 5  # of 1000; 0 on the machines tried


@pytest.mark.parametrize('tcp', ['so101', 'pick101'])
def test_A5_every_random_reachable_position_with_pitch_is_found_from_a_random_seed(tcp):
    ik = solver(tcp)
    missed = 0
    for goal, seed, _ in targets(ik, 500, seed=1):
        position, pitch = ik.fk.pose(goal).position, ik.fk.pitch(goal)
        result = ik.solve(position, seed, pitch=pitch)
        check(ik, result, seed)
        if result.success:
            assert np.linalg.norm(ik.fk.pose(result.q).position - position) <= TOLERANCE_M
            assert abs(math.remainder(ik.fk.pitch(result.q) - pitch, math.tau)) <= 5e-3
        missed += not result.success
    assert missed <= 2


def test_every_random_reachable_pose_is_found():
    ik = solver()
    for goal, seed, _ in targets(ik, 300, seed=2):
        pose = ik.fk.pose(goal)
        result = ik.solve(pose.position, seed, rotation=pose.rotation)
        check(ik, result, seed)
        assert result.success, (goal, seed, result)


@pytest.mark.parametrize('with_pitch', [False, True], ids=['position', 'position and pitch'])
def test_A8_targets_that_locked_joints_leave_reachable_are_found(with_pitch):
    ik = solver()
    missed = 0
    for goal, seed, rng in targets(ik, 250, seed=3):
        locked = [ARM_JOINTS[i] for i in rng.choice(5, rng.integers(1, 4), replace=False)]
        for name in locked:
            seed[ARM_JOINTS.index(name)] = goal[ARM_JOINTS.index(name)]
        pitch = ik.fk.pitch(goal) if with_pitch else None
        result = ik.solve(ik.fk.pose(goal).position, seed, pitch=pitch, locked=locked)
        check(ik, result, seed, locked)
        missed += not result.success
    assert missed <= 1


@settings(deadline=None, max_examples=80)
@given(
    st.tuples(*[st.floats(-1.0, 1.0)] * 3),
    arm_vectors,
    st.none() | st.floats(-10.0, 10.0),
    locks,
    st.sampled_from((0, 4)),
)
def test_whatever_is_asked_the_answer_is_within_limits(position, seed, pitch, locked, restarts):
    ik = solver(restarts=restarts)
    result = ik.solve(position, seed, pitch=pitch, locked=locked)
    check(ik, result, seed, locked)
    assert result.position_error >= 0.0
    again = ik.solve(position, seed, pitch=pitch, locked=locked)
    np.testing.assert_array_equal(result.q, again.q)


def test_the_answer_does_not_depend_on_what_was_asked_before():
    fresh, used = InverseKinematics(), solver()
    for goal, seed, _ in targets(fresh, 10, seed=4):
        position = fresh.fk.pose(goal).position
        np.testing.assert_array_equal(
            InverseKinematics().solve(position, seed).q, used.solve(position, seed).q
        )


@pytest.mark.parametrize(
    'position', [(0.9, 0.0, 0.2), (0.0, 0.0, 1.0), (0.2, 0.1, -0.4), (-0.6, 0.2, 0.1)], ids=str
)
def test_a_target_out_of_reach_yields_the_closest_point(position):
    ik = solver()
    seed = (0.0, -0.3, 0.5, 0.6, 0.0)
    result = ik.solve(position, seed)
    check(ik, result, seed)
    assert not result.success
    rng = np.random.default_rng(0)
    anywhere = ik.fk.positions(rng.uniform(ik.fk.lower, ik.fk.upper, (20000, 5)))
    assert result.position_error <= np.linalg.norm(anywhere - position, axis=1).min() + 1e-3


def test_a_pitch_out_of_reach_gives_way_to_the_position():
    ik = solver()
    result = ik.solve((0.25, 0.0, 0.2), (0.0, -0.3, 0.5, 0.6, 0.0), pitch=math.pi / 2)
    assert not result.success
    assert result.position_error < TOLERANCE_M
    steepest = max(
        pitch
        for pitch in np.arange(0.0, math.pi / 2, 0.005)
        if ik.geometry.solve((0.25, 0.0, 0.2), float(pitch), float(result.q[4]))
    )
    assert math.pi / 2 - result.pitch_error == pytest.approx(steepest, abs=0.02)


def test_whole_turns_of_pitch_do_not_matter():
    ik = solver()
    seed = (0.1, -0.3, 0.5, 0.6, 0.2)
    for turns in (-1, 1):
        result = ik.solve((0.25, 0.05, 0.1), seed, pitch=0.9 + turns * math.tau)
        assert result.success
        assert ik.fk.pitch(result.q) == pytest.approx(0.9, abs=5e-3)


def test_an_orientation_that_five_joints_cannot_take_is_approached_with_the_position_kept():
    ik = solver()
    rng = np.random.default_rng(5)
    for goal, seed, _ in targets(ik, 40, seed=6):
        pose = ik.fk.pose(goal)
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
        turn = np.eye(3) + math.sin(0.1) * cross + (1 - math.cos(0.1)) * cross @ cross
        result = ik.solve(pose.position, seed, rotation=turn @ pose.rotation)
        check(ik, result, seed)
        assert result.position_error <= TOLERANCE_M
    near = ik.solve(pose.position, goal, rotation=pose.rotation)
    assert near.success
    assert near.orientation_error < 1e-6


def test_a_mirrored_or_stretched_matrix_is_no_rotation():
    for matrix in (np.diag([1.0, 1.0, -1.0]), 1.1 * np.eye(3), np.zeros((3, 3))):
        with pytest.raises(IkError, match='rotation matrix'):
            solver().solve((0.25, 0.0, 0.1), np.zeros(5), rotation=matrix)


@pytest.mark.parametrize(
    'bad',
    [
        {'position': (math.nan, 0.0, 0.1)},
        {'position': (0.2, 0.1)},
        {'position': 'here'},
        {'seed': [math.nan] * 5},
        {'seed': np.zeros(7)},
        {'posture': [math.inf] * 5},
        {'pitch': math.nan},
        {'rotation': np.full((3, 3), math.nan)},
        {'locked': ['wrist']},
        {'pitch': 1.0, 'rotation': np.eye(3)},
    ],
    ids=str,
)
def test_A14_what_is_no_question_raises(bad):
    question = {'position': (0.25, 0.0, 0.1), 'seed': np.zeros(5)} | bad
    with pytest.raises(IkError, match='expected'):
        solver().solve(**question)


def test_a_joint_locked_outside_its_limits_raises():
    with pytest.raises(IkError, match='shoulder_lift'):
        solver().solve((0.25, 0.0, 0.1), (0.0, -1.84, 1.7, 0.7, 0.0), locked=['shoulder_lift'])


def test_a_seed_outside_the_limits_is_brought_back():
    seed = (-0.06, -1.84, 1.71, 0.72, -0.11)
    result = solver().solve((0.25, 0.0, 0.1), seed)
    check(solver(), result, seed)
    assert result.success


def test_with_everything_locked_nothing_moves():
    seed = np.array([0.1, -0.3, 0.5, 0.6, 0.2])
    result = solver().solve((0.25, 0.0, 0.1), seed, locked=ARM_JOINTS)
    np.testing.assert_array_equal(result.q, seed)
    assert not result.success


def test_the_gripper_comes_back_as_it_went_in():
    result = solver().solve((0.25, 0.0, 0.1), (0.0, -0.3, 0.5, 0.6, 0.0, 1.2), locked=['gripper'])
    assert result.q.shape == (6,)
    assert result.q[5] == 1.2


def test_arguments_are_not_changed():
    position, seed, posture = np.array([0.25, 0.05, 0.1]), np.full(5, 0.3), np.full(5, 0.2)
    solver().solve(position, seed, posture=posture)
    np.testing.assert_array_equal(position, [0.25, 0.05, 0.1])
    np.testing.assert_array_equal(seed, np.full(5, 0.3))
    np.testing.assert_array_equal(posture, np.full(5, 0.2))


def test_a_target_at_the_seed_moves_nothing():
    ik = solver()
    for goal, _, _ in targets(ik, 20, seed=7):
        result = ik.solve(ik.fk.pose(goal).position, goal)
        np.testing.assert_allclose(result.q, goal, atol=1e-9)


def test_of_the_solutions_nearby_the_one_closest_to_the_posture_is_found():
    ik = solver()
    beaten = 0
    for goal, _, rng in targets(ik, 60, seed=8):
        position = ik.fk.pose(goal).position
        posture = np.clip(goal + rng.normal(size=5) * 0.3, ik.fk.lower, ik.fk.upper)
        result = ik.solve(position, goal, posture=posture)
        assert result.success
        cost = np.linalg.norm(result.q - posture)
        assert cost <= np.linalg.norm(goal - posture) + 1e-9
        around = np.clip(result.q + rng.normal(size=(20, 5)) * 0.1, ik.fk.lower, ik.fk.upper)
        closest = min(np.linalg.norm(ik.solve(position, q).q - posture) for q in around)
        beaten += closest < cost - 0.02
    assert beaten <= 3  # at a joint limit two families of solutions meet, and only one is descended into


def tracked(ik, start, direction, with_pitch):
    """Follow a straight line in steps of a millimetre as far as it goes; yield consecutive solutions."""
    q = start
    pitch = ik.fk.pitch(start) if with_pitch else None
    begin = ik.fk.pose(start).position
    for i in range(1, 81):
        result = ik.solve(begin + 0.001 * i * direction, q, pitch=pitch)
        if not result.success:
            return
        yield q, result.q
        q = result.q


@pytest.mark.parametrize('with_pitch', [False, True], ids=['position', 'position and pitch'])
def test_A11_a_millimetre_never_moves_a_joint_by_five_degrees_away_from_singularities(with_pitch):
    ik = solver(restarts=0)
    steps = 0
    for start, _, rng in targets(ik, 60, seed=9):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        for before, after in tracked(ik, start, direction, with_pitch):
            J = ik.fk.jacobian(before)[:3]
            if with_pitch:
                J = np.vstack((J, 0.1 * PITCH_ROW))
            # A joint at its limit does not take part: what the others can do must not be singular.
            J = J[:, (after > ik.fk.lower + 0.05) & (after < ik.fk.upper - 0.05)]
            if J.shape[1] < len(J) or np.linalg.svd(J)[1][-1] < 0.02:
                continue
            assert np.degrees(np.abs(after - before).max()) < 5.0
            steps += 1
    assert steps > 1000


def test_A11_with_restarts_the_arm_jumps_only_where_it_cannot_go_on():
    ik, local = solver(), solver(restarts=0)
    jumps = 0
    for start, _, rng in targets(ik, 60, seed=10):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        for before, after in tracked(ik, start, direction, with_pitch=False):
            if np.degrees(np.abs(after - before).max()) > 20.0:
                stays = local.solve(ik.fk.pose(after).position, before)
                assert not stays.success or np.degrees(np.abs(stays.q - before).max()) > 20.0
                jumps += 1
    assert jumps < 30


def test_A11_rising_with_a_vertical_gripper_tilts_it_smoothly_and_back():
    ik = solver(restarts=0)
    start = np.array(ik.geometry.solve((0.22, 0.02, 0.03), math.pi / 2, 0.3)[-1])
    rng = np.random.default_rng(0)
    q = start
    up = np.arange(0.03, 0.28, 0.004)
    for z in (*up, *up[::-1]):
        noisy = np.clip(q + rng.normal(size=5) * 0.01, ik.fk.lower, ik.fk.upper)
        result = ik.solve((0.22, 0.02, z), noisy, posture=start, preference=KEEP_GRIPPER)
        assert result.success
        assert np.degrees(np.abs(result.q - q).max()) < 4.0
        assert result.q[4] == pytest.approx(0.3, abs=0.06)  # roll
        if z < 0.08:
            assert ik.fk.pitch(result.q) == pytest.approx(math.pi / 2, abs=0.01)
        q = result.q
    np.testing.assert_allclose(q, start, atol=0.02)


@settings(deadline=None, max_examples=60)
@given(arm_vectors, st.tuples(*[st.floats(-0.03, 0.03)] * 3))
def test_without_restarts_the_configuration_is_kept(start, offset):
    ik = solver(restarts=0)
    position = ik.fk.pose(start).position
    J = ik.fk.jacobian(start)[:3]
    assume(np.linalg.svd(J)[1][-1] > 0.03)
    result = ik.solve(position + offset, start)
    assert np.abs(result.q - start)[:4].max() < 1.6  # roll may turn far: it hardly moves anything


@pytest.mark.parametrize(
    'options',
    [{'position_tolerance': 0.0}, {'pitch_tolerance': -1.0}, {'max_iterations': 0}, {'restarts': -1}],
    ids=str,
)
def test_options_that_make_no_sense_raise(options):
    with pytest.raises(IkError, match='expected positive'):
        IkOptions(**options)


def test_a_preference_for_the_pitch_keeps_it():
    ik = solver()
    start = np.array([0.0, -0.3, 0.5, 0.6, 0.0])
    position = ik.fk.pose(start).position + np.array((0.05, 0.03, 0.04))
    plain = ik.solve(position, start)
    level = ik.solve(position, start, preference=Preference(pitch_weight=1e3))
    assert abs(ik.fk.pitch(level.q) - 0.8) < 0.01 < abs(ik.fk.pitch(plain.q) - 0.8)
