# SPDX-License-Identifier: Apache-2.0
"""Shows that the genuine LeRobot reads our exports: every frame, its replay buffer, its ACT, its own converter.

Makes a bag of 20 episodes, exports it in every form, and lets LeRobot, in an environment of its own, compare what it
loads with what the buffer holds. Also the other way: pictures of datasets that LeRobot wrote, decoded by both.

    python3.12 -m venv lerobot_env && lerobot_env/bin/pip install 'lerobot[dataset,training]==0.6.1'
    python tools/lerobot_check.py --python lerobot_env/bin/python

The second half of this file runs there; it imports nothing of this project.
"""

import argparse
from collections.abc import Callable, Iterator
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
GENUINE = ROOT / 'src/hilserl_learner/test/data/lerobot/v30'
CAMERA = 'observation.images.gripper_cam'
SIZE = (240, 320)
EXPORTS: dict[str, list[str]] = {
    'png': [],
    'av1': ['--video', 'av1'],
    'h264': ['--video', 'h264'],
    'joints': ['--video', 'h264', '--action', 'joints'],
    'v21': ['--format', 'lerobot-v2.1'],
    'v21video': ['--format', 'lerobot-v2.1', '--video', 'h264'],
}
EXPECTED = 'expected.npz'
LEAST_PSNR_DB = 30.0
VERSION = 'import lerobot; print("LeRobot", lerobot.__version__)'


# ---- in our environment ------------------------------------------------------------------------------------


def make_exports(folder: Path, episodes: int) -> None:
    """Make a bag and a buffer of it, its exports, and what they must hold."""
    sys.path[:0] = [str(ROOT / 'benchmarks'), str(ROOT / 'src/hilserl_learner/test')]
    from bagmaker import Plan, Session
    from bench_ingest import draw_pictures, record_again

    from hilserl_learner.cli.export import main as export
    from hilserl_learner.ingest.cli import main as ingest
    from so101_contract.session import EventKind

    ends = (EventKind.SUCCESS, EventKind.TIME_LIMIT, EventKind.SUCCESS, EventKind.FAILURE)
    plans = [Plan(20 + k, ends[k % 4], frozenset({3, 4, 5} if k % 2 else ())) for k in range(episodes)]
    source = Session(folder / 'source', size=SIZE, images_per_step=2, joints_per_step=10).write(plans)
    record_again(folder / 'bag', source, draw_pictures(SIZE, episodes=2))
    shutil.rmtree(source)
    ingest([str(folder / 'bag'), '--out', str(folder / 'buffer')])
    for name, options in EXPORTS.items():
        if export([str(folder / 'buffer'), '--out', str(folder / name), *options]):
            raise SystemExit(f'the export {name} failed')
    np.savez(folder / EXPECTED, **dict(buffer_arrays(folder / 'buffer')), **dict(genuine_pictures()))


def buffer_arrays(buffer: Path) -> Iterator[tuple[str, Any]]:
    """Yield what the rows of an export must hold, by name."""
    from hilserl_learner.data.store import read_buffer
    from hilserl_learner.lerobot.units import from_rad
    from so101_contract.transition import Transition

    found = [e.output for e in read_buffer(buffer) if isinstance(e.output, Transition)]
    yield 'pictures', np.stack([t.frames[-1].images['gripper_cam'] for t in found])
    yield 'state', from_rad(np.array([t.frames[-1].state[:6] for t in found], dtype=np.float64))
    yield 'action', np.array([[*t.action.translation / 0.02, t.action.opening] for t in found])
    yield 'reward', np.array([t.reward for t in found])
    yield 'done', np.array([t.terminated for t in found])


def genuine_pictures() -> Iterator[tuple[str, Any]]:
    """Yield every picture of LeRobot's own videos as we decode it."""
    from hilserl_learner.lerobot.metadata import read_info
    from hilserl_learner.lerobot.reader import DatasetReader

    for folder in (GENUINE / 'video', GENUINE / 'multifile', GENUINE / 'hil'):
        info = read_info(folder)
        reader = DatasetReader(info, ())
        camera = 'observation.images.wrist'
        pictures = [p for e in info.episodes for _, p in reader.pictures(e, camera, range(e.length))]
        reader.close()
        yield f'genuine_{folder.name}', np.stack(pictures)


# ---- in LeRobot's environment ------------------------------------------------------------------------------


def load(folder: Path) -> Any:
    """Return a dataset as LeRobot loads it."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset('local/check', root=folder)


def compare(folder: Path, name: str, expected: Any) -> str:
    """Compare every frame that LeRobot loads with the buffer's."""
    dataset, worst, total = load(folder / name), float('inf'), 0.0
    assert len(dataset) == len(expected['reward']), f'{len(dataset)} frames'
    for row in range(len(dataset)):
        item = dataset[row]
        assert item['task'] == 'Lift the cube', item['task']
        assert np.allclose(item['observation.state'], expected['state'][row], rtol=1e-6, atol=1e-5)
        if name != 'joints':
            assert np.allclose(item['action'], expected['action'][row], atol=1e-6)
        assert float(item['next.reward']) == expected['reward'][row]
        assert bool(item['next.done']) == expected['done'][row]
        picture = np.rint(255 * item[CAMERA].numpy()).astype(np.uint8)
        error = np.mean((picture.astype(float) - expected['pictures'][row]) ** 2)
        psnr = float('inf') if error == 0 else 10 * np.log10(255**2 / error)
        worst, total = min(worst, psnr), total + psnr
    lossless = name in ('png', 'v21')
    assert worst == float('inf') if lossless else worst > LEAST_PSNR_DB, f'PSNR of {worst:.1f} dB'
    told = 'to the bit' if lossless else f'PSNR {total / len(dataset):.1f} dB, at least {worst:.1f} dB'
    return f'{len(dataset)} frames of {dataset.num_episodes} episodes equal, pictures {told}, tasks are text'


