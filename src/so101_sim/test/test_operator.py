# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from so101_contract.action import EeDeltaValue
from so101_sim.env import ArmEnv
from so101_sim.errors import PresetError
from so101_sim.evaluate import evaluate
from so101_sim.human.expert import Expert
from so101_sim.human.operator import Habits, HandBack, Operator, Reason, remaining
from so101_sim.tasks import Lift, Place

PROMPT = {'reaction_steps': (0, 0)}
HELD = {
    'touches_static': True,
    'touches_moving': True,
    'on_table': False,
    'cube_position': (0.25, 0.0, 0.05),
    'grip_position': (0.235, 0.0, 0.05),
}


def operator(**habits) -> Operator:
    made = Operator(Lift(), habits=Habits(**{**PROMPT, **habits}))
    made.reset(np.random.default_rng(0))
    return made


def test_it_hardly_ever_interrupts_an_expert():
    env = ArmEnv(preset='wide', images=False)
    human, expert = Operator(env.preset.task), Expert(env.preset.task)
    for seed in range(8):
        env.reset(seed=seed)
        expert.reset(np.random.default_rng(seed))
        human.reset(np.random.default_rng(seed))
        while not env.is_over:
            human.update(env.truth())
            env.step(expert.network_action(env.truth()))
    assert sum(human.tally.takeovers.values()) <= 1  # even an expert may lose a cube


def test_it_takes_over_an_arm_that_is_stuck_after_its_patience(make_truth):
    human = operator(patience_steps=10)
    decisions = [human.update(make_truth(time_s=0.1 * step)) for step in range(12)]
    begun = [decision.started for decision in decisions].index(True)
    assert begun == 10
    assert decisions[begun].reason is Reason.STUCK
    assert decisions[begun].action is not None


def test_it_takes_over_an_arm_that_moves_away(make_truth):
    human = operator()
    for step in range(10):
        grip = (0.23 - 0.02 * step, 0.0, 0.10)
        decision = human.update(make_truth(time_s=0.1 * step, grip_position=grip))
        if decision.started:
            break
    assert decision.reason is Reason.AWAY
    assert step < 8


def test_it_takes_over_when_the_cube_is_dropped(make_truth):
    human = operator()
    human.update(make_truth(**HELD))
    decision = human.update(make_truth(time_s=0.1, cube_position=(0.25, 0.0, 0.04), on_table=False))
    assert decision.started
    assert decision.reason is Reason.DROPPED


def test_it_needs_a_moment_to_react(make_truth):
    human = operator(reaction_steps=(3, 3))
    human.update(make_truth(**HELD))
    found = [human.update(make_truth(time_s=0.1 * step)).started for step in range(1, 8)]
    assert found.index(True) == 3


def test_who_does_not_watch_does_not_help(make_truth):
    human = operator(attention=0.0, patience_steps=2)
    assert not any(human.update(make_truth(time_s=0.1 * step)).intervening for step in range(40))


@pytest.mark.parametrize(
    ('until', 'expected'),
    [
        ((1.0, 0.0, 0.0), HandBack.ALIGNED),
        ((0.0, 1.0, 0.0), HandBack.HELD),
        ((0.0, 0.0, 1.0), HandBack.DONE),
    ],
)
def test_it_hands_back_when_it_said_it_would(until, expected):
    env = ArmEnv(images=False)
    env.reset(seed=0)
    human = Operator(env.preset.task, habits=Habits(hand_back=until, patience_steps=3, reaction_steps=(0, 0)))
    human.reset(np.random.default_rng(0))
    ended = None
    acted = 0
    while not env.is_over:
        truth = env.truth()
        decision = human.update(truth)
        acted += decision.intervening
        if decision.ended:
            ended = truth
            break
        action = decision.action or EeDeltaValue(np.zeros(3), 0.5)
        env.step(env.action_spec.from_wire(action.translation, action.opening).values)
    if expected is HandBack.DONE:
        assert ended is None
        assert env.truth().cube_position[2] > 0.06
    else:
        assert ended is not None
        assert acted >= human.habits.shortest_steps
        high = ended.cube_position[2] > 0.017
        assert high == (expected is HandBack.HELD)


