# SPDX-License-Identifier: Apache-2.0
"""Shows what the reality gap does to a policy: `python tools/check_gap.py`.

A policy is learned in the preset easy, from the wrist camera and the joints. Then it acts in the same task with the
differences of the preset gap, all together and one by one. The last line is a JSON object.

The policy (`Imitator`) is learned in seconds without a learning framework: ridge regression from random features of a
small wrist picture and the joints to the expert's action, on states that the policy itself gets into (DAgger, Ross et
al., 2011). It is no substitute for the learner; it answers whether a task can be learned from what is observed, and
whether what was learned in one scene works in another.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
import json
import sys

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from so101_contract.observation import Observation
from so101_sim.env import ArmEnv, WRIST_CAMERA
from so101_sim.human.expert import Expert
from so101_sim.scene.presets import GAP_SCENE, get_preset, NOMINAL_SCENE, SCENE_PARTS
from so101_sim.scene.scene import SceneConfig

Float32Array = npt.NDArray[np.float32]

PICTURE = 24
FEATURES = 1500
RIDGE = 0.3
EXPLORATION = (0.2, 0.2, 0.2, 0.0)
STATE_SCALE = {'joint_pos': 1.0, 'joint_vel': 0.2, 'tcp_pos': 5.0}


class Imitator:
    """Learns to do what the expert does."""

    def __init__(self, env: ArmEnv, seed: int = 0) -> None:
        """Prepare for an environment with the wrist camera."""
        self._env, self._seed = env, seed
        self._rng = np.random.default_rng(seed)
        self._expert = Expert(env.preset.task, env.action_spec)
        env.reset(seed=seed)
        inputs = len(self._inputs(env.observation()))
        pixels = PICTURE * PICTURE * 3
        weights = self._rng.normal(0.0, 1.0, (inputs, FEATURES))
        weights[:pixels] *= 2.0 / np.sqrt(pixels)
        weights[pixels:] *= 0.5
        self._weights = weights.astype(np.float32)
        self._bias = self._rng.uniform(-1.0, 1.0, FEATURES).astype(np.float32)
        self._seen: list[Float32Array] = []
        self._wanted: list[npt.NDArray[np.float64]] = []
        self._solution: npt.NDArray[np.floating] | None = None

    def learn(
        self, rounds: int = 3, episodes: int = 40, after_episode: Callable[[], None] = lambda: None
    ) -> None:
        """Collect episodes and fit, a few times; the expert acts less from round to round.

        Args:
            rounds: times that is collected and fitted.
            episodes: in each round.
            after_episode: called after each, for a progress bar.
        """
        for number in range(rounds):
            share = 0.5**number
            for episode in range(episodes):
                self._collect(self._seed + number * episodes + episode, share)
                after_episode()
            features = self._features(np.array(self._seen))
            normal = features.T @ features + RIDGE * np.eye(features.shape[1], dtype=np.float32)
            self._solution = np.linalg.solve(normal, features.T @ np.array(self._wanted))

    def act(self, observation: Observation) -> Float32Array:
        """Return an action in network units (4,)."""
        assert self._solution is not None, 'learn comes first'
        action = self._features(self._inputs(observation)[None])[0] @ self._solution
        return np.asarray(np.clip(action, -1.0, 1.0), dtype=np.float32)

    def success_rate(self, env: ArmEnv, episodes: int, seed: int = 10_000) -> float:
        """Return how often the learned policy succeeds in an environment, 0..1."""
        successes = 0
        for number in range(episodes):
            env.reset(seed=seed + number)
            success = False
            while not env.is_over:
                success = bool(env.step(self.act(env.observation()))[4]['is_success'])
            successes += success
        return successes / episodes

    def _collect(self, seed: int, expert_share: float) -> None:
        env, rng = self._env, np.random.default_rng(seed)
        env.reset(seed=seed)
        self._expert.reset(rng)
        while not env.is_over:
            observation = env.observation()
            wanted = self._expert.network_action(env.truth())
            self._seen.append(self._inputs(observation))
            self._wanted.append(wanted)
            if self._solution is None or rng.random() < expert_share:
                action = wanted + rng.normal(0.0, 1.0, 4) * EXPLORATION
            else:
                action = self.act(observation).astype(np.float64)
            env.step(np.clip(action, -1.0, 1.0).astype(np.float32))

    def _inputs(self, observation: Observation) -> Float32Array:
        """Return the newest picture, made small, and the joints now and how they have moved, as one vector."""
        picture = observation.images[WRIST_CAMERA][-1].transpose(1, 2, 0)
        small = cv2.resize(picture, (PICTURE, PICTURE), interpolation=cv2.INTER_AREA)
        spec, state = self._env.observation_spec, observation.state
        parts = [np.asarray(small, dtype=np.float32).ravel() / 127.5 - 1.0]
        for name, scale in STATE_SCALE.items():
            parts.append(scale * state[-1, spec.slice_of(name)])
        joints = spec.slice_of('joint_pos')
        parts.append(state[max(-2, -len(state)), joints] - state[-1, joints])
        return np.concatenate(parts).astype(np.float32)

    def _features(self, inputs: Float32Array) -> Float32Array:
        hidden: Float32Array = np.maximum(inputs @ self._weights + self._bias, np.float32(0.0))
        return np.concatenate([hidden, inputs, np.ones((len(inputs), 1), np.float32)], axis=1)


DIFFERENCES: dict[str, SceneConfig] = {
    'nothing': NOMINAL_SCENE,
    **{
        part: replace(NOMINAL_SCENE, **{name: getattr(GAP_SCENE, name) for name in names})
        for part, names in SCENE_PARTS.items()
    },
    'everything': GAP_SCENE,
}
"""Scenes between the nominal one and the gap's."""


def gap_rates(
    episodes: int, rounds: int = 3, seed: int = 0, progress: Progress | None = None
) -> dict[str, float]:
    """Return the success rate of a policy from the nominal scene in each of `DIFFERENCES`."""
    easy = get_preset('easy')
    bar = None if progress is None else progress.add_task('learning', total=rounds * 40)
    env = ArmEnv(preset=easy)
    imitator = Imitator(env, seed)
    imitator.learn(
        rounds, after_episode=lambda: None if progress is None or bar is None else progress.advance(bar)
    )
    env.close()
    rates = {}
    for name, scene in DIFFERENCES.items():
        env = ArmEnv(preset=replace(easy, scene=scene))
        rates[name] = round(imitator.success_rate(env, episodes), 3)
        env.close()
    return rates


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog='python tools/check_gap.py', description=__doc__)
    parser.add_argument('--episodes', type=int, default=40, help='episodes for each difference')
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args(arguments)
    with Progress(console=Console(stderr=True)) as progress:
        rates = gap_rates(options.episodes, seed=options.seed, progress=progress)
    report = {
        'name': 'gap',
        'value': rates['everything'],
        'unit': 'success rate with every difference of the preset gap',
        'n': options.episodes,
        'rates': rates,
    }
    sys.stdout.write(json.dumps(report) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
