# SPDX-License-Identifier: Apache-2.0
"""The traits of the scripted human, measured over many draws, in steps: no clock but that of the simulation runs here."""

from dataclasses import fields, replace

import numpy as np
import pytest

from so101_contract.session import EventKind, Outcome
from so101_interfaces_py.params import describe, ParameterError
from so101_sim.env import ArmEnv
from so101_sim.human.expert import Expert, Skill
from so101_sim.human.labels import LabelJudge, LabelKind, Labeller, Slip
from so101_sim.human.operator import Habits, Operator
from so101_sim.human.session_human import SessionHuman
from so101_sim.human.traits import HUMANS, Reflexes, Traits
from so101_sim.tasks import Lift

MANY = 2000
RATE_HZ = 10.0
HELD = {'touches_static': True, 'touches_moving': True, 'on_table': False}
HIGH = {**HELD, 'cube_position': (0.25, 0.0, 0.09), 'grip_position': (0.235, 0.0, 0.09)}


def reflexes(seed: int = 0, **traits) -> Reflexes:
    made = Reflexes(Traits(**traits), RATE_HZ)
    made.reset(np.random.default_rng(seed))
    return made


def takeover(human: Operator, make_truth, seed: int, steps: int = 60) -> int:
    """Return the step in which a human takes over an arm that does nothing."""
    human.reset(np.random.default_rng(seed))
    decisions = (human.update(make_truth(time_s=0.1 * step)).started for step in range(steps))
    return next(step for step, started in enumerate(decisions) if started)


def test_every_trait_has_help_and_a_number_has_a_unit_or_is_a_share():
    infos = describe(Traits)
    assert list(infos) == [each.name for each in fields(Traits)]
    for name, info in infos.items():
        assert info.doc, name
        assert None not in (info.lo, info.hi), name
        assert name.endswith(('_m', '_s', '_minute')) == bool(info.unit), name


def test_perfect_is_the_operator_without_traits_bit_by_bit(make_truth):
    # What the operator of before did in the same scene, as (step, began or ended), and all that it said added up.
    expected = {
        0: ([(24, True), (54, False), (65, True)], 10.845805),
        1: ([(27, True), (57, False), (68, True)], 9.764173),
        3: ([(27, True), (35, False), (54, True)], 9.860863),
    }
    human = Operator(
        Lift(), skill=Skill.of(HUMANS['perfect']), max_steps=100, traits=HUMANS['perfect'], rate_hz=RATE_HZ
    )
    for seed, (events, total) in expected.items():
        human.reset(np.random.default_rng(seed))
        grip, seen, said = np.array([0.20, 0.03, 0.12]), [], 0.0
        for step in range(100):
            place = tuple(grip.tolist())
            decision = human.update(make_truth(time_s=0.1 * step, grip_position=place, tcp_position=place))
            if decision.started or decision.ended:
                seen.append((step, decision.started))
            if decision.action is None:
                grip = grip + np.array([0.001, -0.002, 0.0])
            else:
                said += float(np.abs(decision.action.translation).sum()) + decision.action.opening
                grip = grip + 0.7 * decision.action.translation
        assert seen == events
        assert said == pytest.approx(total, abs=1e-5)


def test_it_reacts_after_the_time_that_it_needs(make_truth):
    drawn = [reflexes(0, reaction_s=0.3, reaction_spread_s=0.1)]
    steps = np.array([drawn[0].answer() for _ in range(MANY)]) / RATE_HZ
    assert steps.mean() == pytest.approx(0.3, abs=0.01)
    assert steps.std() == pytest.approx(0.1, abs=0.02)  # and what the control clock rounds
    assert steps.min() >= 0.0
    human = Operator(
        Lift(),
        habits=Habits(patience_steps=10),
        traits=Traits(reaction_s=0.3, reaction_spread_s=0.1),
    )
    begun = np.array([takeover(human, make_truth, seed) for seed in range(300)])
    assert (begun - 10).mean() == pytest.approx(3.0, abs=0.3)


def test_a_share_of_its_corrections_comes_too_late():
    human = reflexes(reaction_s=0.3, reaction_spread_s=0.0, late_share=0.25, late_s=2.0)
    delays = np.array([human.reaction() for _ in range(MANY)])
    late = delays > 3
    assert late.mean() == pytest.approx(0.25, abs=0.03)
    assert (delays[late] - 3).mean() == pytest.approx(20.0, abs=1.0)
    assert set(delays[~late]) == {3}