def fill_buffer(folder: Path, expected: Any) -> str:
    """Load an export into LeRobot's replay buffer."""
    from lerobot.rl.buffer import ReplayBuffer

    keys = ['observation.state', CAMERA]
    buffer = ReplayBuffer.from_lerobot_dataset(
        load(folder / 'png'), device='cpu', state_keys=keys, use_drq=False
    )
    assert len(buffer) == len(expected['reward'])
    assert int(buffer.dones.sum()) == int(expected['done'].sum())
    batch = buffer.sample(16)
    return f'{len(buffer)} transitions, {int(buffer.dones.sum())} terminal, a batch of {len(batch["reward"])} drawn'


def train_act(folder: Path, steps: int) -> str:
    """Train LeRobot's ACT a little on the export with joint targets."""
    words = [sys.executable, '-m', 'lerobot.scripts.lerobot_train', '--dataset.repo_id=local/check']
    words += [f'--dataset.root={folder / "joints"}', '--policy.type=act', '--policy.device=cpu']
    words += [
        '--policy.push_to_hub=false',
        '--policy.pretrained_backbone_weights=null',
        '--wandb.enable=false',
    ]
    words += [
        f'--steps={steps}',
        '--batch_size=4',
        '--num_workers=0',
        '--log_freq=5',
        '--policy.chunk_size=10',
    ]
    words += ['--policy.n_action_steps=10', '--policy.dim_model=128', '--policy.n_heads=4']
    words += [f'--output_dir={folder / "act"}', '--save_checkpoint=true']
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    losses = [word for word in (done.stderr + done.stdout).split() if word.startswith('loss:')]
    weights = list((folder / 'act').rglob('model.safetensors'))
    assert weights, 'no weights were written'
    return f'{steps} steps, {losses[0]} to {losses[-1]}' if losses else f'{steps} steps'


def convert_older(folder: Path, expected: Any) -> str:
    """Convert our v2.1 with LeRobot's own converter, and compare again."""
    told = []
    for name in ('v21', 'v21video'):
        words = [sys.executable, '-m', 'lerobot.scripts.convert_dataset_v21_to_v30', '--repo-id=local/check']
        words += [f'--root={folder / name}', '--push-to-hub=false']
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        told.append(compare(folder, name, expected))
    return '; '.join(told)


def decode_genuine(expected: Any) -> str:
    """Compare LeRobot's pictures of its own videos with ours."""
    worst = 0
    for name in [key for key in expected if key.startswith('genuine_')]:
        dataset = load(GENUINE / name.partition('_')[2])
        for row, ours in enumerate(expected[name]):
            theirs = np.rint(255 * dataset[row]['observation.images.wrist'].numpy()).transpose(1, 2, 0)
            worst = max(worst, int(np.abs(theirs - ours).max()))
    assert worst <= 3, f'they differ by {worst} of 255'
    return f'they differ by {worst} of 255 at most'


def check_there(folder: Path, steps: int) -> int:
    """Run every check, and say what came of each."""
    expected = dict(np.load(folder / EXPECTED))
    checks: dict[str, Callable[[], str]] = {
        'v3.0, PNG': lambda: compare(folder, 'png', expected),
        'v3.0, AV1': lambda: compare(folder, 'av1', expected),
        'v3.0, H.264': lambda: compare(folder, 'h264', expected),
        'v3.0, joint targets': lambda: compare(folder, 'joints', expected),
        'ReplayBuffer.from_lerobot_dataset': lambda: fill_buffer(folder, expected),
        'v2.1 by the converter of LeRobot': lambda: convert_older(folder, expected),
        'videos of LeRobot, decoded by both': lambda: decode_genuine(expected),
        'ACT': lambda: train_act(folder, steps),
    }
    failed = 0
    for name, check in checks.items():
        try:
            print(f'{name}: {check()}', flush=True)
        except AssertionError as error:
            failed += 1
            print(f'{name}: FAILED: {error}', flush=True)
    return int(failed > 0)


def main() -> int:
    """Command line; the exit code is 1 where a check failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--python', required=True, help='the interpreter of the environment with LeRobot')
    parser.add_argument('--episodes', type=int, default=20, help='of the bag (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=20, help='of ACT (default: %(default)s)')
    parser.add_argument('--there', type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.there:
        return check_there(options.there, options.steps)
    with tempfile.TemporaryDirectory() as name:
        make_exports(Path(name), options.episodes)
        words = [options.python, __file__, '--python', options.python, '--there', name]
        clean = {key: value for key, value in os.environ.items() if not key.startswith('PYTHON')}
        offline = {'HF_HUB_OFFLINE': '1', 'HF_HOME': str(Path(name) / 'home')}
        subprocess.run([options.python, '-c', VERSION], env=clean | offline, check=True)
        return subprocess.call([*words, '--steps', str(options.steps)], env=clean | offline)


if __name__ == '__main__':
    sys.exit(main())
