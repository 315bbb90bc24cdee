# SPDX-License-Identifier: Apache-2.0
"""Policies side by side on the same episodes: how often, how well, how fast, and how sure that is.

Every row is measured on the episodes of the same seed, so rows are compared pair by pair. Rates come with Wilson's 95 %
interval (Wilson, 1927), differences of rates with that of Bonett and Price (2012) for paired proportions. Times are of
the processor, so that other programs on the machine do not count. The floor is in it: a policy that rests, and one that
draws its actions.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
import json
import math
from pathlib import Path
import time
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from drqv2_policy_node.store import load_policy, MANIFEST
from hilserl_learner.data.collect import Actor, Human, ScriptedExpert, World
from hilserl_learner.errors import LearnerError
from hilserl_learner.training.evaluate import evaluate, EvaluatedEnv, Evaluation, EVALUATION_SEED
from hilserl_learner.training.settings import (
    CONFIG,
    default_observation,
    FREE_ON_RESUME,
    is_fetch,
    make_env,
    observation_name,
    read_config,
    stored,
)
from so101_contract.action import EeDeltaValue
from so101_contract.interval import wilson, Z_95
from so101_contract.observation import Observation
from so101_sim.human.expert import Skill

ZERO, RANDOM, EXPERT = 'zero', 'random', 'expert'
BUILT_IN = (ZERO, RANDOM, EXPERT)
"""Who needs no policy: who rests, who draws actions, and who knows where everything is."""


P = ParamSpec('P')
T = TypeVar('T')


@dataclass(frozen=True)
class Contender:
    """Who acts in a row; contenders of one environment with one label and one kind are seeds of the same thing.

    Attributes:
        env: environment.
        preset: difficulty.
        label: what the row is called.
        policy: folder of the policy; None for one of `BUILT_IN`, which the label then is.
        kind: every setting of its run but the seed.
    """

    env: str
    preset: str
    label: str
    policy: Path | None = None
    kind: str = ''


@dataclass
class Stopwatch:
    """How long calls take [s of the processor]."""

    taken: list[float] = field(default_factory=list)

    def timed(self, call: Callable[P, T]) -> Callable[P, T]:
        """Return the function, with its calls timed."""

        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            start = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.taken.append(time.process_time() - start)

        return run

    @property
    def median_ms(self) -> float:
        """Median of the calls [ms]; NaN without any."""
        return 1e3 * float(np.median(self.taken)) if self.taken else math.nan


class TimedEnv:
    """An environment whose steps are timed."""

    def __init__(self, env: World, watch: Stopwatch) -> None:
        self.observation_spec, self.action_spec = env.observation_spec, env.action_spec
        self.reset, self.observation, self.truth = env.reset, env.observation, env.truth
        self._step = watch.timed(env.step)

    def step(self, action: npt.NDArray[Any]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Execute one action in network units."""
        return self._step(action)


class TimedExpert:
    """The expert, with its decisions timed."""

    def __init__(self, env: World, watch: Stopwatch) -> None:
        expert = ScriptedExpert(env, Skill())
        self.begin, self._decide = expert.begin, watch.timed(expert.decide)

    def decide(self) -> EeDeltaValue | None:
        """Return what to do in this step."""
        return self._decide()


@dataclass(frozen=True)
class Measured:
    """What came of one contender's episodes.

    Attributes:
        contender: who acted.
        evaluation: the episodes.
        step_ms: of a step of the environment.
        act_ms: of an action.
    """

    contender: Contender
    evaluation: Evaluation
    step_ms: float
    act_ms: float


def measure(
    contender: Contender,
    episodes: int,
    *,
    seed: int = EVALUATION_SEED,
    reward: str | None = None,
    after_episode: Callable[[], None] = lambda: None,
) -> Measured:
    """Let a contender act.

    Args:
        contender: who.
        episodes: how many.
        seed: which ones.
        reward: name of a reward; the environment's own by default.
        after_episode: called after each, for a progress bar.
    """
    policy = None if contender.policy is None else load_policy(contender.policy)
    seen = default_observation(contender.env) if policy is None else observation_name(policy, contender.env)
    env = make_env(contender.env, contender.preset, seen, reward=reward)
    if policy is not None:
        env.observation_spec.require_same(policy.manifest.observation, (contender.env, str(contender.policy)))
    steps, acts = Stopwatch(), Stopwatch()
    human: Human | None = None
    act: Actor
    if policy is not None:
        act = acts.timed(policy.act)
    elif contender.label == EXPERT:
        human, act = TimedExpert(env, acts), _rest(env.action_spec.size)
    elif contender.label == RANDOM:
        act = acts.timed(_draw(env.action_spec.size, seed))
    else:
        act = acts.timed(_rest(env.action_spec.size))
    timed: EvaluatedEnv = TimedEnv(env, steps)
    try:
        result = evaluate(
            timed, act, episodes, seed=seed, human=human, after_episode=lambda _: after_episode()
        )
    finally:
        env.close()
    return Measured(contender, result, steps.median_ms, acts.median_ms)


