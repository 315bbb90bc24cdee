# SPDX-License-Identifier: Apache-2.0
"""The live runs in a folder: what each was made with, how far it is, how it does, and the commands that go on with it.

A run is begun and ended by whoever starts the stack, in a terminal; what needs that is told as the command to copy.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
import csv
import fcntl
from functools import lru_cache
from itertools import islice
import math
from pathlib import Path
import shlex
import time
from typing import Any

from hilserl_learner.errors import CheckpointError
from hilserl_learner.live.identity import (
    CHECKPOINTS,
    FEED_LOCK,
    IDENTITY,
    ONLINE,
    read_identity,
    RunIdentity,
    SIMULATED,
)
from so101_console.archive.jobs import Jobs
from so101_console.coach import EpisodeNumbers
from so101_console.curves import finite, rates
from so101_contract.interval import wilson

MOST_RUNS = 50
"""The newest runs are listed."""
MOST_LINES = 200_000
"""Of the table of episodes that are read."""
MOST_BYTES = 40 * 2**20
POINTS = 400
"""Of a curve that a page is sent."""
WINDOW = 20
EPISODES = Path('log') / 'episodes.csv'
"""The table of the episodes of a live run, in its folder; see `hilserl_learner.training.log`."""


class Runs:
    """The runs of one folder."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder).expanduser()

    def rows(self) -> list[dict[str, Any]]:
        """Return a line for each run, the one that was learned in last first."""
        found = []
        for path in self._newest():
            with suppress(CheckpointError, OSError):  # a damaged one is gone on with by nobody
                identity = read_identity(path)
                if identity is not None:
                    found.append(self._row(path, identity))
        return sorted(found, key=lambda row: str(row['used']), reverse=True)

    def curve(self, name: str) -> dict[str, Any] | None:
        """Return how a run has gone, over its episodes; None where there is no such run."""
        run = self._find(name)
        if run is None:
            return None
        episodes, rows = read_episodes(run), []
        every = max(math.ceil(len(episodes) / POINTS), 1)
        for upto in range(every, len(episodes) + 1, every):
            success, low, high, unaided, by_hand, _ = rates(episodes[max(upto - WINDOW, 0) : upto])
            rows.append([upto, *map(finite, (success, low, high, unaided, by_hand))])
        return {'name': name, 'rows': rows}

    def export(self, name: str, jobs: Jobs) -> str:
        """Begin to make a dataset of a run's experience; return a sentence where that cannot be."""
        run = self._find(name)
        if run is None:
            return f'There is no run {name[:80]!r} here.'
        return jobs.dataset(name, run / ONLINE, Path('datasets') / name)

    def _row(self, run: Path, identity: RunIdentity) -> dict[str, Any]:
        episodes, steps = _table(run)
        last = episodes[-WINDOW:]
        wins = sum(one.success for one in last)
        used_s = max(file.stat().st_mtime for file in (run / IDENTITY, run / EPISODES) if file.exists())
        policy = newest_policy(run)
        return {
            'name': run.name,
            'made': made_with(identity),
            'steps': steps,
            'episodes': len(episodes),
            'success': wins / len(last) if last else None,
            'between': [round(end, 3) for end in wilson(wins, len(last))] if last else None,
            'used': time.strftime('%Y-%m-%d %H:%M', time.localtime(used_s)),
            'now': is_in_use(run),
            'commands': commands(run, identity, policy),
        }

    def _newest(self) -> list[Path]:
        try:
            found = [path.parent for path in self._folder.glob(f'*/{IDENTITY}')]
            return sorted(found, key=lambda run: (run / IDENTITY).stat().st_mtime, reverse=True)[:MOST_RUNS]
        except OSError:
            return []

    def _find(self, name: str) -> Path | None:
        """Return a run by the name that the list has; whatever else a page names, no path is made of it."""
        return next((run for run in self._newest() if run.name == name), None)


