# SPDX-License-Identifier: Apache-2.0
"""The whole way from a fresh agent to a task solved, without demonstrations and without help, in seconds."""

import numpy as np
import pytest

from hilserl_learner.agents.common import make_agent
from hilserl_learner.data.collect import Collector
from hilserl_learner.training.trainer import Trainer, TrainerConfig
from so101_testing.reach import ReachEnv

BUDGET = 1000
OPTIONS = {'width': 64, 'num_critics': 4, 'learning_rate': 1e-3, 'tau': 0.02}
CONFIG = TrainerConfig(
    batch_size=32, gamma=0.9, std_schedule='linear(1.0,0.2,400)', capacity=2000, demo_capacity=100
)


def success_rate(act, episodes=40, seed=777):
    collector, successes = Collector(ReachEnv(), seed=seed), []
    while len(successes) < episodes:
        result = collector.step(act).result
        if result is not None:
            successes.append(result.success)
    return np.mean(successes)


def train(name, seed):
    env = ReachEnv()
    options = OPTIONS | ({'ema_tau': 0.1} if name == 'hil' else {})
    agent = make_agent(name, env.observation_spec, options, seed=seed)
    trainer = Trainer(agent, env.observation_spec, env.action_spec, CONFIG, seed=seed)
    collector, rng = Collector(env, seed=seed), np.random.default_rng(seed)
    solved = False
    while trainer.steps < BUDGET and not solved:
        collected = collector.step(lambda observation: agent.act(observation, std=trainer.std, rng=rng))
        trainer.add(collected.transition)
        while trainer.ready and trainer.owed >= 1.0:
            trainer.step()
        if trainer.steps >= 300 and trainer.steps % 100 == 0:
            solved = success_rate(agent.act, 60, seed=778) == 1.0
    return agent, trainer.steps


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_hil_solves_the_task_from_scratch_within_its_budget(seed):
    agent, steps = train('hil', seed)
    assert success_rate(agent.act) >= 0.9, f'after {steps} steps'


def test_sac_solves_the_task_from_scratch_within_its_budget():
    agent, steps = train('sac', 0)
    assert success_rate(agent.act) >= 0.9, f'after {steps} steps'


def test_a_fresh_agent_does_not_solve_it():
    agent = make_agent('hil', ReachEnv().observation_spec, OPTIONS)
    assert success_rate(agent.act) <= 0.5
