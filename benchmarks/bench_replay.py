# SPDX-License-Identifier: Apache-2.0
"""Drawing batches from the replay buffer, next to LeRobot's ReplayBuffer with the same content.

Both hold episodes of 84 px pictures, three of them stacked, and 18 state entries, and give observation and next
observation. LeRobot's buffer stores what it is given as float32, so it is given stacks of nine channels, once with
every next observation stored and once with `optimize_memory`, from uint8 and from float32 pictures. Augmentation is
off on both sides. Both run on one thread of the same torch, each in a process of its own.

LeRobot's files are installed into .bench/replay on the first run.
"""

import argparse
import json
import os
from pathlib import Path
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / '.bench' / 'replay'
LEROBOT = '0.4.4'  # the newest one for Python 3.11
BATCHES = (64, 256)
HEADLINE = 256
EPISODE = 100
SIZE, STACK, STATE = 84, 3, 18
ROUNDS = 5

Numbers = dict[str, float]


def measure(sample: Any, seconds: float) -> Numbers:
    """Transitions per second for each size of batch: the median of some rounds."""
    numbers = {}
    for rows in BATCHES:
        for _ in range(3):
            sample(rows)
        rates = []
        for _ in range(ROUNDS):
            begin, done = time.perf_counter(), 0
            while time.perf_counter() - begin < seconds / ROUNDS:
                sample(rows)
                done += rows
            rates.append(done / (time.perf_counter() - begin))
        numbers[f'rate_{rows}'] = round(statistics.median(rates))
    return numbers


