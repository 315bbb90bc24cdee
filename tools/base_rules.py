# SPDX-License-Identifier: Apache-2.0
"""Compare the guards of learning on top of a base, on the small task of the tests: minutes instead of hours.

The base goes to the target, but too slowly from some places and beside it at others. Nobody helps. `both` is tried with
the share of the actor that comes next; `plain` lets it in at once and by the mean of its critics.
"""

import argparse
from collections.abc import Sequence
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from drqv2_policy_node.on_base import OnBase
from hilserl_learner.agents.on_base import OnBaseAgent, OnBaseConfig
from hilserl_learner.data.collect import Actor, Collector
from hilserl_learner.training.on_base import Share
from hilserl_learner.training.trainer import Trainer, TrainerConfig
from so101_contract.observation import Observation
from so101_testing.reach import reach_spec, ReachEnv

ASIDE, QUICK = 0.028, 0.35
"""How far beside the target the base goes at most [m], and its largest action."""
CONFIG = TrainerConfig(start_steps=50, capacity=3000, demo_capacity=3000)
USUAL: dict[str, Any] = {'width': 64, 'shift': 0, 'base_alone_steps': 200, 'critic_warmup_updates': 200}
PLAIN = {'base_rule': 'mean', 'hold_steps': 1, 'base_alone_steps': 0, 'critic_warmup_updates': 0}
WAYS: dict[str, dict[str, Any]] = {
    'unanimous': {},
    'plain': PLAIN,
    'min_max': {'base_rule': 'min_max'},
    'residual': {'base_mode': 'residual'},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run each way with each seed, and print a line for each evaluation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--ways', nargs='+', choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument('--seeds', type=int, default=3, help='how many (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=1000, help='(default: %(default)s)')
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    print('| way | seed | steps | base alone | both | actor alone | steps of the actor | share afterwards |')
    print('|---|---|---|---|---|---|---|---|')
    for seed in range(options.seeds):
        for way in options.ways:
            learn(way, seed, options.steps)
    return 0


def base(observation: Observation) -> npt.NDArray[np.float64]:
    """Return an action towards the target, or a place beside it."""
    here, there = (observation.state[-1][part].astype(np.float64) for part in (slice(3), slice(3, 6)))
    aim = there + np.array([ASIDE * np.sin(3000.0 * there[0]), 0.0, 0.0])
    return np.append(np.clip((aim - here) / 0.02, -QUICK, QUICK), 0.0)


def learn(way: str, seed: int, steps: int, every: int = 100) -> None:
    """Learn on top of the base, and print how it goes."""
    agent = OnBaseAgent(reach_spec(), OnBaseConfig(**{**USUAL, **WAYS[way]}), seed=seed)
    trainer = Trainer(agent, reach_spec(), config=CONFIG, seed=seed)
    share, collector, acting = (
        Share(agent.config.share_step),
        Collector(ReachEnv(), seed=seed),
        agent.on(base),
    )
    alone = success(agent.on(base))
    while trainer.steps < steps:
        heard = trainer.steps >= agent.config.base_alone_steps
        acting.share = float(heard) * (1.0 if way == 'plain' else share.now)
        acting.alone, acting.std = heard and share.alone and way != 'plain', trainer.std
        trainer.add(collector.step(acting).transition)
        while trainer.ready and trainer.owed >= 1.0:
            trainer.step()
        if trainer.steps % every == 0:
            tried = agent.on(base)
            tried.share = 1.0 if way == 'plain' else share.next
            both, actor = (success(tried) if heard else alone), success(agent.act)
            if heard:
                share.judge(alone, both, actor)
            told = (*(f'{rate:.0%}' for rate in (alone, both, actor, tried.by_actor / max(tried.steps, 1))),)
            print(f'| {way} | {seed} | {trainer.steps} | {" | ".join(told)} | {share.now:.0%} |', flush=True)


def success(act: Actor | OnBase, episodes: int = 40, seed: int = 777) -> float:
    """Return how often it succeeds in always the same episodes."""
    collector, ended = Collector(ReachEnv(), seed=seed), []
    while len(ended) < episodes:
        result = collector.step(act).result
        if result is not None:
            ended.append(result.success)
    return float(np.mean(ended))


if __name__ == '__main__':
    sys.exit(main())
