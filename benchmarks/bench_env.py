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
import platform
import statistics
import subprocess
import sys
import time
from typing import Any
import venv

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / '.bench' / 'env'
SOURCES = ('interfaces', 'contract', 'description', 'kinematics', 'driver', 'sim')
REQUIREMENTS = (
    'so101-nexus-mujoco==0.2.0',
    'so101-nexus-core==0.2.0',
    'mujoco==4.0.0',
    'gymnasium==1.4.0',
    'PyOpenGL==3.1.10',
    'numpy==2.4.6',
)
SUBJECTS = ('ours', 'ours 50 Hz', 'peer')
STEP_S = {'ours': 0.1, 'ours 50 Hz': 0.02, 'peer': 0.02}
OBSERVATIONS = ('state', 'image')
PROCESSES = (1, 2)
IMAGE_SIZE = 84

Numbers = dict[str, Any]
Case = tuple[str, str, int]


def make_ours(observation: str, rate_hz: float) -> Any:
    """Return our environment."""
    from dataclasses import replace

    from so101_sim.env import ArmEnv
    from so101_sim.presets import get_preset

    preset = get_preset('easy')
    chain = replace(
        preset.chain, rate_hz=rate_hz, latency_s=0.0 if rate_hz > 10.0 else preset.chain.latency_s
    )
    return ArmEnv(
        preset=replace(preset, chain=chain, max_steps=round(10.0 * rate_hz)), images=observation == 'image'
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
    subject, observation, _ = case
    ours = subject != 'peer'
    # Neither ROS's libraries nor more than one thread in numpy; Mesa may use what it wants.
    environment = {k: v for k, v in os.environ.items() if k not in ('LD_LIBRARY_PATH', 'PYTHONPATH')}
    environment |= dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1')
    environment |= {'_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1', 'MUJOCO_GL': 'egl'}
    if ours:
        environment['PYTHONPATH'] = os.pathsep.join(str(ROOT / 'src' / f'so101_{name}') for name in SOURCES)
    words = [
        sys.executable if ours else python,
        str(Path(__file__).resolve()),
        '--work',
        *map(str, case),
        str(seconds),
    ]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f'{subject} ({observation}) ended with code {done.returncode}:\n{done.stderr[-2000:]}'
        )
    return float(done.stdout.splitlines()[-1])


def run(rounds: int = 3, seconds: float = 4.0) -> dict[Case, list[float]]:
    """Measure every case in turn, several times."""
    from rich.console import Console  # the peer's Python, which runs this file too, has no rich
    from rich.progress import Progress

    python = install_peer()
    cases = [(s, o, n) for o in OBSERVATIONS for n in PROCESSES for s in SUBJECTS]
    found: dict[Case, list[float]] = {case: [] for case in cases}
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task('environments', total=rounds * len(cases))
        for _ in range(rounds):
            for case in cases:
                found[case].append(measure(case, seconds, python))
                progress.advance(bar)
    return found


def install_peer() -> str:
    """Return the Python that has the peer; install it first if need be."""
    python = VENV / 'bin' / 'python'
    stamp = VENV / 'requirements.txt'
    wanted = '\n'.join(REQUIREMENTS)
    if not python.exists():
        venv.create(VENV, with_pip=True)
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([python, '-m', 'pip', 'install', '--quiet', *REQUIREMENTS], check=True)
        stamp.write_text(wanted)
    return str(python)


def report(found: dict[Case, list[float]], rounds: int) -> Numbers:
    """Print a table and return the figures."""
    from rich.console import Console
    from rich.table import Table

    median = {case: statistics.median(values) for case, values in found.items()}
    table = Table(
        'observation', 'processes', 'environment', 'steps/s', 'robot s/s', 'steps/s ratio', 'robot s/s ratio'
    )
    rows = []
    for (subject, observation, processes), rate in median.items():
        peer = median['peer', observation, processes]
        row = {
            'observation': observation,
            'processes': processes,
            'environment': subject,
            'steps_per_s': round(rate, 1),
            'robot_s_per_s': round(rate * STEP_S[subject], 2),
            'ratio': round(rate / peer, 3),
            'robot_time_ratio': round(rate * STEP_S[subject] / (peer * STEP_S['peer']), 3),
        }
        rows.append(row)
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
    value, peer = median['ours', 'image', 1], median['peer', 'image', 1]
    return {
        'name': 'env',
        'value': round(value, 1),
        'unit': 'steps/s with an 84 px wrist image, one process',
        'peer': 'so101-nexus-mujoco 0.2.0',
        'peer_value': round(peer, 1),
        'ratio': round(value / peer, 3),
        'n': rounds,
        'cases': rows,
        'cpus': os.cpu_count(),
        'machine': platform.machine(),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--rounds', type=int, default=3, help='times that every case is measured')
    parser.add_argument('--seconds', type=float, default=4.0, help='length of one measurement')
    parser.add_argument('--json', type=Path, help='write the result to this file too')
    parser.add_argument('--work', nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        subject, observation, processes, seconds = arguments.work
        print(work(subject, observation, int(processes), float(seconds)))
        return
    line = json.dumps(report(run(arguments.rounds, arguments.seconds), arguments.rounds))
    if arguments.json:
        arguments.json.write_text(line + '\n')
    print(line)


if __name__ == '__main__':
    main()
