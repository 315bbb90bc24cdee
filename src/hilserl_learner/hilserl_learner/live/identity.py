# SPDX-License-Identifier: Apache-2.0
"""What a live run was made with, and which run goes on.

Experience of another arm, scene, observation or agent does not belong into a run, and what was learned from it is worth
nothing there. So a run says in `RUN/run.json` what it was made with; the same combination goes on with it, another one
gets a run of its own. Nothing here needs ROS or torch: whoever starts the stack asks before anything else.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
import fcntl
from pathlib import Path
import shutil
import time
from typing import Any, ClassVar

from hilserl_learner.data.store import count_transitions, HEADER, read_header, write_whole
from hilserl_learner.errors import CheckpointError
from so101_contract.action import ActionSpec
from so101_contract.errors import ContractError
from so101_contract.manifest import PolicyManifest
from so101_contract.observation_spec import ObservationSpec
from so101_contract.record import Record
from so101_contract.task.files import observed, told_task
from so101_interfaces_py.files import read_file

IDENTITY, FEED_LOCK = 'run.json', 'feed.lock'
ONLINE, LIVE, CHECKPOINTS, VERSION = 'online', 'live', 'checkpoints', 'weights_version'
"""Names in the directory of a run: identity, lock, the buffer, its part, checkpoints, the last version given away."""

AUTO, NOTHING = 'auto', ('', 'none')
DEFAULT_AGENT = 'hil'
SIMULATED = 'simulated arm'
"""What the scene of a run in the simulation begins with; that of a real arm names its calibration."""


@dataclass(frozen=True, kw_only=True)
class RunIdentity(Record):
    """What a run was made with.

    Attributes:
        scene: the simulated arm with task and preset, or the real one with the id of its calibration.
        observation: name and hash of what is observed.
        action: hash of what an action means.
        policy: what it began with: `default`, `none`, or name, version and hash of another one.
        agent: who learns.
        origin: run whose weights and experience it began with; it may be any, so it is not compared.
        task: name and hash of what is to be done; None where nobody says.
    """

    KIND: ClassVar[str] = 'hilserl_learner/run/1'
    ERROR = CheckpointError
    OPTIONAL = frozenset({'task'})

    scene: str
    observation: str
    action: str
    policy: str
    agent: str
    origin: str = ''
    task: str | None = None

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> 'RunIdentity':
        """Return that of a learner with these parameters: those of `LearnerConfig`, as far as they matter here."""
        name = told['observation']
        observation, task = observation_of(told), told_task(told.get('task', ''))
        action = ActionSpec(translation_scale_m=(told['action_scale_m'],) * 3)
        return cls(
            scene=told['scene'],
            observation=f'{name} {observation.hash[:12]}',
            action=action.hash[:12],
            policy=_policy_name(told['policy']),
            agent=told.get('agent', DEFAULT_AGENT),
            task=None if task is None else f'{task.name} {task.hash[:12]}',
        )

    def differences(self, before: 'RunIdentity') -> str:
        """Return in what it differs from that of a run, in words; empty where it is the same."""
        known = before.task if self.task is not None else None  # what is older than tasks says none
        task = self.task if known is not None else None
        there, now = replace(before, origin='', task=known), replace(self, origin='', task=task)
        return '; '.join(there.diff(now, ('there', 'now')))

    @property
    def simulated(self) -> bool:
        """Whether no real arm is moved."""
        return self.scene.startswith(SIMULATED)


def observation_of(told: Mapping[str, Any]) -> ObservationSpec:
    """Return what a learner with these parameters observes."""
    cameras = told.get('cameras', ())
    task = told_task(told.get('task', ''), cameras)
    return observed(task, told['observation'], tcp=told['tcp'], camera_preset=told['camera'], cameras=cameras)


def _policy_name(word: str) -> str:
    manifest = Path(word).expanduser() / 'manifest.json'
    if word in NOTHING or not manifest.is_file():
        return word or 'none'
    with suppress(ContractError, OSError):  # a damaged one is refused by whoever loads it
        said = PolicyManifest.from_json(read_file(manifest))
        return f'{said.name} {said.version} {said.tensors_sha256[:12]}'
    return word


def holds_run(folder: Path) -> bool:
    """Whether a live run has begun there."""
    return (folder / ONLINE / HEADER).is_file()


def read_identity(run: Path) -> RunIdentity | None:
    """Return what a run was made with; None where it does not say so, since it is older than that.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        text = read_file(run / IDENTITY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f'expected {run / IDENTITY}, got "{error.strerror}"; restore it') from error
    return RunIdentity.from_json(text)


def steps_of(run: Path) -> int:
    """Return how many steps a run has lived through."""
    return count_transitions(run / ONLINE / LIVE)


def choose_run(asked: str, origin: str, identity: RunIdentity, folder: Path, name: str) -> Path:
    """Return the run that goes on, or the folder of one that begins.

    Args:
        asked: folder of a run; `auto` for the newest one that was made with the same, or else a new one.
        origin: run whose weights and experience a new run begins with; empty for none.
        identity: what it is made with now.
        folder: where runs lie.
        name: what a new one is called; the date is added.

    Raises:
        CheckpointError: the run that is asked for was made with something else, or is in use.
    """
    if origin not in NOTHING:
        require_origin(Path(origin).expanduser(), identity)
    if asked != AUTO:
        run = Path(asked).expanduser()
        if holds_run(run) and origin not in NOTHING:
            raise CheckpointError(
                f'expected no run at {run}, where from:= shall begin one; name another folder'
            )
        if holds_run(run):
            require_same(run, identity)
    else:
        same = None if origin not in NOTHING else newest_run(folder, identity)
        run = same or _new_folder(folder, name)
    _require_free(run)
    return run


