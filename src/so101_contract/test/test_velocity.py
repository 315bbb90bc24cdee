# SPDX-License-Identifier: Apache-2.0
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_contract.errors import VelocityError
from so101_contract.joints import VelocityEstimator

SPEED = np.array([0.3, -0.7, 1.5, 0.0, 2.0, -0.01])


@given(st.lists(st.floats(0.5, 1.5), min_size=3, max_size=30), st.sampled_from([0.01, 0.02, 0.1]))
def test_F12_velocity_uses_stamps_so_jitter_of_50_percent_changes_it_by_less_than_5(jitters, period):
    estimator = VelocityEstimator()
    stamps = np.cumsum([round(period * jitter * 1e9) for jitter in jitters])
    velocities = [estimator.update(int(stamp), SPEED * (stamp / 1e9)) for stamp in stamps]
    np.testing.assert_array_equal(velocities[0], np.zeros(6))
    for velocity in velocities[1:]:
        np.testing.assert_allclose(velocity, SPEED, rtol=0.05, atol=1e-9)


@given(st.permutations(range(12)), st.integers(0, 11))
@settings(max_examples=40)
def test_F12_samples_that_come_twice_or_late_do_not_disturb(order, again):
    estimator = VelocityEstimator(max_gap_s=10.0)
    sent = list(order)
    sent.insert(6, sent[again % 6])
    newest = -1
    for number in sent:
        velocity = estimator.update(number * 10_000_000, SPEED * number * 0.01)
        if number > newest >= 0 or (number <= newest and np.any(velocity)):
            np.testing.assert_allclose(velocity, SPEED, atol=1e-9)
        newest = max(newest, number)
    assert estimator.ignored >= 1


def test_a_sample_with_the_same_stamp_keeps_the_velocity():
    estimator = VelocityEstimator(1)
    estimator.update(0, [0.0])
    moving = estimator.update(10_000_000, [0.01])
    np.testing.assert_array_equal(estimator.update(10_000_000, [5.0]), moving)
    np.testing.assert_allclose(estimator.update(20_000_000, [0.02]), [1.0])


@pytest.mark.parametrize('stamp_ns', [3_000_000_000, -3_000_000_000], ids=['gap', 'clock set back'])
def test_after_a_gap_the_estimate_starts_again_from_zero(stamp_ns):
    estimator = VelocityEstimator(1)
    estimator.update(0, [0.0])
    estimator.update(10_000_000, [0.01])
    np.testing.assert_array_equal(estimator.update(stamp_ns, [1.0]), [0.0])
    np.testing.assert_allclose(estimator.update(stamp_ns + 10_000_000, [1.005]), [0.5])
    assert estimator.restarts == 1


def test_a_full_turn_is_not_unwrapped():
    estimator = VelocityEstimator(1)
    estimator.update(0, [3.1])
    np.testing.assert_allclose(estimator.update(1_000_000_000, [-3.1]), [-6.2])


def test_smoothing_settles_on_the_true_speed_whatever_the_period():
    estimator = VelocityEstimator(1, smoothing_s=0.05)
    rng = np.random.default_rng(0)
    stamps = np.cumsum(rng.integers(5_000_000, 15_000_000, 200))
    velocities = [estimator.update(int(stamp), [0.4 * stamp / 1e9])[0] for stamp in stamps]
    assert velocities[-1] == pytest.approx(0.4)
    noisy = VelocityEstimator(1, smoothing_s=0.05)
    spread = [noisy.update(int(s), [0.4 * s / 1e9 + 1e-3 * (i % 2)])[0] for i, s in enumerate(stamps)]
    assert np.std(spread[50:]) < 0.05


@pytest.mark.parametrize('position', [np.zeros(5), np.full(6, np.nan), [0, 0, 0, 0, 0, np.inf]])
def test_a_sample_that_is_none_is_refused_and_leaves_no_trace(position):
    estimator = VelocityEstimator()
    estimator.update(0, np.zeros(6))
    with pytest.raises(VelocityError):
        estimator.update(5_000_000, position)
    np.testing.assert_allclose(estimator.update(10_000_000, SPEED * 0.01), SPEED)


def test_the_result_belongs_to_the_caller():
    estimator = VelocityEstimator(1)
    estimator.update(0, [0.0])
    estimator.update(10_000_000, [0.01])[0] = 99.0
    np.testing.assert_allclose(estimator.update(10_000_000, [0.01]), [1.0])


@pytest.mark.parametrize('settings_', [{'size': 0}, {'max_gap_s': 0.0}, {'smoothing_s': -1.0}])
def test_impossible_settings_are_refused(settings_):
    with pytest.raises(VelocityError):
        VelocityEstimator(**settings_)
