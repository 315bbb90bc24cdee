# SPDX-License-Identifier: Apache-2.0
import json

from hypothesis import given
from hypothesis import strategies as st
import pytest

from drqv2_policy_node.robobase_schedule import FINE_TUNE, NoiseSchedule, parse_schedule, ScheduleError
from so101_contract.manifest import StepUnit


def test_L12_fine_tuning_starts_with_little_noise():
    schedule = NoiseSchedule()
    assert schedule.text == FINE_TUNE == 'linear(0.2,0.1,10000)'
    assert schedule.std <= 0.2
    assert schedule.advance(10_000) == pytest.approx(0.1)


@given(
    steps=st.lists(st.integers(0, 30_000), min_size=1).map(sorted),
    text=st.sampled_from(['linear(1,0.1,20000)', '0.3', 'step_linear(1,0.5,100,0.1,9000)']),
)
def test_L13_after_a_resume_the_noise_is_what_it_was_before(steps, text):
    before = NoiseSchedule(text, StepUnit.ITERATIONS)
    for step in steps:
        before.advance(step)
    after = NoiseSchedule()
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert (after.std, after.step, after.unit, after.text) == (
        before.std,
        before.step,
        before.unit,
        before.text,
    )


def test_L13_the_step_only_counts_up():
    schedule = NoiseSchedule(step=100)
    assert schedule.step == 100
    with pytest.raises(ScheduleError, match='at least 100'):
        schedule.advance(99)
    assert schedule.step == 100


@given(
    initial=st.floats(0, 2),
    legs=st.lists(st.tuples(st.floats(0, 2), st.floats(1, 1e6)), min_size=1, max_size=2),
    step=st.floats(0, 3e6),
)
def test_L16_a_schedule_stays_between_its_values_and_ends_at_the_last(initial, legs, step):
    numbers = [initial, *(number for leg in legs for number in leg)]
    schedule = parse_schedule(
        f'{"linear" if len(legs) == 1 else "step_linear"}({",".join(map(repr, numbers))})'
    )
    values = [initial, *(final for final, _ in legs)]
    assert min(values) - 1e-9 <= schedule(step) <= max(values) + 1e-9
    assert schedule(0) == pytest.approx(initial)
    assert schedule(1e9) == pytest.approx(values[-1])


def test_L16_a_schedule_that_is_none_is_refused():
    with pytest.raises(ScheduleError):
        NoiseSchedule('exponential(1,0.1)')
