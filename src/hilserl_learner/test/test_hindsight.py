# SPDX-License-Identifier: Apache-2.0
"""An episode is told again as if what it reached had been its goal, and only where that tells something."""

from itertools import pairwise

import numpy as np
import pytest

from hilserl_learner.data.collect import Collector, demonstrate
from hilserl_learner.data.hindsight import Hindsight
from hilserl_learner.errors import LearnerError
from hilserl_learner.training.settings import make_env, Settings
from hilserl_learner.training.trainer import make_trainer
from so101_contract.observation_spec import get_observation
from so101_fetch.tasks import REACHED_M


@pytest.fixture(scope='module')
def env():
    return make_env('FetchPush-cartesian', 'easy', 'state')


@pytest.fixture(scope='module')
def episode(env):
    """An episode in which the cube was pushed, of which nobody needs to know the end."""
    return next(demonstrate(env, 1, seed=5))


def told(env, episode, times=4, seed=0):
    hindsight = Hindsight(env.observation_spec, times, np.random.default_rng(seed))
    found = {}
    for transition in episode:
        for number, one in hindsight.heard(transition):
            found.setdefault(number, []).append(one)
    return found


def test_a_told_episode_ends_where_it_first_reaches_its_new_goal(env, episode):
    spec = env.observation_spec
    mover, goal, way = (spec.slice_of(name) for name in ('object_pos', 'goal_pos', 'goal_rel'))
    tellings = told(env, episode, times=12)
    assert tellings
    for transitions in tellings.values():
        aim = transitions[0].frames[-1].state[goal]
        for before, after in pairwise(transitions):
            assert before.next_frame is after.frames[-1]
        for k, transition in enumerate(transitions):
            state, original = transition.next_frame.state, episode[k].next_frame.state
            assert np.array_equal(state[goal], aim)
            assert np.allclose(state[way], aim - state[mover])
            same = np.ones(len(state), bool)
            same[goal] = same[way] = False
            assert np.array_equal(state[same], original[same])
            near = np.linalg.norm(state[mover] - aim) < REACHED_M
            assert (transition.reward, transition.terminated, transition.truncated) == (
                float(near),
                near,
                False,
            )
            assert near == (k == len(transitions) - 1)


def test_an_episode_in_which_nothing_moved_is_not_told(env):
    collector, still = Collector(env, seed=0), []
    while not still or not still[-1].ends:
        still.append(collector.step(lambda _: np.array([0.0, 0.0, 1.0, 0.0], np.float32)).transition)
    assert told(env, still) == {}


def test_the_trainer_learns_from_what_is_told_and_forgets_it_with_the_episode(env, episode):
    config = Settings.with_options({'hindsight': '3'}).trainer
    trainer, _ = make_trainer(
        'sac',
        {'width': 16, 'num_critics': 2},
        config,
        (env.observation_spec, env.action_spec),
        policy='',
        observation='state',
        seed=0,
        device='cpu',
    )
    for transition in episode:
        trainer.add(transition)
    assert trainer.steps == len(episode)
    assert len(trainer.online) > len(episode)
    assert trainer.step()
    trainer.discard(episode[0].episode)
    assert len(trainer.online) == 0


def test_hindsight_is_refused_where_the_state_says_no_goal():
    with pytest.raises(LearnerError, match='--observation state of a Fetch environment'):
        Hindsight(get_observation('compact'), 1, np.random.default_rng(0))
    Hindsight(get_observation('compact'), 0, np.random.default_rng(0))
