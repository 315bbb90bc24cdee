# SPDX-License-Identifier: Apache-2.0
"""Latency of policy_node over DDS beside the bare network, and swapping weights under load.

A feeder in this process plays arm (100 Hz), camera (640x480, 20 Hz), session and learner; the node is a process of its
own. In the node, latency is from the step's arrival to the action's departure; over DDS, from sending the step to
receiving the action. The bare network is the same policy on an observation that is there already, called once per step
(paced) and in a loop (warm). While weights are swapped, every action is computed again with the version that it names.
"""

import argparse
from collections.abc import Sequence
import contextlib
import gc
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import numpy as np
from processes import isolate
from report import Parser, Report, Row
from rich.console import Console
from rich.progress import Progress
import torch

from drqv2_policy_node.networks import Actor, Encoder, EncoderPreset, NetworkSpec
from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import save_policy
from so101_contract.action import ActionSpec
from so101_contract.manifest import golden_observation, StepUnit, Workspace
from so101_contract.observation import observation_digest
from so101_contract.observation_spec import get_observation, OBSERVATIONS, ObservationSpec
from so101_testing.policy_feeder import Feeder, Key

WARM_UP = 20
MOST_TICKS = 1.5
"""Longest time between two actions that a swap may cause [steps]."""


def make_policy(spec: ObservationSpec, encoder: str, seed: int) -> Policy:
    """Return a policy with random weights for the default stack."""
    network = NetworkSpec.from_observation(spec, encoder=EncoderPreset(encoder))
    generator = torch.Generator().manual_seed(seed)
    return Policy.create(
        Encoder(network, generator),
        Actor(network, generator),
        name=f'random-{seed}',
        version=0,
        observation=spec,
        action=ActionSpec(),
        control_rate_hz=10.0,
        ik_profile='setpoint',
        reset_pose=(0.0, -0.4, 0.6, 0.8, 0.0, 0.5),
        workspace=Workspace(low=(0.10, -0.25, 0.01), high=(0.40, 0.25, 0.30)),
        std_schedule='0.1',
        std_unit=StepUnit.ENV_STEPS,
        calibration_id=None,
        source_sha256=None,
    )


def bare(policy: Policy, n: int, period_s: float) -> list[float]:
    """Call the network n times, once per period, and return the durations [s]."""
    observation = golden_observation(policy.manifest.observation, 1)
    durations = []
    for _ in range(n + WARM_UP):
        time.sleep(period_s)
        started = time.perf_counter()
        policy.act(observation)
        durations.append(time.perf_counter() - started)
    return durations[WARM_UP:]


def run_episode(feeder: Feeder, steps: int, rate_hz: float, title: str) -> list[Key]:
    """Let an episode pass and return the steps that were answered, without the first ones."""
    done = len(feeder.answers)
    episode = feeder.begin_episode(steps)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=steps)
        thread = threading.Thread(target=feeder.finish_episode, args=(2.0 * steps / rate_hz + 30.0,))
        thread.start()
        while thread.is_alive():
            progress.update(task, completed=len(feeder.answers) - done)
            thread.join(0.2)
    return [key for key in sorted(feeder.answers) if key[0] == episode and key[1] >= WARM_UP]


