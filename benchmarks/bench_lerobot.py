# SPDX-License-Identifier: Apache-2.0
"""Datasets of LeRobot's, read and written, next to LeRobot's own loader and writer on the same frames.

One wrist camera of the twin at 640 x 480 and 30 frames per second. Both read the same dataset from the first frame to
the last, state, action and picture of each; LeRobot with each decoder that works there, and the faster one counts.
Ours ends with RGB arrays, LeRobot with tensors of float32. Both write the same rows; the PSNR of each one's video and
its size stand beside, since an encoder can be as fast as it is bad.

LeRobot is installed into .bench/lerobot on the first run, which takes CPython 3.12 and minutes; `--python` names an
environment that has it. Its decoder torchcodec finds the FFmpeg of PyAV's wheel there.
"""

import json
import os
from pathlib import Path
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from bench_bus import newest_python
from bench_ingest import draw_pictures
from peers import in_venv
from processes import bare_environment, use_sources
from report import Parser, Report, Row

PACKAGES = ('so101_interfaces', 'so101_contract', 'so101_description', 'so101_kinematics', 'so101_driver')
PACKAGES += ('so101_bags', 'so101_sim', 'drqv2_policy_node', 'hilserl_learner')
LEROBOT = '0.6.1'
REQUIREMENT = f'lerobot[dataset]=={LEROBOT}'
PEER = Path(__file__).with_name('peers_lerobot.py')
FPS, SIZE = 30, (480, 640)
WRIST = 'observation.images.wrist'
FORMS = ('av1', 'h264', '')
BACKENDS = ('torchcodec', 'pyav')

Numbers = dict[str, Any]


