# SPDX-License-Identifier: Apache-2.0
"""Shows that the genuine LeRobot drives and records our simulated arm through our plug-ins, and stops where it stops.

Only LeRobot's own programs run: lerobot-record, -replay, -teleoperate, -train, -rollout and -eval, in an environment of
their own. The arm, its driver and its graph are started as a user would, and what LeRobot has recorded comes back by
`./so101 ingest`.

    python3.12 -m venv lerobot_env
    lerobot_env/bin/pip install 'lerobot[dataset,training,feetech]==0.6.1'
    lerobot_env/bin/pip install --no-deps plugins/lerobot_robot_so101_ros
    lerobot_env/bin/pip install -e plugins/lerobot_env_so101_sim -e plugins/lerobot_policy_so101
    python tools/lerobot_plugins.py --python lerobot_env/bin/python

The ROS domain is the tests' own, so that no arm of yours is in it.
"""

import argparse
from collections.abc import Callable, Sequence
import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import Any, Self

import numpy as np

from so101_driver.calibration.lerobot_units import DEGREES, JointScale

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {
    'record': 'lerobot.scripts.lerobot_record',
    'replay': 'lerobot.scripts.lerobot_replay',
    'teleoperate': 'lerobot.scripts.lerobot_teleoperate',
    'train': 'lerobot.scripts.lerobot_train',
    'rollout': 'lerobot.scripts.lerobot_rollout',
    'eval': 'lerobot.scripts.lerobot_eval',
}
ROBOT = ('--robot.type=so101_ros', '--robot.id=twin')
QUIET = '--play_sounds=false'
TASK = 'Lift the cube'
EPISODES, EPISODE_S, RESET_S, FPS = 3, 8, 3, 10
SHIPPED = ROOT / 'src/drqv2_policy_node/drqv2_policy_node/policies/compact'
START_RAD = np.array([0.0, -0.37, 0.19, 1.49, 0.0, 0.79])
"""A pose over the table, about where the episodes of the shipped policy begin."""

LIFTED_M, LEAST_SUCCESS = 0.08, 80.0
HANG_S = 600.0
CLOSE_DEG = 4.0
"""An arm that has followed is so near to its last target; the way of the gripper depends on what it holds."""

LOOK = """
import json, sys
from lerobot.datasets.lerobot_dataset import LeRobotDataset
dataset = LeRobotDataset('local/twin', root=sys.argv[1])
table = dataset.hf_dataset
actions = [table[k]['action'].tolist() for k in range(len(table))]
picture = dataset[0]['observation.images.gripper_cam']
print('FOUND', json.dumps({
    'episodes': dataset.num_episodes, 'frames': len(dataset), 'task': dataset[0]['task'],
    'shape': list(picture.shape), 'actions': actions,
    'index': [int(table[k]['episode_index']) for k in range(len(table))],
}))
"""


class CheckError(Exception):
    """A check has failed; the message says what was expected and what came."""


class Stack:
    """`./so101 up` with some words, until it is left; its output goes to a file."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._words, self._log = words, folder / 'stack.log'

    def __enter__(self) -> Self:
        from so101_interfaces_py.graph import domain_of
        from so101_session.lerobot.wire import default_path

        path = default_path(domain_of(), '')
        path.unlink(missing_ok=True)
        with self._log.open('wb') as log:
            command = [str(ROOT / 'so101'), 'up', 'console:=false', *self._words]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._log.parent)
        until(lambda: path.is_socket() or self._process.poll() is not None, 'lerobot_node')
        if self._process.poll() is not None:
            raise CheckError(f'the stack did not start: {self._log.read_text()[-1500:]}')
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(HANG_S)


class LeRobot:
    """LeRobot's programs, in an environment that knows nothing of ours.

    Args:
        python: interpreter of that environment.
        folder: where datasets, calibrations and outputs go.
    """

    def __init__(self, python: str, folder: Path) -> None:
        self.python, self.folder = python, folder
        ours = ('PYTHON', 'LD_LIBRARY_PATH', 'AMENT', 'CMAKE', 'COLCON', 'VIRTUAL_ENV')
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        self._environment |= {'HF_HUB_OFFLINE': '1', 'HF_HOME': str(folder / 'home'), 'PYTHONUNBUFFERED': '1'}

    def start(self, program: str, *words: str) -> subprocess.Popen[str]:
        """Start a program; its output is in `<program>.log`."""
        command = [self.python, '-m', PROGRAMS[program], *words]
        with self.log(program).open('w') as log:
            return subprocess.Popen(
                command,
                env=self._environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
            )

    def log(self, program: str) -> Path:
        """Where the output of a program is."""
        return self.folder / f'{program}.log'

    def run(self, program: str, *words: str) -> str:
        """Run a program to its end and return what it has said."""
        code = self.start(program, *words).wait(HANG_S)
        said = self.log(program).read_text()
        if code:
            raise CheckError(f'lerobot-{program} ended with {code}: {said[-1500:]}')
        return said

    def call(self, *words: str) -> str:
        """Run the interpreter and return what it has written."""
        command = [self.python, *words]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CheckError(f'{" ".join(words)[:80]} ended with {done.returncode}: {done.stderr[-1500:]}')
        return done.stdout

    def look(self, dataset: Path) -> dict[str, Any]:
        """Return what LeRobot itself finds in a dataset."""
        lines = [
            line for line in self.call('-c', LOOK, str(dataset)).splitlines() if line.startswith('FOUND')
        ]
        found: dict[str, Any] = json.loads(lines[0].removeprefix('FOUND'))
        return found


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something, for long."""
    deadline = time.monotonic() + HANG_S
    while not condition():
        if time.monotonic() > deadline:
            raise CheckError(f'expected {what} within {HANG_S:.0f} s')
        time.sleep(0.05)