def test_a_share_of_its_corrections_lasts_too_long(make_truth):
    human = reflexes(overlong_share=0.4, overlong_s=1.5)
    more = np.array([human.overrun() for _ in range(MANY)])
    assert (more > 0).mean() == pytest.approx(0.4, abs=0.03)
    assert more[more > 0].mean() == pytest.approx(15.0, abs=1.0)

    def length(share: float) -> int:
        made = Operator(
            Lift(),
            habits=Habits(
                patience_steps=3, reaction_steps=(0, 0), shortest_steps=3, hand_back=(0.0, 1.0, 0.0)
            ),
            traits=Traits(overlong_share=share, overlong_s=1.0),
        )
        made.reset(np.random.default_rng(1))
        while not made.intervening:
            made.update(make_truth())
        acted = 1
        while not made.update(make_truth(**HIGH)).ended:
            acted += 1
        return acted

    assert length(1.0) >= length(0.0) + 5


def test_it_looks_away_as_often_and_as_long_as_it_says():
    human = reflexes(lapses_per_minute=3.0, lapse_s=2.0)
    seen = np.array([human.watch() for _ in range(80 * MANY)])
    began = np.count_nonzero(seen[:-1] & ~seen[1:])
    away = np.count_nonzero(~seen)
    watched_minutes = np.count_nonzero(seen) / RATE_HZ / 60.0
    assert began / watched_minutes == pytest.approx(3.0, rel=0.1)
    assert away / began / RATE_HZ == pytest.approx(2.0, rel=0.15)


def test_who_looks_away_notices_later(make_truth):
    def mean(**traits) -> float:
        human = Operator(Lift(), habits=Habits(patience_steps=10), traits=Traits(reaction_s=0.2, **traits))
        return float(np.mean([takeover(human, make_truth, seed, 2000) for seed in range(200)]))

    assert mean(lapses_per_minute=20.0, lapse_s=2.0) > mean() + 3.0


def test_it_aims_beside_the_cube_and_its_hand_shakes(make_truth):
    truth = make_truth(grip_position=(0.10, 0.0, 0.20))
    scale = 0.02

    def moves(n: int, **skill) -> np.ndarray:
        expert = Expert(Lift(), skill=Skill(speed=0.5, **skill))
        made = []
        for seed in range(n):
            expert.reset(np.random.default_rng(seed))
            made.append(expert.act(truth).translation)
        return np.array(made)

    still = moves(2)[0]
    shaken = moves(MANY, tremor_m=0.002) - still
    assert shaken[:, 1:].std(axis=0) == pytest.approx(0.002, rel=0.1)
    assert abs(shaken.mean()) < 2e-4 < scale
    expert = Expert(Lift(), skill=Skill(aim_error_m=0.004))
    aims = []
    for seed in range(MANY):
        expert.reset(np.random.default_rng(seed))
        aims.append(expert._aim)
    assert np.array(aims).std(axis=0) == pytest.approx(0.004, rel=0.1)


def test_a_hand_that_shakes_does_not_wander():
    expert = Expert(Lift(), skill=Skill(tremor_m=0.003))
    gone = np.sum([expert._tremor() for _ in range(MANY)], axis=0)
    assert np.abs(gone).max() < 0.02


def test_wrong_and_missing_labels_are_as_many_as_it_says():
    made = Labeller(Lift(), Traits(wrong_label_share=0.05, missing_label_share=0.10), RATE_HZ)
    slips = []
    for seed in range(6000):
        made.reset(np.random.default_rng(seed))
        slips.append(made.slip)
    assert slips.count(Slip.WRONG) / len(slips) == pytest.approx(0.05, abs=0.008)
    assert slips.count(Slip.MISSING) / len(slips) == pytest.approx(0.10, abs=0.010)


def labelled(make_truth, kind: LabelKind, *, steps: int = 30, **traits) -> list[Outcome | None]:
    made = Labeller(Lift(), Traits(**traits), RATE_HZ, kind)
    made.reset(np.random.default_rng(5))
    return [made.see(make_truth(time_s=0.1 * step, **HIGH)) for step in range(steps)]


def test_it_labels_what_it_sees_once_and_after_its_reaction(make_truth):
    said = labelled(make_truth, LabelKind.ALL, reaction_s=0.5)
    assert [outcome for outcome in said if outcome] == [Outcome.SUCCESS]
    assert said.index(Outcome.SUCCESS) == 2 + 5 + 1  # held for three steps, seen, and pressed
    wrong = labelled(make_truth, LabelKind.ALL, wrong_label_share=1.0)
    assert [outcome for outcome in wrong if outcome] == [Outcome.FAILURE]
    assert not any(labelled(make_truth, LabelKind.ALL, missing_label_share=1.0))
    assert not any(labelled(make_truth, LabelKind.NONE))
    later = labelled(make_truth, LabelKind.CORRECTIONS)
    assert later.index(Outcome.SUCCESS) > 10