def resident_bytes() -> int:
    """Largest memory of this process so far [B]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_ours(transitions: int, seconds: float) -> Numbers:
    """Measure hilserl_learner."""
    for package in ('so101_interfaces', 'so101_contract', 'hilserl_learner', 'drqv2_policy_node'):
        sys.path[:0] = [str(ROOT / 'src' / package)]
    import numpy as np

    from hilserl_learner.replay import ReplayBuffer
    from so101_contract.action import ActionSpec
    from so101_contract.episodes import Source
    from so101_contract.observation_spec import ObservationSpec
    from so101_contract.records import ExecutedAction
    from so101_contract.transition import Frame, Transition

    episodes = transitions // EPISODE
    buffer = ReplayBuffer(ObservationSpec(), ActionSpec(), capacity=episodes * (EPISODE + 1))
    rng = np.random.default_rng(0)
    before, spent = resident_bytes(), 0.0
    for episode in range(1, episodes + 1):
        frames = [
            Frame(
                episode,
                index,
                index + 1,
                rng.normal(size=STATE).astype(np.float32),
                {'gripper_cam': rng.integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)},
            )
            for index in range(EPISODE + 1)
        ]
        actions = [ExecutedAction(episode, k, np.zeros(3), 0.5, Source.POLICY) for k in range(EPISODE)]
        begin = time.perf_counter()
        for k in range(EPISODE):
            stack = tuple(frames[max(i, 0)] for i in range(k - STACK + 1, k + 1))
            buffer.add(Transition(stack, frames[k + 1], actions[k], 0.0, k == EPISODE - 1, False))
        spent += time.perf_counter() - begin
    numbers = {
        'bytes': buffer.nbytes / len(buffer),
        'resident_bytes': (resident_bytes() - before) / len(buffer),
        'add_rate': round(len(buffer) / spent),
    }
    return {**numbers, **measure(lambda rows: buffer.sample(rows, rng), seconds)}


def run_lerobot(transitions: int, seconds: float, optimize: bool, floats: bool) -> Numbers:
    """Measure LeRobot's buffer."""
    sys.path[:0] = [str(SITE)]
    # Its modules want the class of data sets, to import and export them, and a cache's path; nothing here does.
    stub = ModuleType('lerobot.datasets.lerobot_dataset')
    stub.LeRobotDataset = object  # type: ignore[attr-defined]
    hub = ModuleType('huggingface_hub.constants')
    hub.HF_HOME = ''  # type: ignore[attr-defined]
    sys.modules['huggingface_hub'] = ModuleType('huggingface_hub')
    sys.modules['huggingface_hub.constants'] = hub
    sys.modules['lerobot.datasets'] = ModuleType('lerobot.datasets')
    sys.modules['lerobot.datasets.lerobot_dataset'] = stub
    rl = ModuleType('lerobot.rl')
    rl.__path__ = [str(SITE / 'lerobot' / 'rl')]
    sys.modules['lerobot.rl'] = rl
    from lerobot.rl.buffer import ReplayBuffer
    import torch

    image, state = 'observation.images.wrist', 'observation.state'
    kind = torch.float32 if floats else torch.uint8
    buffer = ReplayBuffer(
        transitions, device='cpu', state_keys=[image, state], use_drq=False, optimize_memory=optimize
    )
    generator = torch.Generator().manual_seed(0)
    before, spent, episodes = resident_bytes(), 0.0, transitions // EPISODE
    for _ in range(episodes):
        frames = torch.randint(
            0, 256, (EPISODE + STACK, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator
        )
        states = torch.randn(EPISODE + 1, STATE * STACK, generator=generator)
        stacks = [
            frames[k : k + STACK].reshape(1, 3 * STACK, SIZE, SIZE).to(kind) for k in range(EPISODE + 1)
        ]
        begin = time.perf_counter()
        for k in range(EPISODE):
            buffer.add(
                state={image: stacks[k], state: states[k][None]},
                action=torch.zeros(1, 4),
                reward=0.0,
                next_state={image: stacks[k + 1], state: states[k + 1][None]},
                done=k == EPISODE - 1,
                truncated=False,
            )
        spent += time.perf_counter() - begin
    stored = [*buffer.states.values(), buffer.actions, buffer.rewards, buffer.dones, buffer.truncateds]
    stored += [] if optimize else list(buffer.next_states.values())
    numbers = {
        'bytes': sum(t.numel() * t.element_size() for t in stored) / transitions,
        'resident_bytes': (resident_bytes() - before) / transitions,
        'add_rate': round(episodes * EPISODE / spent),
    }
    return {**numbers, **measure(buffer.sample, seconds)}


SIDES = {
    'ours': 'hilserl_learner, frames once, uint8',
    'lerobot-optimized': f'LeRobot {LEROBOT}, given uint8, optimize_memory',
    'lerobot': f'LeRobot {LEROBOT}, given uint8',
    'lerobot-float': f'LeRobot {LEROBOT}, given float32, optimize_memory',
}


def install() -> None:
    """Get LeRobot's files, once."""
    stamp, wanted = SITE / 'stamp', f'lerobot {LEROBOT}'
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(SITE, ignore_errors=True)
    pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check']
    subprocess.run([*pip, '--no-deps', '--target', str(SITE), f'lerobot=={LEROBOT}', 'tqdm'], check=True)
    stamp.write_text(wanted)


def run_side(side: str, transitions: int, seconds: float) -> Numbers:
    """Measure one side in a process of its own."""
    command = [sys.executable, str(Path(__file__)), '--side', side]
    command += ['--transitions', str(transitions), '--seconds', str(seconds)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    result = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, timeout=600, env=environment
    )
    numbers: Numbers = json.loads(result.stdout.splitlines()[-1])
    return numbers


def measure_side(side: str, transitions: int, seconds: float) -> Numbers:
    """Measure in this process."""
    import torch

    torch.set_num_threads(1)
    if side == 'ours':
        return run_ours(transitions, seconds)
    return run_lerobot(transitions, seconds, side != 'lerobot', side == 'lerobot-float')


def main() -> None:
    """Run the benchmark, or one side of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--transitions', type=int, default=3000, help='in the buffer (default: %(default)s)')
    parser.add_argument('--seconds', type=float, default=5.0, help='per measurement (default: %(default)s)')
    parser.add_argument('--json', type=Path, help='write the last line to this file too')
    parser.add_argument('--side', choices=tuple(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure_side(options.side, options.transitions, options.seconds)))
        return
    install()
    rows = {side: run_side(side, options.transitions, options.seconds) for side in SIDES}
    print(f'{"":44} samples/s at {BATCHES[0]:>3}     at {BATCHES[1]:>3}   bytes  resident   adds/s')
    for side, name in SIDES.items():
        row = rows[side]
        print(
            f'{name:44} {row[f"rate_{BATCHES[0]}"]:16,.0f} {row[f"rate_{BATCHES[1]}"]:10,.0f} '
            f'{row["bytes"]:7,.0f} {row["resident_bytes"]:9,.0f} {row["add_rate"]:8,.0f}'
        )
    ours, peer = (rows[side][f'rate_{HEADLINE}'] for side in ('ours', 'lerobot-optimized'))
    line = {
        'name': 'replay',
        'value': ours,
        'unit': f'transitions/s drawn in batches of {HEADLINE}, {SIZE} px, {STACK} frames',
        'peer': SIDES['lerobot-optimized'],
        'peer_value': peer,
        'ratio': round(ours / peer, 2),
        'n': options.transitions,
        'bytes_per_transition': {side: round(row['bytes']) for side, row in rows.items()},
        'python': platform.python_version(),
        'rows': rows,
    }
    text = json.dumps(line)
    if options.json:
        options.json.write_text(text + '\n')
    print(text)


if __name__ == '__main__':
    main()