def dataset_words(dataset: Path, episodes: int, episode_s: float, reset_s: float) -> tuple[str, ...]:
    """Return the words that say what lerobot-record records, and where."""
    words = {
        **{
            'repo_id': 'local/twin',
            'root': dataset,
            'single_task': TASK,
            'num_episodes': episodes,
            'fps': FPS,
        },
        **{'episode_time_s': episode_s, 'reset_time_s': reset_s, 'push_to_hub': 'false'},
    }
    return (*(f'--dataset.{key}={value}' for key, value in words.items()), QUIET)


def so101(*words: str) -> str:
    """Run a command of ours and return what it says."""
    done = subprocess.run([str(ROOT / 'so101'), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckError(f'./so101 {words[0]} ended with {done.returncode}: {done.stderr[-1500:]}')
    return done.stdout + done.stderr


def last_line(text: str) -> str:
    """Return the last line that says something."""
    return next(line for line in reversed(text.splitlines()) if line.strip())


def require_near(joints_rad: Any, wanted: Sequence[float]) -> float:
    """Return how far the arm's joints are from where LeRobot has sent them [deg].

    Raises:
        CheckError: too far.
    """
    seen = JointScale(DEGREES).from_rad(np.asarray(joints_rad)[None])[0]
    far = float(np.abs(seen - np.asarray(wanted))[:5].max())
    if far > CLOSE_DEG:
        raise CheckError(f'expected the arm at {np.round(wanted, 1)}, it is at {np.round(seen, 1)}')
    return far


# ---- the checks ----------------------------------------------------------------------------------------------


def record(lerobot: LeRobot) -> str:
    """Record what the scripted human of the twin does, and take it back in."""
    dataset = lerobot.folder / 'recorded'
    with Stack(lerobot.folder, '--stack', 'teleop', 'operator:=demonstrate', 'lerobot:=true'):
        words = dataset_words(dataset, EPISODES, EPISODE_S, RESET_S)
        lerobot.run('record', *ROBOT, '--teleop.type=so101_ros', *words)
    found = lerobot.look(dataset)
    wanted = {'episodes': EPISODES, 'frames': EPISODES * EPISODE_S * FPS, 'task': TASK}
    if abs(found['frames'] - wanted['frames']) > wanted['frames'] / 4 or found['episodes'] != EPISODES:
        raise CheckError(f'expected about {wanted}, LeRobot finds {found}')
    return f'{found["episodes"]} episodes, {found["frames"]} frames, pictures {found["shape"]}'


def ingest(lerobot: LeRobot) -> str:
    """Make a buffer of what LeRobot has recorded."""
    words = ('--out', str(lerobot.folder / 'buffer'), '--units', 'degrees', '--reward', 'success')
    said = so101('ingest', str(lerobot.folder / 'recorded'), *words)
    found = re.search(r'(\d+) transitions?', said)
    if not found or int(found[1]) < EPISODES * EPISODE_S * FPS / 2:
        raise CheckError(f'expected the transitions of {EPISODES} episodes: {said}')
    return found[0]


def replay(lerobot: LeRobot) -> str:
    """Replay an episode, and see where the arm ends."""
    from so101_testing.probe_node import Probe

    dataset = lerobot.folder / 'recorded'
    found = lerobot.look(dataset)
    last = max(k for k, episode in enumerate(found['index']) if episode == 0)
    with Stack(lerobot.folder, '--stack', 'lerobot'), Probe() as probe:
        lerobot.run(
            'replay',
            *ROBOT,
            '--dataset.repo_id=local/twin',
            f'--dataset.root={dataset}',
            '--dataset.episode=0',
            QUIET,
        )
        far = require_near(probe.position, found['actions'][last])
    return f'{last + 1} actions, the arm ends {far:.1f} degrees from the last one'


def stop(lerobot: LeRobot) -> str:
    """Stop the arm in the third episode of a recording."""
    from so101_testing.probe_node import Probe

    dataset = lerobot.folder / 'stopped'
    with (
        Stack(lerobot.folder, '--stack', 'teleop', 'operator:=demonstrate', 'lerobot:=true'),
        Probe() as probe,
    ):
        words = dataset_words(dataset, 50, 3, 0.5)
        process = lerobot.start('record', *ROBOT, '--teleop.type=so101_ros', *words)
        log = lerobot.log('record')
        until(
            lambda: 'Recording episode 2' in log.read_text() or process.poll() is not None, 'a third episode'
        )
        probe.set_bool('arm/e_stop', True)
        code = process.wait(HANG_S)
    sentence = last_line(log.read_text())
    if not code or 'the arm has stopped' not in sentence:
        raise CheckError(f'expected lerobot-record to stop, it ended with {code}: {sentence}')
    found = lerobot.look(dataset)
    if found['episodes'] != 2:
        raise CheckError(f'expected the 2 episodes that were saved, LeRobot finds {found["episodes"]}')
    return f'it ends with {code}, and the 2 episodes before load: {sentence}'


def teleoperate(lerobot: LeRobot) -> str:
    """Drive the arm with a leader arm of LeRobot's own kind, on a virtual bus."""
    from so101_driver.calibration.files import lerobot_text
    from so101_driver.emulator.arm import calibrated_arm, virtual_calibration
    from so101_testing.probe_node import Probe

    calibration = virtual_calibration()
    place = lerobot.folder / 'leader'
    place.mkdir()
    (place / 'leader.json').write_text(lerobot_text(calibration))
    begin, end = np.array([0.0, -1.2, 1.2, 1.0, 0.0, 0.4]), np.array([0.4, -0.6, 0.9, 1.1, 0.3, 1.2])
    with (
        calibrated_arm(calibration, begin) as leader,
        Stack(lerobot.folder, '--stack', 'lerobot'),
        Probe() as probe,
    ):
        words = [f'--teleop.port={leader.port}', '--teleop.id=leader', f'--teleop.calibration_dir={place}']
        words += ['--fps=30', '--teleop_time_s=12']
        process = lerobot.start('teleoperate', *ROBOT, '--teleop.type=so101_leader', *words)
        until(
            lambda: (
                'Teleop loop time' in lerobot.log('teleoperate').read_text() or process.poll() is not None
            ),
            'a loop',
        )
        for share in np.linspace(0.0, 1.0, 50):
            ticks = calibration.rad_to_encoder_ticks(begin + share * (end - begin))
            for servo, tick in enumerate(ticks.tolist(), start=1):
                leader.set_position(servo, tick)
            time.sleep(0.05)
        code = process.wait(HANG_S)
        if code:
            raise CheckError(
                f'lerobot-teleoperate ended with {code}: {last_line(lerobot.log("teleoperate").read_text())}'
            )
        far = require_near(probe.position, JointScale(DEGREES).from_rad(end[None])[0].tolist())
    rates = [int(word) for word in re.findall(r'\((\d+) Hz\)', lerobot.log('teleoperate').read_text())]
    return f'the arm follows to within {far:.1f} degrees, {sorted(rates)[len(rates) // 2]} loops a second'


def train(lerobot: LeRobot) -> str:
    """Train LeRobot's ACT a little on what LeRobot recorded."""
    dataset, out = lerobot.folder / 'recorded', lerobot.folder / 'act'
    words = [
        '--dataset.repo_id=local/twin',
        f'--dataset.root={dataset}',
        '--policy.type=act',
        '--policy.device=cpu',
    ]
    words += [
        '--policy.push_to_hub=false',
        '--policy.pretrained_backbone_weights=null',
        '--wandb.enable=false',
    ]
    words += [
        '--steps=20',
        '--batch_size=4',
        '--num_workers=0',
        '--policy.chunk_size=10',
        '--policy.n_action_steps=10',
    ]
    words += [
        '--policy.dim_model=128',
        '--policy.n_heads=4',
        f'--output_dir={out}',
        '--dataset.video_backend=pyav',
    ]
    lerobot.run('train', *words)
    return f'ACT, 20 steps, {trained(lerobot).name}'


def trained(lerobot: LeRobot) -> Path:
    """Return where `train` has left its policy."""
    (policy,) = (
        p.parent for p in (lerobot.folder / 'act').rglob('model.safetensors') if 'last' not in p.parts
    )
    return policy


def rollout(lerobot: LeRobot) -> str:
    """Let LeRobot's policy drive the arm."""
    from so101_testing.probe_node import Probe

    with Stack(lerobot.folder, '--stack', 'lerobot'), Probe() as probe:
        words = [
            f'--policy.path={trained(lerobot)}',
            '--device=cpu',
            f'--task={TASK}',
            '--duration=5',
            f'--fps={FPS}',
        ]
        lerobot.run(
            'rollout', '--strategy.type=base', *ROBOT, *words, QUIET, '--return_to_initial_position=false'
        )
        first, last = probe.node.joints[0].position, probe.position
    way = float(abs(last - first).max())
    if way < 0.05:
        raise CheckError('expected the policy to move the arm, it did not')
    return f'the arm has moved by up to {way:.1f} rad'


def ours(lerobot: LeRobot) -> Path:
    """Return the policy that this project ships, as LeRobot's."""
    out = lerobot.folder / 'ours'
    if not out.exists():
        lerobot.call('-m', 'lerobot_policy_so101', str(SHIPPED), '--out', str(out))
    return out


def rollout_ours(lerobot: LeRobot) -> str:
    """Let the shipped policy drive the arm in lerobot-rollout, and see whether it lifts the cube."""
    from so101_testing.probe_node import Probe

    with Stack(lerobot.folder, '--stack', 'lerobot'), Probe() as probe:
        words = [
            f'--policy.path={ours(lerobot)}',
            '--device=cpu',
            f'--task={TASK}',
            '--duration=20',
            f'--fps={FPS}',
        ]
        probe.wait_until(lambda: probe.node.joints, 'joints')
        probe.hold(START_RAD, 4.0)
        time.sleep(1.0)  # LeRobot does not drive while somebody else has just commanded
        lerobot.run(
            'rollout', '--strategy.type=base', *ROBOT, *words, QUIET, '--return_to_initial_position=false'
        )
        highest = max(report.state.truth.cube_position[2] for report in probe.node.reports)
    if highest < LIFTED_M:
        raise CheckError(f'expected the cube to be lifted, it came to {highest:.3f} m')
    return f'the cube was lifted to {100 * highest:.0f} cm'


def evaluate(lerobot: LeRobot) -> str:
    """Count the successes of a policy of LeRobot's and of the shipped one in the simulation."""
    told = []
    for name, policy, preset in (
        ('ACT, 20 steps', trained(lerobot), 'easy'),
        ('the shipped policy', ours(lerobot), 'wide'),
    ):
        out = lerobot.folder / f'eval_{preset}'
        words = [
            f'--policy.path={policy}',
            '--policy.device=cpu',
            '--env.type=so101_sim',
            f'--env.preset={preset}',
        ]
        episodes = 50 if preset == 'wide' else 4
        words += [f'--eval.n_episodes={episodes}', '--eval.batch_size=1', '--eval.use_async_envs=false']
        lerobot.run('eval', *words, f'--output_dir={out}')
        found = json.loads((out / 'eval_info.json').read_text())['overall']
        told.append(f'{name} on {preset}: {found["pc_success"]:.0f} % of {found["n_episodes"]}')
    if found['pc_success'] < LEAST_SUCCESS:
        raise CheckError(f'expected the shipped policy to succeed as it does here: {told}')
    return '; '.join(told)


CHECKS: dict[str, Callable[[LeRobot], str]] = {
    'record': record,
    'ingest': ingest,
    'replay': replay,
    'stop': stop,
    'teleoperate': teleoperate,
    'train': train,
    'rollout': rollout,
    'evaluate': evaluate,
    'rollout-ours': rollout_ours,
}


def main() -> int:
    """Command line; the exit code is 1 where a check failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--python', required=True, help='the interpreter of the environment with LeRobot')
    parser.add_argument(
        '--only', nargs='+', choices=CHECKS, default=list(CHECKS), help='these checks (default: all)'
    )
    parser.add_argument('--keep', type=Path, help='folder for what is made; it stays')
    options = parser.parse_args()
    from so101_interfaces_py.graph import isolate

    isolate()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = (options.keep or Path(name)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        lerobot = LeRobot(str(Path(options.python).absolute()), folder)
        for check in options.only:
            try:
                print(f'{check}: {CHECKS[check](lerobot)}', flush=True)
            except CheckError as error:
                failed += 1
                print(f'{check}: FAILED: {error}', flush=True)
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