def swap(feeder: Feeder, policies: Sequence[Policy], steps: int, rate_hz: float) -> dict[str, Any]:
    """Publish versions while the node acts; recompute every action with the version that it names."""
    pause_s = 0.9 * steps / rate_hz / len(policies)
    stop = threading.Event()

    def publish() -> None:
        for number, policy in enumerate(policies, 1):
            if stop.wait(pause_s):
                return
            feeder.send_policy(policy, number)

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        keys = run_episode(feeder, steps + WARM_UP, rate_hz, 'swapping')
    finally:
        stop.set()
        publisher.join()
    wrong, versions = 0, []
    for key in keys:
        observed, seen = feeder.observed[key], feeder.observation(key)
        versions.append(observed.version)
        policy = policies[observed.version - 1] if observed.version else None
        if policy is None:
            continue
        wire = ActionSpec().to_wire(policy.act(seen))
        answer = feeder.answers[key]
        vector = answer.translation
        same = [vector.x, vector.y, vector.z, answer.gripper] == [*wire.translation.tolist(), wire.opening]
        wrong += not same or observed.sha256 != observation_digest(seen)
    gaps = np.diff([feeder.answered_s[key] for key in keys]) * rate_hz
    asked = np.diff([feeder.sent_s[key] for key in keys]) * rate_hz
    return {
        'actions': len(keys),
        'unanswered': steps - len(keys),
        'versions_used': len(set(versions) - {0}),
        'actions_that_no_single_version_explains': wrong,
        'largest_gap_ticks': float(gaps.max()),
        'gaps_above_1.5_ticks': int((gaps > MOST_TICKS).sum()),
        'largest_gap_between_steps_ticks': float(asked.max()),  # how regular the feeder itself was
        'seconds': [feeder.observed[key].latency_s for key in keys],
    }


def run(arguments: argparse.Namespace) -> Report:
    """Measure everything."""
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # else a collection of the feeder's own garbage shows as a gap
    spec = get_observation(arguments.observation)
    policy = make_policy(spec, arguments.encoder, 0)
    versions = [make_policy(spec, arguments.encoder, seed) for seed in range(1, arguments.versions + 1)]
    with tempfile.TemporaryDirectory() as folder:
        save_policy(Path(folder) / 'policy', policy)
        words = ['-p', f'policy:={folder}/policy', '-p', f'observation:={arguments.observation}']
        process = subprocess.Popen(
            [sys.executable, '-m', 'drqv2_policy_node.policy_node', '--ros-args', *words]
        )
        try:
            with Feeder(spec, rate_hz=arguments.rate) as feeder:
                feeder.wait_for_node()
                feeder.wait_until(lambda: feeder.statuses[-1].policy, 'the policy')
                keys = run_episode(feeder, arguments.n + WARM_UP, arguments.rate, 'latency')
                node = [feeder.observed[key].latency_s for key in keys if key in feeder.observed]
                way = [feeder.answered_s[key] - feeder.sent_s[key] for key in keys]
                swapped = swap(feeder, versions, arguments.swap_steps, arguments.rate)
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10.0)
            process.kill()
    paced = Row.of(
        'the bare network, called as often', 'ms', bare(policy, arguments.n, 1.0 / arguments.rate), 1e3
    )
    wrong = swapped['actions_that_no_single_version_explains']
    note = (
        f'{swapped["versions_used"]} of {arguments.versions} versions acted in {swapped["actions"]} actions, {wrong} '
        f'of which no single version explains; largest gap {swapped["largest_gap_ticks"]:.2f} steps (between the '
        f'steps themselves {swapped["largest_gap_between_steps_ticks"]:.2f})'
    )
    rows = [
        Row.of('step to action in the node', 'ms', node, 1e3).beside(paced.name, paced.value),
        Row.of('step to action over DDS', 'ms', way, 1e3).beside(paced.name, paced.value),
        Row.of('in the node while weights are swapped', 'ms', swapped.pop('seconds'), 1e3, note),
        paced,
        Row.of('the bare network, in a loop', 'ms', bare(policy, 1000, 0.0), 1e3),
    ]
    return Report('policy', rows, {'torch': torch.__version__}, wrong == 0, swapped)


def main() -> int:
    """Command line."""
    parser = Parser(__doc__)
    parser.number('--n', 200, 'actions for the latency', quick=30)
    parser.number('--rate', 10.0, 'steps per second [Hz]')
    parser.number('--swap-steps', 1000, 'actions while weights are swapped', quick=50)
    parser.number('--versions', 20, 'versions that arrive meanwhile', quick=3)
    parser.add_argument('--observation', default='compact', choices=tuple(OBSERVATIONS))
    parser.add_argument('--encoder', default='cpu', choices=[preset.value for preset in EncoderPreset])
    options = parser.parse_args()
    isolate()
    return run(options).finish(options)


if __name__ == '__main__':
    sys.exit(main())
