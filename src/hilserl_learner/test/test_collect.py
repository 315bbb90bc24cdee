# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from hilserl_learner.data.collect import Collector, demonstrate, ScriptedOperator
from so101_contract.action import ActionSpec
from so101_contract.observation_spec import get_observation
from so101_contract.session import Source
from so101_sim.env import ArmEnv
from so101_testing.reach import ReachEnv

FORWARD = np.array([1.0, 0.0, 0.0, 0.5], np.float32)


@pytest.fixture(scope='module')
def arm():
    env = ArmEnv(preset='easy', observation=replace(get_observation('compact'), cameras=()))
    yield env
    env.close()


def episode_of(collector, act):
    collected = [collector.step(act)]
    while collected[-1].result is None:
        collected.append(collector.step(act))
    return collected


def still(_):
    return np.zeros(4, np.float32)


def test_B30_counted_steps_are_the_actions_that_were_sent():
    env = ReachEnv(max_steps=7)
    sent = []
    step = env.step
    env.step = lambda action: sent.append(action) or step(action)
    collector = Collector(env, seed=1)
    steps = sum(len(episode_of(collector, still)) for _ in range(3))
    assert collector.steps == steps == len(sent)


def test_transitions_of_an_episode_follow_each_other_and_share_their_frames():
    collected = [one.transition for one in episode_of(Collector(ReachEnv(max_steps=6), seed=1), still)]
    for number, (one, two) in enumerate(pairwise(collected)):
        assert one.index == number
        assert two.frames[-1] is one.next_frame
    assert [one.ends for one in collected] == [False] * 5 + [True]


def test_B2_a_time_limit_is_a_truncation_and_success_is_terminal():
    last = episode_of(Collector(ReachEnv(max_steps=3), seed=1), still)[-1]
    assert (last.transition.truncated, last.transition.terminated) == (True, False)
    env = ReachEnv()
    collector = Collector(env, seed=1)

    def towards(observation):
        point, target = observation.state[-1, :3], observation.state[-1, 3:]
        return np.append(np.clip((target - point) / 0.02, -1, 1), 0.0).astype(np.float32)

    last = episode_of(collector, towards)[-1]
    assert (last.transition.truncated, last.transition.terminated) == (False, True)
    assert last.result.success


def test_T8_the_stored_action_is_the_executed_one_also_where_it_was_cut():
    collected = Collector(ReachEnv(), seed=1).step(lambda _: 3.0 * FORWARD)
    wire = ActionSpec().to_wire(3.0 * FORWARD)
    np.testing.assert_array_equal(collected.transition.action.translation, wire.translation)
    assert collected.transition.action.opening == wire.opening


def test_an_episode_depends_on_seed_and_number_alone():
    one, two = Collector(ReachEnv(), seed=4), Collector(ReachEnv(), seed=4, first_episode=3)
    for _ in range(2):
        episode_of(one, still)
    ones, twos = one.step(still).transition, two.step(still).transition
    assert (one.episode, two.episode) == (3, 3)
    np.testing.assert_array_equal(ones.frames[-1].state, twos.frames[-1].state)


def test_demonstrations_are_successes_by_a_person(arm):
    for episode in demonstrate(arm, 2, seed=1):
        assert episode[-1].terminated
        assert episode[-1].reward == 1.0
        assert {one.action.source for one in episode} == {Source.TELEOP}


def test_demonstrations_of_equal_seeds_are_equal(arm):
    ones, twos = ([t.action.translation for e in demonstrate(arm, 1, seed=3) for t in e] for _ in range(2))
    np.testing.assert_array_equal(ones, twos)


def test_the_operator_takes_over_where_the_arm_does_nothing_and_says_so(arm):
    collected = episode_of(Collector(arm, human=ScriptedOperator(arm), seed=2), still)
    helped = [one.transition.intervened for one in collected]
    result = collected[-1].result
    assert not any(helped[:10])
    assert sum(helped) == result.intervened > 0
    assert result.takeovers >= 1
    assert not result.unaided


def test_the_executed_action_of_a_person_is_stored_as_the_arm_got_it(arm):
    collector = Collector(arm, human=ScriptedOperator(arm), seed=2)
    for collected in episode_of(collector, still):
        action = collected.transition.action
        assert np.abs(action.translation).max() <= 0.02 + 1e-12
        if collected.transition.intervened:
            assert action.source is Source.TELEOP
        else:
            np.testing.assert_array_equal(action.translation, 0.0)