def make_rows(episodes: int, length: int) -> dict[str, Any]:
    """Return pictures, states and actions of episodes."""
    import numpy as np

    drawn = [np.frombuffer(p, np.uint8).reshape(*SIZE, 3) for p in draw_pictures(SIZE, episodes=2)]
    picks = [[drawn[(e * 17 + k // 3) % len(drawn)] for k in range(length)] for e in range(episodes)]
    walk = np.cumsum(np.random.default_rng(0).normal(0, 0.5, (episodes, length, 6)), axis=1).astype(
        np.float32
    )
    return {'pictures': np.array(picks), 'states': walk, 'actions': walk}


def write_ours(folder: Path, rows: Numbers, codec: str) -> float:
    """Write a dataset; return the time that it took [s]."""
    from hilserl_learner.lerobot.dataset import Feature
    from hilserl_learner.lerobot.writer import DatasetWriter

    names = tuple(f'joint_{k}' for k in range(6))
    features = [Feature(key, 'float32', (6,), names) for key in ('observation.state', 'action')]
    features.append(
        Feature(WRIST, 'video' if codec else 'image', (*SIZE, 3), ('height', 'width', 'channels'))
    )
    begin = time.perf_counter()
    writer = DatasetWriter(folder, features, fps=FPS, codec=codec or 'av1')
    for pictures, states, actions in zip(rows['pictures'], rows['states'], rows['actions'], strict=True):
        writer.add({'observation.state': states, 'action': actions}, {WRIST: pictures}, 'Lift it')
    writer.finish()
    return time.perf_counter() - begin


def read_ours(folder: Path) -> float:
    """Read a dataset from the first frame to the last; return the time that it took [s]."""
    from hilserl_learner.lerobot.metadata import read_info
    from hilserl_learner.lerobot.reader import DatasetReader

    begin = time.perf_counter()
    info = read_info(folder)
    reader = DatasetReader(info, ('observation.state', 'action'))
    for episode in info.episodes:
        reader.rows(episode)
        for _ in reader.pictures(episode, WRIST, range(episode.length)):
            pass
    reader.close()
    return time.perf_counter() - begin


def quality(folder: Path, rows: Numbers) -> tuple[float, float]:
    """Return the PSNR of a dataset's pictures [dB] and its size [MB]."""
    import numpy as np

    from hilserl_learner.lerobot.metadata import read_info
    from hilserl_learner.lerobot.reader import DatasetReader

    info, errors = read_info(folder), []
    reader = DatasetReader(info, ())
    for episode in info.episodes:
        for row, picture in reader.pictures(episode, WRIST, range(episode.length)):
            true = rows['pictures'][episode.index][row]
            errors.append(np.mean((picture.astype(np.float32) - true) ** 2))
    reader.close()
    size = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6
    error = float(np.mean(errors))
    return (float('inf') if error == 0 else 10 * float(np.log10(255**2 / error))), size


class Peer:
    """LeRobot in its own environment."""

    def __init__(self, python: str, home: Path) -> None:
        self._python = python
        self._environment = bare_environment() | {'HF_HUB_OFFLINE': '1', 'HF_HOME': str(home)}
        del self._environment['OMP_NUM_THREADS']
        self._environment['LD_LIBRARY_PATH'] = self._ffmpeg(home)

    def _ffmpeg(self, home: Path) -> str:
        """Give the FFmpeg in PyAV's wheel the names that torchcodec looks for."""
        words = [self._python, '-c', 'import av; print(av.__path__[0])']
        found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        libraries, links = Path(found).with_name('av.libs'), home / 'ffmpeg'
        links.mkdir(parents=True)
        for path in [*libraries.glob('libav*'), *libraries.glob('libsw*')]:
            name, _, version = path.name.partition('.so.')
            (links / f'{name.partition("-")[0]}.so.{version.partition(".")[0]}').symlink_to(path)
        return f'{links}:{libraries}'

    def ask(self, *words: str) -> Numbers | None:
        """Run one command there; None where it does not work."""
        done = subprocess.run(
            [self._python, str(PEER), *words],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.stderr.write(f'LeRobot: {" ".join(words[::2])} does not work here\n')
            return None
        answer: Numbers = json.loads(done.stdout.splitlines()[-1])
        return answer


def read_row(peer: Peer, folder: Path, form: str, rounds: int, frames: int) -> tuple[Row, Numbers]:
    """Measure reading, in turns."""
    ours: list[float] = []
    theirs: dict[str, list[float]] = {}
    for _ in range(rounds):
        ours.append(frames / read_ours(folder))
        for backend in BACKENDS if form else ('',):
            answer = peer.ask('read', str(folder), backend)
            if answer is not None:
                theirs.setdefault(backend, []).append(answer['frames'] / answer['seconds'])
    medians = {backend: statistics.median(rates) for backend, rates in theirs.items()}
    best = max(medians, key=lambda backend: medians[backend])
    note = ', '.join(f'{backend}: {rate:.0f}' for backend, rate in medians.items() if backend)
    row = Row.of(f'reading {_name(form)}', 'frames/s', ours, note=note)
    named = f'LeRobot with {best}' if best else 'LeRobot'
    return row.beside(named, medians[best], more_is_better=True), {'ours': ours, 'theirs': theirs}


def write_row(peer: Peer, folder: Path, form: str, rounds: int, rows: Numbers) -> tuple[Row, Numbers]:
    """Measure writing, in turns."""
    frames = rows['pictures'].shape[0] * rows['pictures'].shape[1]
    ours: list[float] = []
    theirs: list[float] = []
    for k in range(rounds):
        for name in ('ours', 'theirs'):
            shutil.rmtree(folder / name, ignore_errors=True)
        ours.append(frames / write_ours(folder / 'ours', rows, form))
        words = (str(folder / 'theirs'), str(folder / 'rows.npz'), 'video' if form else 'image')
        answer = peer.ask('write', *words)
        assert answer is not None, f'LeRobot writes nothing in round {k}'
        theirs.append(answer['frames'] / answer['seconds'])
    (psnr, size), (their_psnr, their_size) = (quality(folder / n, rows) for n in ('ours', 'theirs'))
    pictures = f'{psnr:.1f} dB and {size:.1f} MB, LeRobot {their_psnr:.1f} dB and {their_size:.1f} MB'
    note = pictures if form else f'{size:.1f} MB, LeRobot {their_size:.1f} MB'
    row = Row.of(f'writing {_name(form)}', 'frames/s', ours, note=note)
    peer_name = 'LeRobot, which writes AV1' if form == 'h264' else 'LeRobot'
    return row.beside(peer_name, statistics.median(theirs), more_is_better=True), {
        'ours': ours,
        'theirs': theirs,
    }


def _name(form: str) -> str:
    return {'av1': 'AV1 video', 'h264': 'H.264 video', '': 'PNG'}[form]


def main() -> int:
    """Run the benchmark."""
    parser = Parser(__doc__)
    parser.number('--episodes', 8, '', quick=2)
    parser.number('--length', 60, 'frames of an episode', quick=20)
    parser.number('--rounds', 3, '', quick=1)
    parser.add_argument('--python', help='an interpreter that has LeRobot already')
    options = parser.parse_args()
    use_sources(*PACKAGES)
    os.environ['SVT_LOG'] = '1'
    python = options.python or in_venv('lerobot', (REQUIREMENT,), python=newest_python()[0])
    with tempfile.TemporaryDirectory() as name:
        import numpy as np

        folder, peer = Path(name), Peer(python, Path(name) / 'home')
        rows = make_rows(options.episodes, options.length)
        np.savez(folder / 'rows.npz', **rows)
        frames = options.episodes * options.length
        found, details = [], {}
        for form in FORMS:
            write_ours(folder / f'set_{form}', rows, form)
            row, details[f'read_{form or "png"}'] = read_row(
                peer, folder / f'set_{form}', form, options.rounds, frames
            )
            found.append(row)
        for form in FORMS:
            row, details[f'write_{form or "png"}'] = write_row(peer, folder, form, options.rounds, rows)
            found.append(row)
    return Report('lerobot', found, {'lerobot': LEROBOT}, details=details).finish(options)


if __name__ == '__main__':
    sys.exit(main())