def _rest(size: int) -> Actor:
    return lambda _: np.zeros(size, np.float32)


def _draw(size: int, seed: int) -> Actor:
    rng = np.random.default_rng([seed, 3])

    def act(observation: Observation) -> npt.NDArray[np.float32]:
        del observation
        return rng.uniform(-1.0, 1.0, size).astype(np.float32)

    return act


def contenders_of(names: Sequence[str], envs: Sequence[str], preset: str) -> list[Contender]:
    """Return who is compared.

    Args:
        names: each one of `BUILT_IN`, a run's directory, a policy's folder, or `default`, the policy that is shipped.
        envs: environments of those that do not say theirs, as a run's directory does.
        preset: difficulty of these.

    Raises:
        LearnerError: a name is none of the three.
    """
    found = []
    for name in names:
        folder = Path(name)
        if name in BUILT_IN:
            found += [Contender(env, preset, name) for env in envs]
        elif (folder / CONFIG).is_file():
            config = read_config(folder)
            policy = folder / ('best' if (folder / 'best').is_dir() else 'last')
            env, at, agent = (str(config.get(key, '')) for key in ('env', 'preset', 'agent'))
            seen = (
                ''
                if config.get('observation') == default_observation(env)
                else f' {config.get("observation")}'
            )
            kind = {name: value for name, value in config.items() if name not in ('seed', *FREE_ON_RESUME)}
            helped = ', helped' if config.get('operator') == 'scripted' else ''
            label = f'{agent}{seen}{helped}'
            found.append(Contender(env, at, label, policy, json.dumps(kind, sort_keys=True)))
        elif (stored(name) / MANIFEST).is_file():
            found += [Contender(env, preset, folder.name, stored(name)) for env in envs]
        else:
            raise LearnerError(
                f'expected {", ".join(BUILT_IN)}, the directory of a run, or the folder of a policy, got {name!r}; '
                f'name one of them'
            )
    return found


# ---- rows --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of the table: everything of one environment with one label.

    Attributes:
        env: environment, with its difficulty where it has several.
        label: who acted.
        measured: one for each seed.
    """

    env: str
    label: str
    measured: tuple[Measured, ...]

    @property
    def successes(self) -> npt.NDArray[np.bool_]:
        """Which episodes succeeded (runs, episodes)."""
        return np.array([[one.success for one in m.evaluation.outcomes] for m in self.measured])

    @property
    def rate(self) -> float:
        """Share of successes, 0..1."""
        return float(self.successes.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the rate."""
        return wilson(int(self.successes.sum()), self.successes.size)

    @property
    def reward(self) -> tuple[float, float]:
        """Mean sum of rewards of an episode, and half the width of its 95 % interval."""
        rewards = np.array([one.reward for m in self.measured for one in m.evaluation.outcomes])
        spread = float(rewards.std(ddof=1)) if len(rewards) > 1 else math.nan
        return float(rewards.mean()), Z_95 * spread / math.sqrt(len(rewards))

    @property
    def mean_steps(self) -> float:
        """Mean length of successful episodes [steps]; NaN without any."""
        steps = [one.steps for m in self.measured for one in m.evaluation.outcomes if one.success]
        return float(np.mean(steps)) if steps else math.nan

    def mean_ms(self, name: str) -> float:
        """Return the mean over the runs of `step_ms` or `act_ms`."""
        return float(np.mean([getattr(one, name) for one in self.measured]))


def rows_of(measured: Sequence[Measured]) -> list[Row]:
    """Return the rows, environments and labels in the order in which they first come.

    Kinds that have the same label are told apart by the folder of their first run.
    """
    kinds: dict[tuple[str, str, str], list[Measured]] = {}
    for one in measured:
        who = one.contender
        env = who.env if is_fetch(who.env) else f'{who.env} {who.preset}'
        kinds.setdefault((env, who.label, who.kind), []).append(one)
    groups: dict[tuple[str, str], list[Measured]] = {}
    same = Counter((env, label) for env, label, _ in kinds)
    for (env, label, _), ones in kinds.items():
        folder = ones[0].contender.policy
        told = f'{label} ({folder.parent.name})' if folder is not None and same[env, label] > 1 else label
        groups[env, told] = ones
    order = list(dict.fromkeys(env for env, _ in groups))
    return [
        Row(env, label, tuple(groups[env, label])) for one in order for env, label in groups if env == one
    ]