def test_interventions_rescue_a_policy_that_knows_nothing():
    env = ArmEnv(preset='easy', images=False)
    alone = evaluate(env, 4, actor='rescued', habits=Habits(attention=0.0))
    helped = evaluate(env, 8, actor='rescued', habits=Habits(hand_back=(0.2, 0.2, 0.6)))
    assert alone.rate <= 0.25
    assert alone.intervened == 0.0
    assert helped.rate >= 0.7
    assert 0.2 < helped.intervened < 0.95


def test_it_takes_over_and_finishes_when_time_runs_out(make_truth):
    human = Operator(
        Lift(), habits=Habits(finish_steps=5, patience_steps=99, reaction_steps=(0, 0)), max_steps=20
    )
    human.reset(np.random.default_rng(0))
    decisions = [human.update(make_truth(time_s=0.1 * step)) for step in range(20)]
    assert [decision.started for decision in decisions].index(True) == 14
    assert decisions[14].reason is Reason.SLOW
    assert all(decision.intervening for decision in decisions[14:])


def test_an_intervention_that_leads_nowhere_is_given_up(make_truth):
    human = operator(patience_steps=2, longest_steps=12, hand_back=(0.0, 0.0, 1.0))
    decisions = [human.update(make_truth(time_s=0.1 * step)) for step in range(40)]
    begun = [decision.started for decision in decisions].index(True)
    assert [decision.ended for decision in decisions].index(True) - begun == 12
    assert human.tally.lengths[0] == 13


def test_it_helps_longer_when_it_has_to_help_again(make_truth):
    human = operator(patience_steps=2, shortest_steps=1, hand_back=(1.0, 0.0, 0.0))
    handed_back_when_held = []
    for _ in range(3):
        while not human.intervening:
            human.update(make_truth())
        handed_back_when_held.append(human.update(make_truth(**HELD)).ended)
        human.end_episode()
    assert handed_back_when_held == [True, True, False]


def test_what_it_does_depends_on_the_scene_and_not_on_how_many_episodes_there_were(make_truth):
    human = operator(patience_steps=5)
    begun = []
    for _ in range(30):
        human.reset(np.random.default_rng(0))
        found = [human.update(make_truth(time_s=0.1 * step)).started for step in range(10)]
        begun.append(found.index(True))
    assert set(begun) == {5}


def test_it_counts_what_it_does(make_truth):
    human = operator(patience_steps=5)
    for step in range(8):
        human.update(make_truth(time_s=0.1 * step))
    assert human.tally.steps == 8
    assert human.tally.intervened == 3
    assert human.tally.takeovers[Reason.STUCK] == 1


def test_a_seed_decides_what_it_does(make_truth):
    def actions(seed):
        human = Operator(Lift(), habits=Habits(patience_steps=4))
        human.reset(np.random.default_rng(seed))
        decisions = [human.update(make_truth(time_s=0.1 * step)) for step in range(15)]
        return [None if d.action is None else tuple(d.action.translation) for d in decisions]

    assert actions(1) == actions(1)
    assert len({tuple(actions(seed)) for seed in range(6)}) > 1


def test_what_is_left_to_do_shrinks_on_the_way(make_truth):
    lifting = [
        make_truth(),
        make_truth(grip_position=(0.24, 0.0, 0.02)),
        make_truth(**HELD),
        make_truth(**{**HELD, 'cube_position': (0.25, 0.0, 0.07)}),
    ]
    left = [remaining(truth, Lift()) for truth in lifting]
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0.0
    tray = {'tray_position': (0.23, 0.14, 0.0)}
    placing = [make_truth(**tray), make_truth(**HELD, **tray), make_truth(in_tray=True, **tray)]
    left = [remaining(truth, Place()) for truth in placing]
    assert left == sorted(left, reverse=True)


@pytest.mark.parametrize(
    'wrong',
    [
        {'attention': 2.0},
        {'patience_steps': 0},
        {'reaction_steps': (3, 1)},
        {'hand_back': (0.5, 0.5, 0.5)},
        {'longest_steps': 2},
    ],
)
def test_impossible_habits_are_refused(wrong):
    with pytest.raises(PresetError):
        Habits(**wrong)