def newest_run(folder: Path, identity: RunIdentity) -> Path | None:
    """Return the run of a folder that was learned in last, of those that were made with the same."""
    found = [run for run, known in _runs(folder) if not identity.differences(known)]
    return max(found, key=_used_s, default=None)


def require_same(run: Path, identity: RunIdentity) -> None:
    """Refuse to go on with a run that was made with something else.

    Raises:
        CheckpointError: with the differences; and where a run does not say, for a real arm.
    """
    known = read_identity(run)
    if known is None and identity.simulated:
        return
    way_out = f'leave run:= out for a run of its own, or say from:={run} to begin one with what this one has learned'
    if known is None:
        raise CheckpointError(
            f'expected a run of this arm at {run}, got one that does not say what it was made with; {way_out}'
        )
    if differences := identity.differences(known):
        raise CheckpointError(
            f'expected a run that was made with the same at {run}, got another one ({differences}); {way_out}'
        )


def require_origin(origin: Path, identity: RunIdentity) -> None:
    """Refuse to begin a run with what cannot be gone on with.

    Raises:
        CheckpointError: there is no live run, or it observes, acts or learns otherwise.
    """
    if not holds_run(origin):
        raise CheckpointError(
            f'expected the folder of a live run for from:=, got {origin}, which holds none; a policy is named by '
            f'checkpoint:='
        )
    header, known = read_header(origin / ONLINE), read_identity(origin)
    theirs = {'observation': header.observation.hash, 'action': header.action.hash}
    ours = {'observation': identity.observation.split()[-1], 'action': identity.action}
    lines = [name for name, value in theirs.items() if not value.startswith(ours[name])]
    if known is not None and known.agent != identity.agent:
        lines.append('agent')
    if lines:
        raise CheckpointError(
            f'expected the same {" and ".join(lines)} in the run of from:={origin}, got another; what it has learned '
            f'means nothing here'
        )


def begin_or_go_on(run: Path, identity: RunIdentity | None, origin: str = '') -> str:
    """Begin a run, or check that it may go on; return what is done, in a sentence.

    Args:
        run: its folder.
        identity: what it is made with; None where nobody says.
        origin: run whose weights and experience it begins with.

    Raises:
        CheckpointError: it was made with something else, or the disk is full.
    """
    sentence = outlook(run, origin)
    if holds_run(run):
        if identity is not None:
            require_same(run, identity)
        return sentence
    if identity is not None:
        write_whole(run / IDENTITY, (replace(identity, origin=origin).to_json() + '\n').encode())
    if origin not in NOTHING:
        _copy(Path(origin).expanduser(), run)
    return sentence


def outlook(run: Path, origin: str = '') -> str:
    """Return whether a run goes on or begins, and with how much, as it is said to people."""
    if holds_run(run):
        return f'goes on with {run}, {steps_of(run)} steps'
    if origin in NOTHING:
        return f'begins a new run in {run}'
    steps = steps_of(Path(origin).expanduser())
    return f'begins a new run in {run} with the weights and the {steps} steps of {origin}'


def _copy(source: Path, run: Path) -> None:
    """Take over what a run has learned and lived through; it is there whole or not at all."""
    aside = run / '.origin.partial'
    try:
        shutil.rmtree(aside, ignore_errors=True)
        for name in (CHECKPOINTS, ONLINE):
            if (source / name).is_dir():
                shutil.copytree(source / name, aside / name)
        if (source / VERSION).is_file():
            shutil.copyfile(source / VERSION, run / VERSION)
        for name in (CHECKPOINTS, ONLINE):  # the buffer last: with its header a run has begun
            shutil.rmtree(run / name, ignore_errors=True)
            if (aside / name).is_dir():
                (aside / name).rename(run / name)
    except (OSError, shutil.Error) as error:
        raise CheckpointError(
            f'expected to copy {source} to {run}, got "{error}"; free space there'
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _runs(folder: Path) -> Iterator[tuple[Path, RunIdentity]]:
    for path in sorted(folder.glob(f'*/{IDENTITY}')):
        with suppress(CheckpointError):  # a damaged one is gone on with by nobody
            known = read_identity(path.parent)
            if known is not None:
                yield path.parent, known


def _used_s(run: Path) -> float:
    return max(path.stat().st_mtime for path in (run / IDENTITY, run / VERSION) if path.exists())


def _new_folder(folder: Path, name: str) -> Path:
    stem = f'{name}-{time.strftime("%Y%m%d-%H%M%S")}'
    names = [stem, *(f'{stem}-{number}' for number in range(2, 100))]
    return next(folder / one for one in names if not (folder / one).exists())


def _require_free(run: Path) -> None:
    """Refuse a run that somebody learns in: its lock is held as long as its node lives."""
    if not (run / FEED_LOCK).is_file():
        return
    with (run / FEED_LOCK).open('rb') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(
                f'expected nobody to learn in {run}, got another learner; stop it, or name another folder with run:='
            ) from None
