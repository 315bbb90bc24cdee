# SPDX-License-Identifier: Apache-2.0
"""How often a task succeeds: `python -m so101_sim.evaluate --preset wide --episodes 200`.

Who acts is one of: `expert` (the scripted expert), `rescued` (a policy that wanders about, with the operator watching),
`blind` (the expert, but told the TCP that kinematics believe in instead of where it is: a stand-in for a policy
that was trained in the nominal scene).
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
import json
import math
import sys
import time

import numpy as np
from rich.console import Console
from rich.progress import Progress

from so101_contract.action import EeDeltaValue
from so101_contract.interval import wilson
from so101_sim.env import ArmEnv
from so101_sim.human.expert import Expert, Skill
from so101_sim.human.operator import Habits, Operator
from so101_sim.scene.ground_truth import GroundTruth
from so101_sim.scene.presets import NAMES

ACTORS = ('expert', 'rescued', 'blind')


@dataclass(frozen=True)
class Result:
    """What came of some episodes.

    Attributes:
        episodes: how many there were.
        successes: how many succeeded.
        steps: mean number of steps of those; NaN without any.
        intervened: share of all steps in which the operator acted.
        lengths: of its interventions [steps].
        steps_per_s: speed of the evaluation [1/s].
        failed: seeds of the episodes that did not succeed.
    """

    episodes: int
    successes: int
    steps: float
    intervened: float
    lengths: tuple[int, ...]
    steps_per_s: float
    failed: tuple[int, ...]

    @property
    def rate(self) -> float:
        """Share of successes, 0..1."""
        return self.successes / self.episodes


def evaluate(
    env: ArmEnv,
    episodes: int,
    *,
    actor: str = 'expert',
    skill: Skill | None = None,
    habits: Habits | None = None,
    seed: int = 0,
    after_episode: Callable[[], None] = lambda: None,
) -> Result:
    """Run episodes with seeds `seed`, `seed` + 1, and so on.

    Args:
        env: the environment.
        episodes: how many.
        actor: one of `ACTORS`.
        skill: of the expert.
        habits: of the operator (actor `rescued`).
        seed: of the first episode.
        after_episode: called after each, for a progress bar.
    """
    expert = Expert(env.preset.task, env.action_spec, skill)
    operator = Operator(env.preset.task, env.action_spec, skill, habits, env.preset.max_steps)
    steps: list[int] = []
    failed: list[int] = []
    intervened = total = 0
    start = time.perf_counter()
    for number in range(seed, seed + episodes):
        env.reset(seed=number)
        rng = np.random.default_rng(number)
        expert.reset(rng)
        operator.reset(rng)
        wander = _Wanderer(rng)
        over = success = False
        count = 0
        while not over:
            truth = env.truth()
            action = wander.act() if actor == 'rescued' else expert.act(_seen(env, truth, actor))
            if actor == 'rescued':
                decision = operator.update(truth)
                action = decision.action or action
                intervened += decision.intervening
            network = env.action_spec.from_wire(action.translation, action.opening).values
            _, _, terminated, truncated, info = env.step(network)
            over, success = terminated or truncated, bool(info['is_success'])
            count += 1
        total += count
        if success:
            steps.append(count)
        else:
            failed.append(number)
        after_episode()
    elapsed = time.perf_counter() - start
    mean = float(np.mean(steps)) if steps else math.nan
    operator.end_episode()
    lengths = tuple(operator.tally.lengths)
    return Result(episodes, len(steps), mean, intervened / total, lengths, total / elapsed, tuple(failed))


class _Wanderer:
    """A policy that knows nothing: it drifts about, and opens and closes the gripper now and then."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._drift, self._opening = np.zeros(3), 0.5

    def act(self) -> EeDeltaValue:
        self._drift = 0.8 * self._drift + self._rng.normal(0.0, 0.006, 3)
        if self._rng.random() < 0.1:
            self._opening = float(self._rng.uniform(0.0, 0.6))
        return EeDeltaValue(np.clip(self._drift, -0.02, 0.02), self._opening)


def _seen(env: ArmEnv, truth: GroundTruth, actor: str) -> GroundTruth:
    """Return the truth as the actor takes it."""
    if actor != 'blind':
        return truth
    believed = env.arm.fk.pose(env.simulation.joint_positions).position
    error = believed - np.array(truth.tcp_position)
    x, y, z = (np.array(truth.grip_position) + error).tolist()
    return replace(truth, grip_position=(x, y, z))


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate and print; the last line is a JSON object."""
    parser = argparse.ArgumentParser(prog='python -m so101_sim.evaluate', description=__doc__)
    parser.add_argument('--task', default='lift', help='name or file (default: %(default)s)')
    parser.add_argument('--preset', default='easy', help=f'{", ".join(NAMES)} (default: %(default)s)')
    parser.add_argument('--episodes', type=int, default=50)
    parser.add_argument('--actor', choices=ACTORS, default='expert')
    parser.add_argument(
        '--noise', type=float, default=0.0, help='noise on each action, share of the largest one'
    )
    parser.add_argument('--aim-error', type=float, default=0.0, help='aim error of each attempt [m]')
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args(arguments)
    env = ArmEnv(task=options.task, preset=options.preset, images=False)
    skill = Skill(noise=options.noise, aim_error_m=options.aim_error)
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(f'{options.task} {options.preset} {options.actor}', total=options.episodes)
        result = evaluate(
            env,
            options.episodes,
            actor=options.actor,
            skill=skill,
            seed=options.seed,
            after_episode=lambda: progress.advance(bar),
        )
    low, high = wilson(result.successes, result.episodes)
    report = {
        'name': f'{options.task}-{options.preset}-{options.actor}',
        'value': round(result.rate, 4),
        'unit': 'success rate',
        'interval': [round(low, 4), round(high, 4)],
        'n': result.episodes,
        'mean_steps': round(result.steps, 2),
        'intervened': round(result.intervened, 4),
        'interventions': len(result.lengths),
        'intervention_steps_median_p90': [float(np.percentile(result.lengths or (0,), q)) for q in (50, 90)],
        'steps_per_s': round(result.steps_per_s, 1),
        'failed_seeds': result.failed,
    }
    sys.stdout.write(json.dumps(report) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
