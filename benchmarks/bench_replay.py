# SPDX-License-Identifier: Apache-2.0
"""Drawing batches from the replay buffer, next to LeRobot's ReplayBuffer with the same content.

Both hold episodes of 84 px pictures, three of them stacked, and 18 state entries, and give observation and next
observation. LeRobot's buffer stores what it is given as float32, so it is given stacks of nine channels, once with
every next observation stored and once with `optimize_memory`, from uint8 and from float32 pictures. Augmentation is
off on both sides. Both run on one thread of the same torch, each in a process of its own that keeps freed memory, as
the learner's does.

LeRobot's files are installed into .bench/replay on the first run.
"""

import argparse
import json
import os
from pathlib import Path
import resource
import sys
import time
from types import ModuleType
from typing import Any

from peers import files_only
from processes import ask_once, use_sources
from report import Parser, Report, Row

PACKAGES = ('so101_interfaces', 'so101_contract', 'hilserl_learner', 'drqv2_policy_node')
LEROBOT = '0.4.4'  # the newest one for Python 3.11
BATCHES = (256, 64)  # the headline first
EPISODE = 100
SIZE, STACK, STATE = 84, 3, 18
ROUNDS = 5

Numbers = dict[str, Any]


def measure(sample: Any, seconds: float) -> Numbers:
    """Return the transitions per second of some rounds for each size of batch."""
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
        numbers[f'rates_{rows}'] = rates
    return numbers


def resident_bytes() -> int:
    """Largest memory of this process so far [B]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_ours(transitions: int, seconds: float) -> Numbers:
    """Measure hilserl_learner."""
    import numpy as np

    from hilserl_learner.data.replay import ReplayBuffer
    from so101_contract.action import ActionSpec
    from so101_contract.messages import ExecutedAction
    from so101_contract.observation import Frame
    from so101_contract.observation_spec import ObservationSpec
    from so101_contract.session import Source
    from so101_contract.transition import Transition

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


def get_lerobot() -> Path:
    """Return the folder with LeRobot's files."""
    return files_only('replay', (f'lerobot=={LEROBOT}', 'tqdm'))


def run_lerobot(transitions: int, seconds: float, optimize: bool, floats: bool) -> Numbers:
    """Measure LeRobot's buffer."""
    site = get_lerobot()
    sys.path[:0] = [str(site)]
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
    rl.__path__ = [str(site / 'lerobot' / 'rl')]
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
    'ours': 'ours, frames once, uint8',
    'lerobot-optimized': f'LeRobot {LEROBOT}, given uint8, optimize_memory',
    'lerobot': f'LeRobot {LEROBOT}, given uint8',
    'lerobot-float': f'LeRobot {LEROBOT}, given float32, optimize_memory',
}


def measure_side(side: str, transitions: int, seconds: float) -> Numbers:
    """Measure in this process."""
    use_sources(*PACKAGES)
    from hilserl_learner.training.trainer import prepare_cpu

    prepare_cpu()
    if side == 'ours':
        return run_ours(transitions, seconds)
    return run_lerobot(transitions, seconds, side != 'lerobot', side == 'lerobot-float')


def compare(transitions: int, seconds: float) -> list[Row]:
    """Measure each side in a process of its own."""
    get_lerobot()
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    limits = ['--transitions', transitions, '--seconds', seconds]
    found = {
        side: ask_once([sys.executable, __file__, '--side', side, *limits], environment) for side in SIDES
    }
    rows = []
    for batch in BATCHES:
        made = {
            side: Row.of(
                f'{SIDES[side]}, batches of {batch}',
                'transitions/s',
                one[f'rates_{batch}'],
                note=f'{one["bytes"]:,.0f} bytes a transition, {one["resident_bytes"]:,.0f} resident, '
                f'{one["add_rate"]:,.0f} added/s',
            )
            for side, one in found.items()
        }
        ours, peer = made.pop('ours'), made['lerobot-optimized']
        rows += [ours.beside(peer.name, peer.value, more_is_better=True), *made.values()]
    return rows


def main() -> int:
    """Run the benchmark, or one side of it."""
    parser = Parser(__doc__)
    parser.number('--transitions', 3000, 'in the buffer', quick=500)
    parser.number('--seconds', 5.0, 'per measurement', quick=0.5)
    parser.add_argument('--side', choices=tuple(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure_side(options.side, options.transitions, options.seconds)))
        return 0
    return Report('replay', compare(options.transitions, options.seconds), {'lerobot': LEROBOT}).finish(
        options
    )


if __name__ == '__main__':
    sys.exit(main())
