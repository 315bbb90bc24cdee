# SPDX-License-Identifier: Apache-2.0
import itertools
import math

from hypothesis import assume, given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.registers import TICKS_PER_TURN
from so101_driver.calibration.calibration import CalibrationError, RAD_PER_TICK
from so101_driver.calibration.checks import travel_of_model
from so101_driver.calibration.procedure import ArmSweep, JointSweep
from so101_driver.calibration.servo import full_turn_joint, MID_TICK, reported_after, swept_joint

TARGET = travel_of_model('shoulder_pan') / RAD_PER_TICK


def seam_inside(sweep):
    return sweep.low // TICKS_PER_TURN != sweep.high // TICKS_PER_TURN


def strokes(start, low, high, rounds=2, step=40):
    """Positions of a joint that a hand moves from `start` to both stops, `rounds` times, and back."""
    corners = [start, *([low, high] * rounds), start]
    path = [start]
    for a, b in itertools.pairwise(corners):
        path += list(np.rint(np.linspace(a, b, 2 + abs(b - a) // step)).astype(int))
        path += [b] * 2
    return path


def swept(path, target=TARGET):
    sweep = JointSweep(target)
    for position in path:
        sweep.update(position % TICKS_PER_TURN)
    return sweep


def test_a_joint_that_went_twice_to_both_stops_is_done():
    sweep = swept(strokes(2000, 800, 3300))
    assert (sweep.low, sweep.high) == (800, 3300)
    assert sweep.visits == (2, 2)
    assert sweep.done
    assert sweep.advice == ''
    assert not seam_inside(sweep)


def test_one_round_is_not_enough():
    sweep = swept(strokes(2000, 800, 3300, rounds=1))
    assert not sweep.done
    assert 'again' in sweep.advice


@pytest.mark.parametrize('rounds', [2, 5])
def test_a_joint_that_never_reached_its_stops_is_not_done(rounds):
    sweep = swept(strokes(2000, 1400, 2900, rounds=rounds))
    assert not sweep.done
    assert sweep.advice == 'go stop to stop'


def test_a_stop_that_gives_way_must_be_visited_again():
    sweep = swept(strokes(2000, 800, 3200) + strokes(2000, 800, 3300, rounds=1))
    assert sweep.visits[1] == 1
    assert not sweep.done


def test_a_joint_that_turns_too_far_is_never_done():
    sweep = swept(strokes(2000, 100, 4000, rounds=3))
    assert not sweep.done
    assert 'too far' in sweep.advice


def test_P3_a_seam_inside_the_travel_is_found_and_the_travel_is_right():
    sweep = swept(strokes(100, -1100, 1400))  # the servo reports 2996..4095 and 0..1400
    assert sweep.travel == 2500
    assert seam_inside(sweep)
    assert sweep.done


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 4095),
    st.integers(2260, 2900),
    st.floats(0.1, 0.9),
    st.integers(10, 300),
)
def test_P3_the_travel_is_right_wherever_the_seam_lies(low, travel, where, step):
    start = int(low + where * travel)
    sweep = swept(strokes(start, low, low + travel, step=step))
    assert sweep.travel == travel
    assert sweep.low % TICKS_PER_TURN == low
    assert sweep.done
    assert sweep.restarts == 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_single_misread_samples_change_nothing(data):
    path = strokes(2000, -300, 2300)
    expected = swept(path)
    for _ in range(5):
        at = data.draw(st.integers(3, len(path) - 3))
        path = [*path[:at], data.draw(st.integers(0, 4095)), *path[at:]]
    # Two misread samples in a row that agree with each other cannot be told from a jump.
    sweep = swept(path)
    assume(sweep.restarts == 0)
    assert abs(sweep.travel - expected.travel) <= 520


def test_one_misread_sample_anywhere_is_dropped():
    path = strokes(2000, 800, 3300)
    for at in range(1, len(path) - 1, 7):
        for wrong in (0, 1234, 4095):
            sweep = swept([*path[:at], wrong, *path[at:]])
            assert (sweep.low, sweep.high) == (800, 3300), (at, wrong)


def test_a_joint_that_jumps_half_a_turn_starts_anew():
    sweep = swept([*strokes(2000, 800, 3300), 3900, 3900, 3900])
    assert sweep.restarts == 1
    assert sweep.travel == 0
    assert not sweep.done


def test_a_fast_move_after_a_gap_in_the_stream_is_followed():
    sweep = swept([2000, 2010, 3000, 3010, 3020, 3020])
    assert sweep.position == 3020
    assert sweep.high == 3020


def test_P3_positions_of_many_turns_are_taken_modulo_one():
    path = strokes(2000, 800, 3300)
    sweep = JointSweep(TARGET)
    for position in path:
        sweep.update(position + 3 * TICKS_PER_TURN)
    assert sweep.travel == 2500


def test_the_wrist_roll_is_not_swept():
    arm = ArmSweep()
    assert list(arm.joints) == [name for name in JOINT_NAMES if name != 'wrist_roll']


def test_the_arm_is_done_when_every_joint_is():
    arm = ArmSweep()
    paths = {}
    for name in arm.joints:
        travel = round(travel_of_model(name) / RAD_PER_TICK)
        paths[name] = strokes(2000, 2000 - travel // 2, 2000 + travel // 2)
    length = max(map(len, paths.values()))
    for i in range(length):
        arm.update({name: path[i] for name, path in paths.items() if i < len(path)})
        if i < length // 2:
            assert not arm.done
    assert arm.done


def test_progress_is_in_degrees_around_the_middle():
    arm = ArmSweep()
    for tick in (2000, 2000, 3024, 3024, 3024):
        arm.update({'elbow_flex': tick})
    (elbow,) = (p for p in arm.progress() if p.name == 'elbow_flex')
    assert elbow.travel == pytest.approx(90)
    assert (elbow.low, elbow.position, elbow.high) == pytest.approx((-45, 45, 45))
    assert elbow.target == pytest.approx(math.degrees(3.38))
    assert not elbow.done
    untouched = arm.progress()[0]
    assert untouched.travel == 0


@settings(max_examples=200, deadline=None)
@given(st.integers(-2047, 2047), st.integers(-4095, 8190), st.integers(1, 4090))
def test_P3_any_travel_ends_up_around_mid_encoder_with_an_offset_that_fits(old_offset, low, travel):
    joint = swept_joint('shoulder_pan', low, low + travel, old_offset=old_offset)
    assert abs(joint.homing_offset) <= 2047
    assert joint.range_max - joint.range_min == travel
    assert abs(joint.middle - MID_TICK) <= 1.5
    for position, expected in ((low, joint.range_min), (low + travel, joint.range_max)):
        found = reported_after(position, old_offset=old_offset, new_offset=joint.homing_offset)
        assert found == expected


@settings(max_examples=100, deadline=None)
@given(st.integers(-2047, 2047), st.integers(0, 4095))
def test_P3_a_joint_without_stops_gets_its_zero_at_mid_encoder(old_offset, zero):
    joint = full_turn_joint('wrist_roll', zero, old_offset=old_offset)
    assert (joint.range_min, joint.range_max) == (0, 4095)
    assert abs(joint.homing_offset) <= 2047
    found = reported_after(zero, old_offset=old_offset, new_offset=joint.homing_offset)
    assert abs(found - MID_TICK) <= 1


@pytest.mark.parametrize('travel', [0, -5, 4095, 5000])
def test_a_travel_of_nothing_or_of_a_whole_turn_is_refused(travel):
    with pytest.raises(CalibrationError, match='less than one turn'):
        swept_joint('gripper', 100, 100 + travel, old_offset=0)
