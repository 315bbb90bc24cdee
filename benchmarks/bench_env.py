# SPDX-License-Identifier: Apache-2.0
"""Steps per second of the Gymnasium environment beside that of so101-nexus-mujoco, lift task, random actions.

Each environment is measured with the state alone and with an 84 px picture of the wrist camera in every step, in one
process and in two (AsyncVectorEnv, spawn). The measurements take turns, so that a busy machine slows all alike; the
median of the rounds counts.

A step is not the same everywhere: ours is 0.1 s of the arm, the peer's 0.02 s. So ours is measured a second time with
steps of 0.02 s, which is the fair comparison, and "robot s/s" says how much time of the arm passes in a second.

The peer is installed into .bench/env on the first run.
"""

import argparse
import json
import os
from pathlib import Path
import sys
import time
from typing import Any

from peers import in_venv
from processes import ask_once, bare_environment, ROOT
from report import Parser, quantile, Report, Row

SOURCES = ('interfaces', 'contract', 'description', 'kinematics', 'driver', 'sim')
REQUIREMENTS = (
    'so101-nexus-mujoco==0.2.0',
    'so101-nexus-core==0.2.0',
    'mujoco==4.0.0',
    'gymnasium==1.4.0',
    'PyOpenGL==3.1.10',
    'numpy==2.4.6',
)
PEER = 'so101-nexus-mujoco, 0.02 s a step'
SUBJECTS = ('ours', 'ours 50 Hz', 'peer')
STEP_S = {'ours': 0.1, 'ours 50 Hz': 0.02, 'peer': 0.02}
OBSERVATIONS = ('image', 'state')  # the headline first
PROCESSES = (1, 2)
IMAGE_SIZE = 84

Case = tuple[str, str, int]


def make_ours(observation: str, rate_hz: float) -> Any:
    """Return our environment."""
    from dataclasses import replace

    from so101_sim.env import ArmEnv
    from so101_sim.scene.presets import get_preset

    preset = get_preset('easy')
    control = replace(
        preset.control, rate_hz=rate_hz, latency_s=0.0 if rate_hz > 10.0 else preset.control.latency_s
    )
    return ArmEnv(
        preset=replace(preset, control=control, max_steps=round(10.0 * rate_hz)),
        images=observation == 'image',
    )


def make_peer(observation: str) -> Any:
    """Return the peer's environment."""
    from so101_nexus_core.config import CameraConfig, PickCubeConfig
    from so101_nexus_mujoco.pick_cube import PickCubeLiftEnv

    return PickCubeLiftEnv(
        config=PickCubeConfig(camera=CameraConfig(width=IMAGE_SIZE, height=IMAGE_SIZE)),
        camera_mode='wrist' if observation == 'image' else 'state_only',
        control_mode='pd_joint_target_delta_pos',
    )


class Maker:
    """Makes one environment; picklable, for processes that are spawned."""

    def __init__(self, subject: str, observation: str) -> None:
        self.subject = subject
        self.observation = observation

    def __call__(self) -> Any:
        """Make it."""
        if self.subject == 'peer':
            from gymnasium.wrappers import TimeLimit

            return TimeLimit(make_peer(self.observation), 500)
        return make_ours(self.observation, 1.0 / STEP_S[self.subject])


def work(subject: str, observation: str, processes: int, seconds: float) -> float:
    """Return the steps per second of one case, all processes together."""
    import gymnasium as gym

    if processes == 1:
        env = Maker(subject, observation)()
        env.reset(seed=0)
    else:
        env = gym.vector.AsyncVectorEnv([Maker(subject, observation)] * processes, context='spawn')
        env.reset(seed=0)
    env.action_space.seed(0)
    steps, start = 0, 0.0
    deadline = time.perf_counter() + 0.3 * seconds  # warm-up
    warm = False
    while True:
        result = env.step(env.action_space.sample())
        if processes == 1 and (result[2] or result[3]):
            env.reset()
        now = time.perf_counter()
        steps += processes
        if now >= deadline:
            if warm:
                break
            warm, steps, start, deadline = True, 0, now, now + seconds
    env.close()
    return steps / (now - start)


def measure(case: Case, seconds: float, python: str) -> float:
    """Run one case in a process of its own and return its steps per second."""
    environment = {**bare_environment(), 'MUJOCO_GL': 'egl'}
    ours = case[0] != 'peer'
    if ours:
        environment['PYTHONPATH'] = os.pathsep.join(str(ROOT / 'src' / f'so101_{name}') for name in SOURCES)
    words = [sys.executable if ours else python, Path(__file__).resolve(), '--work', *case, seconds]
    return float(ask_once(words, environment))


def run(rounds: int, seconds: float) -> dict[Case, list[float]]:
    """Measure every case in turn, several times."""
    from rich.console import Console  # the peer's Python, which runs this file too, has no rich
    from rich.progress import Progress

    python = in_venv('env', REQUIREMENTS)
    cases = [(s, o, n) for o in OBSERVATIONS for n in PROCESSES for s in SUBJECTS]
    found: dict[Case, list[float]] = {case: [] for case in cases}
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task('environments', total=rounds * len(cases))
        for _ in range(rounds):
            for case in cases:
                found[case].append(measure(case, seconds, python))
                progress.advance(bar)
    return found


def make_rows(found: dict[Case, list[float]]) -> list[Row]:
    """Return a row per case; a peer's own figure stands beside ours."""
    rows = []
    for (subject, observation, processes), rates in found.items():
        if subject == 'peer':
            continue
        peer = quantile(found['peer', observation, processes], 0.5)
        rate = quantile(rates, 0.5)
        seconds = (
            f'{rate * STEP_S[subject]:.2f} s of the arm a second, the peer {peer * STEP_S["peer"]:.2f} s'
        )
        title = (
            f'{observation}, {processes} process{"es" if processes > 1 else ""}, {STEP_S[subject]:g} s a step'
        )
        rows.append(Row.of(title, 'steps/s', rates, 1.0, seconds).beside(PEER, peer, more_is_better=True))
    return rows


def main() -> int:
    """Command line."""
    parser = Parser(__doc__)
    parser.number('--rounds', 3, 'times that every case is measured', quick=1)
    parser.number('--seconds', 4.0, 'length of one measurement', quick=0.5)
    parser.add_argument('--work', nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        subject, observation, processes, seconds = options.work
        print(json.dumps(work(subject, observation, int(processes), float(seconds))))
        return 0
    versions = dict(requirement.split('==') for requirement in REQUIREMENTS)
    return Report('env', make_rows(run(options.rounds, options.seconds)), versions).finish(options)


if __name__ == '__main__':
    sys.exit(main())