def made_with(identity: RunIdentity) -> str:
    """Return what a run was made with, for people: without hashes."""
    words = [
        identity.scene,
        identity.observation.split()[0],
        f'from {identity.policy.split()[0]}',
        identity.agent,
    ]
    return ', '.join(words) + (f', begun from {identity.origin}' if identity.origin else '')


def commands(run: Path, identity: RunIdentity, policy: Path | None) -> dict[str, str]:
    """Return what to type in a terminal to go on with a run, to put it on trial, and to export it."""
    options = options_of(identity)
    told = {'go on': shlex.join(['./so101', 'up', f'run:={run}', *options])}
    if policy is not None:
        arm = [one for one in options if not one.startswith('checkpoint:=')]
        told['trial'] = shlex.join(['./so101', 'trial', str(policy), *arm])
    told['export'] = shlex.join(['./so101', 'export', str(run / ONLINE), '--out', f'datasets/{run.name}'])
    return told


def options_of(identity: RunIdentity) -> list[str]:
    """Return the options of a stack that make a run with this identity, as far as it tells them.

    A real arm's port, camera and device are the user's to add; so is the folder of a policy that is not the shipped
    one, of which an identity knows the name alone.
    """
    options = []
    scene = identity.scene.split(', ')
    if scene[0] == SIMULATED:
        names = ('task', 'preset', 'namespace')
        options += [f'{name}:={word}' for name, word in zip(names, scene[1:], strict=False)]
    else:
        options += ['sim:=false', 'port:=/dev/so101']
        options += [f'task:={identity.task.split()[0]}'] if identity.task else []
    observation = identity.observation.split()[0]
    options += [f'observation:={observation}'] if observation != 'compact' else []
    policy = identity.policy.split()
    if policy[0] != 'default':
        options.append(f'checkpoint:={"none" if policy == ["none"] else f"FOLDER_OF_{policy[0]}"}')
    return [one for one in options if one not in USUAL]


USUAL: Sequence[str] = ('task:=lift', 'preset:=easy')
"""What a stack is started with anyway."""


def newest_policy(run: Path) -> Path | None:
    """Return the policy of the newest checkpoint of a run, or of the best one; None before the first."""
    found = sorted((run / CHECKPOINTS).glob('*/policy/manifest.json'), key=lambda path: path.stat().st_mtime)
    best = [path for path in found if path.parent.parent.name == 'best']
    return (best or found)[-1].parent if found else None


def is_in_use(run: Path) -> bool:
    """Whether somebody learns in a run: its lock is held as long as its node lives."""
    try:
        with (run / FEED_LOCK).open('rb') as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read_episodes(run: Path) -> list[EpisodeNumbers]:
    """Return the episodes of a run in numbers; empty where its table is not there, or too large to be one."""
    return _table(run)[0]


def _table(run: Path) -> tuple[list[EpisodeNumbers], int]:
    """Return the episodes of a run, and its steps until the last of them."""
    path = run / EPISODES
    try:
        about = path.stat()
        return ([], 0) if about.st_size > MOST_BYTES else _read(path, about.st_mtime_ns, about.st_size)
    except (OSError, csv.Error):
        return [], 0


@lru_cache(maxsize=MOST_RUNS)
def _read(path: Path, _changed_ns: int, _size: int) -> tuple[list[EpisodeNumbers], int]:
    """Read a table; one that has not changed is not read again."""
    with path.open(newline='', errors='replace') as file:
        lines = [_numbers(line) for line in islice(csv.DictReader(file), MOST_LINES)]
    known = [line for line in lines if line is not None]
    return [numbers for numbers, _ in known], known[-1][1] if known else 0


def _numbers(line: Mapping[str, str | None]) -> tuple[EpisodeNumbers, int] | None:
    names = ('episode_steps', 'intervened', 'takeovers', 'success', 'steps')
    try:
        steps, intervened, takeovers, success, so_far = (int(float(line[name] or '')) for name in names)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return EpisodeNumbers(steps, intervened, takeovers, bool(success)), so_far
