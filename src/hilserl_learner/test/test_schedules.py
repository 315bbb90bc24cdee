# SPDX-License-Identifier: Apache-2.0
"""The exploration noise over a training: what the trainer makes of schedules."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from drqv2_policy_node.robobase.schedule import parse_schedule, ScheduleError
from hilserl_learner.training.trainer import Trainer, TrainerConfig

from .batches import tiny_spec
from .experience import ACTION


class Still:
    """An agent that never learns."""

    config = None

    device = 'cpu'
    std, updates, chunk = 0.0, 0, 1

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def make_trainer(text='linear(0.2,0.1,5000)'):
    return Trainer(
        Still(), tiny_spec(), ACTION, TrainerConfig(std_schedule=text, capacity=100, demo_capacity=100)
    )


def test_L12_fine_tuning_starts_with_little_noise():
    config = TrainerConfig()
    assert parse_schedule(config.std_with_policy)(0) <= 0.05
    assert parse_schedule(config.std_schedule)(0) <= 0.2
    assert parse_schedule(config.std_schedule)(5_000) == pytest.approx(0.1)


@pytest.mark.parametrize('text', ['linear(1,0.1,20000)', '0.3', 'step_linear(1,0.5,100,0.1,9000)'])
@pytest.mark.parametrize('step', [0, 50, 100, 7_000, 30_000])
def test_L13_after_a_resume_the_noise_is_what_it_was_before(step, text):
    before, after = make_trainer(text), make_trainer(text)
    before.catch_up(step)
    after.load_state_dict(before.state_dict())
    assert (after.std, after.steps, after.agent.std) == (before.std, step, before.std)


def test_L13_the_step_only_counts_up():
    trainer = make_trainer()
    trainer.catch_up(100)
    trainer.catch_up(99)
    assert trainer.steps == 100


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
        make_trainer('exponential(1,0.1)')