def paired_difference(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return by how much the first succeeds more often on the same episodes, and its 95 % interval.

    That of Bonett and Price (2012): one is added to each kind of pair that differs, so that ten equal pairs do not
    claim to be certain.

    Args:
        one: (runs, episodes).
        other: (runs, episodes), of any number of runs; each run of the first is paired with one of these.
    """
    paired = np.array([other[k % len(other)] for k in range(len(one))])
    gained, lost = int((one & ~paired).sum()) + 1, int((~one & paired).sum()) + 1
    n = one.size + 2
    p, q = gained / n, lost / n
    spread = Z_95 * math.sqrt((p + q - (p - q) ** 2) / n)
    return (gained - lost) / one.size, max(-1.0, p - q - spread), min(1.0, p - q + spread)


def table(rows: Sequence[Row], reference: str = '') -> str:
    """Return the rows as a Markdown table.

    Args:
        rows: what was measured.
        reference: label of the row that the others of its environment are compared with; the first by default.
    """
    lines = [
        '| environment | who | runs | episodes | success | difference | reward | steps | ms a step | ms an action |',
        '|---|---|---|---|---|---|---|---|---|---|',
    ]
    first: dict[str, Row] = {}
    for row in rows:
        if row.env not in first or (row.label == reference and first[row.env].label != reference):
            first[row.env] = row
    for row in rows:
        low, high = row.interval
        reward, half = row.reward
        apart = (
            ''
            if row is first[row.env]
            else _apart(paired_difference(row.successes, first[row.env].successes))
        )
        steps = '' if math.isnan(row.mean_steps) else f'{row.mean_steps:.1f}'
        lines.append(
            f'| {row.env} | {row.label} | {len(row.measured)} | {row.successes.shape[1]} | '
            f'{100 * row.rate:.1f} % ({100 * low:.0f} to {100 * high:.0f}) | {apart} | {reward:.2f} ± {half:.2f} | '
            f'{steps} | {row.mean_ms("step_ms"):.2f} | {row.mean_ms("act_ms"):.2f} |'
        )
    return '\n'.join(lines) + '\n'


def _apart(difference: tuple[float, float, float]) -> str:
    middle, low, high = (100 * value for value in difference)
    return f'{middle:+.1f} ({low:+.0f} to {high:+.0f})'


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows as plain values for JSON, with every episode."""
    return [
        {
            'env': row.env,
            'who': row.label,
            'success': round(row.rate, 4),
            'interval': [round(value, 4) for value in row.interval],
            'reward': [_rounded(value) for value in row.reward],
            'mean_steps': _rounded(row.mean_steps),
            'step_ms': _rounded(row.mean_ms('step_ms')),
            'act_ms': _rounded(row.mean_ms('act_ms')),
            'runs': [
                {
                    'policy': None if one.contender.policy is None else str(one.contender.policy),
                    'successes': [int(outcome.success) for outcome in one.evaluation.outcomes],
                    'steps': [outcome.steps for outcome in one.evaluation.outcomes],
                    'rewards': [round(outcome.reward, 4) for outcome in one.evaluation.outcomes],
                }
                for one in row.measured
            ],
        }
        for row in rows
    ]


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def draw(rows: Sequence[Row], path: Path, title: str = '') -> None:
    """Write a picture of the rows: success with its interval, and times, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 1.2 + 0.3 * len(rows)), layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    colours: Mapping[str, str] = {
        label: f'C{number % 10}' for number, label in enumerate(dict.fromkeys(row.label for row in rows))
    }
    heights = np.arange(len(rows))
    for height, row in zip(heights, rows, strict=True):
        low, high = row.interval
        left.barh(height, row.rate, color=colours[row.label], alpha=0.75)
        left.plot((low, high), (height, height), color='black', linewidth=1.2)
        for run in row.successes.mean(axis=1):
            left.plot(run, height, 'o', color='black', markersize=3)
        right.plot(row.mean_ms('step_ms'), height, 's', color=colours[row.label], markersize=5)
        right.plot(row.mean_ms('act_ms'), height, '^', color=colours[row.label], markersize=5)
    left.set_yticks(heights, [f'{row.env}, {row.label}' for row in rows], fontsize=8)
    left.invert_yaxis()
    left.set(xlim=(0.0, 1.02), xlabel='success; line: 95 %; dots: runs')
    right.set(xscale='log', xlabel='ms\nsquare: a step\ntriangle: an action')
    for axes in (left, right):
        axes.grid(alpha=0.3, axis='x')
    if title:
        figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