def test_it_sees_the_object_a_little_off(make_truth):
    low = {**HIGH, 'cube_position': (0.25, 0.0, 0.061)}  # a millimetre above what counts
    made = Labeller(Lift(), Traits(sight_error_m=0.005), RATE_HZ)
    saw = 0
    for seed in range(1000):
        made.reset(np.random.default_rng(seed))
        for step in range(5):
            made.see(make_truth(time_s=0.1 * step, **low))
        saw += made.saw is Outcome.SUCCESS
    assert saw / 1000 == pytest.approx(0.58, abs=0.05)  # of a normal distribution, 0.2 deviations up


@pytest.mark.parametrize(
    ('slip', 'seen', 'ended', 'said'),
    [
        ({}, True, Outcome.FAILURE, Outcome.SUCCESS),
        ({}, False, Outcome.SUCCESS, Outcome.FAILURE),
        ({}, False, Outcome.TIME_LIMIT, None),
        ({}, True, Outcome.SUCCESS, None),
        ({}, True, Outcome.ABORT, None),
        ({'wrong_label_share': 1.0}, False, Outcome.TIME_LIMIT, Outcome.SUCCESS),
        ({'wrong_label_share': 1.0}, True, Outcome.SUCCESS, Outcome.FAILURE),
        ({'missing_label_share': 1.0}, True, Outcome.FAILURE, None),
    ],
)
def test_it_corrects_an_episode_afterwards(make_truth, slip, seen, ended, said):
    made = Labeller(Lift(), Traits(**slip), RATE_HZ, LabelKind.CORRECTIONS)
    made.reset(np.random.default_rng(0))
    for step in range(4):
        made.see(make_truth(time_s=0.1 * step, **(HIGH if seen else {})))
    assert made.ended(ended) is said
    assert made.ended(ended) is None


def test_in_a_session_the_label_names_its_episode(make_truth):
    operator = Operator(Lift(), traits=Traits())
    human = SessionHuman(operator, np.random.default_rng(0), Labeller(Lift(), Traits(), RATE_HZ))
    human.event(EventKind.START, 7)
    turns = [human.step(7, False, make_truth(time_s=0.1 * step, **HIGH)) for step in range(6)]
    (turn,) = (turn for turn in turns if turn.label is not None)
    assert (turn.label, turn.episode) == (Outcome.SUCCESS, 7)


def test_the_same_seed_is_the_same_human():
    def life(seed: int) -> list:
        env = ArmEnv(preset='easy', images=False)
        traits = HUMANS['clumsy']
        env.judge = LabelJudge(env.preset.task, traits, env.preset.max_steps)
        human = Operator(env.preset.task, skill=Skill.of(traits), traits=traits)
        done = []
        for episode in range(1):
            env.reset(seed=episode)
            rng = np.random.default_rng([seed, episode])
            human.reset(rng)
            env.judge.begin(rng.spawn(1)[0])
            over = False
            while not over and len(done) < 60:
                action = human.update(env.truth()).action
                network = np.zeros(4)
                if action is not None:
                    network = env.action_spec.from_wire(action.translation, action.opening).values
                _, reward, terminated, truncated, _ = env.step(network)
                done.append((None if action is None else tuple(action.translation), reward))
                over = terminated or truncated
        return done

    assert life(1) == life(1)
    assert life(1) != life(2)


@pytest.mark.parametrize('name', HUMANS)
def test_the_humans_are_what_the_issue_asks_for(name):
    traits = HUMANS[name]
    if name == 'perfect':
        assert traits == Traits()
        return
    assert (traits.wrong_label_share, traits.missing_label_share) == (0.05, 0.10)
    assert traits.reaction_s >= 0.3
    assert traits.reaction_spread_s >= 0.1
    assert min(traits.aim_error_m, traits.tremor_m, traits.late_share, traits.overlong_share) > 0.0
    assert traits.lapses_per_minute > 0.0


def test_more_labels_than_episodes_are_refused():
    with pytest.raises(ParameterError, match='up to 1 together'):
        Traits(wrong_label_share=0.6, missing_label_share=0.5)
    assert replace(Traits(), wrong_label_share=0.5, missing_label_share=0.5)
