# SPDX-License-Identifier: Apache-2.0
"""Training beside humans as they are: chosen by name, changed by trait, and counted in minutes."""

from dataclasses import fields, replace

import numpy as np
import pytest

from hilserl_learner.agents.common import agent_class, AGENTS
from hilserl_learner.data.collect import Collector, ScriptedOperator
from hilserl_learner.training.settings import RunConfig, Settings
from hilserl_learner.training.trainer import TrainerConfig
from so101_contract.human_time import MadeUpSession
from so101_contract.observation_spec import get_observation
from so101_contract.session import HumanSeconds, Outcome
from so101_interfaces_py.params import ParameterError
from so101_sim.env import ArmEnv
from so101_sim.human.labels import LabelJudge
from so101_sim.human.traits import HUMANS, Traits

BLIND = replace(get_observation('compact'), cameras=())


def still(_):
    return np.zeros(4, np.float32)


def lives(traits: Traits | None, seed: int = 2, episodes: int = 1, labels: Traits | None = None) -> list:
    env = ArmEnv(preset='easy', observation=BLIND)
    if labels is not None:
        env.judge = LabelJudge(env.preset.task, labels, env.preset.max_steps)
    collector = Collector(env, human=ScriptedOperator(env, traits), seed=seed)
    found = []
    while len(found) < episodes:
        collected = collector.step(still)
        if collected.result is not None:
            found.append((collected.result, collected.transition))
    env.close()
    return found


def test_a_human_is_chosen_by_name_and_single_traits_are_changed():
    assert Settings.with_options({}).human == Traits()
    assert Settings.with_options({}, operator='careful').human == HUMANS['careful']
    changed = Settings.with_options({'lapse_s': '3.0'}, operator='clumsy').human
    assert changed == replace(HUMANS['clumsy'], lapse_s=3.0)
    with pytest.raises(ParameterError, match='reaction_s'):
        Settings.with_options({'reaction_s': '9.0'}, operator='clumsy')


def test_a_run_of_before_has_the_settings_of_today():
    assert not {'human', 'labels'} & Settings().plain().keys()
    assert Settings.with_options({}, operator='careful').plain()['human']['reaction_s'] == 0.3


def test_no_trait_has_the_name_of_another_value():
    traits = {each.name for each in fields(Traits)}
    others = [TrainerConfig, RunConfig, *(agent_class(name).config_type for name in AGENTS)]
    assert not traits & {each.name for kind in others for each in fields(kind)}


def test_perfect_is_the_operator_of_before_and_the_same_seed_the_same_human():
    (usual,), (perfect,) = lives(None), lives(HUMANS['perfect'])
    assert usual[0] == perfect[0]
    (one,), (two,) = lives(HUMANS['clumsy']), lives(HUMANS['clumsy'])
    assert one[0] == two[0]
    np.testing.assert_array_equal(one[1].action.translation, two[1].action.translation)


def test_with_the_labels_of_a_human_an_episode_ends_as_the_human_says():
    ((right, last),) = lives(None, labels=Traits())
    assert right.success
    assert last.terminated
    assert last.reward == 1.0
    ((wrong, last),) = lives(None, labels=Traits(wrong_label_share=1.0))
    assert not wrong.success
    assert last.terminated
    assert last.reward == 0.0
    ((missing, last),) = lives(None, labels=Traits(missing_label_share=1.0))
    assert not missing.success
    assert last.truncated
    assert missing.steps > right.steps


def test_a_run_counts_what_it_would_cost_a_human():
    made = MadeUpSession(0.1)
    for acts in [False] * 5 + [True] * 20:
        made.step(by_human=acts)
    made.end(Outcome.SUCCESS, labelled=True)
    assert made.time.spent() == HumanSeconds(takeovers=2.0, labels=2.0)
