# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: everything that training goes on from, written aside and put in place, so that a kill hurts nobody.

    CHECKPOINTS/000012/state.safetensors   networks, optimisers, random states, counters
    CHECKPOINTS/000012/policy/             the policy, as the policy node reads it
    CHECKPOINTS/000012/manifest.json       counters, configuration, positions in the buffers, hashes of the files
    CHECKPOINTS/best/                      the same, of the policy that did best

The experience itself is not copied: it lies in buffers that are never rewritten, and the manifest says how much
of them had been learned from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
import hashlib
import json
import logging
import os
from pathlib import Path
import shutil
from typing import Any, ClassVar, Self

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from drqv2_policy_node.networks import Critic
from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import save_policy
from hilserl_learner.errors import CheckpointError
from so101_contract.record import Json, Record
from so101_interfaces_py.files import MOST_BYTES, read_file

MANIFEST, STATE, POLICY, BEST = 'manifest.json', 'state.safetensors', 'policy', 'best'

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FileSum(Record):
    """A file of a checkpoint and the hash of its content."""

    KIND: ClassVar[str] = 'hilserl_learner/file_sum/1'
    ERROR = CheckpointError

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class BufferPosition(Record):
    """How far a part of a buffer on disk had been read.

    Attributes:
        part: its name.
        segment: number of the file.
        offset: offset in it [B].
    """

    KIND: ClassVar[str] = 'hilserl_learner/buffer_position/1'
    ERROR = CheckpointError

    part: str
    segment: int
    offset: int


@dataclass(frozen=True, kw_only=True)
class Metadata(Record):
    """What a checkpoint says beside its tensors.

    Attributes:
        updates: gradient updates so far.
        env_steps: actions that were sent to the arm.
        episodes: episodes that were closed.
        version: of the weights published last.
        std: exploration noise at that moment.
        observation_hash: what the policy observes.
        config: every parameter, as JSON; it is never applied by loading, only compared.
        positions: how far the buffers had been read.
        notes: anything else that the owner wants back, as JSON.
    """

    KIND: ClassVar[str] = 'hilserl_learner/metadata/1'
    ERROR = CheckpointError

    updates: int
    env_steps: int
    episodes: int = 0
    version: int = 0
    std: float = 0.0
    observation_hash: str = ''
    config: str = '{}'
    positions: tuple[BufferPosition, ...] = ()
    notes: str = '{}'

    def __post_init__(self) -> None:
        """Check that counts are counts."""
        super().__post_init__()
        wrong = {name: getattr(self, name) for name in ('updates', 'env_steps', 'episodes', 'version', 'std')}
        wrong = {name: value for name, value in wrong.items() if value < 0}
        if wrong:
            raise CheckpointError(f'expected counts of at least 0, got {wrong}; restore the checkpoint')


@dataclass(frozen=True, kw_only=True)
class CheckpointManifest(Record):
    """The manifest of a checkpoint.

    Attributes:
        metadata: what the checkpoint says beside its tensors.
        files: what belongs to it.
        sha256: hash of both; empty in those that were written before there was one.
    """

    KIND: ClassVar[str] = 'hilserl_learner/checkpoint/1'
    ERROR = CheckpointError

    metadata: Metadata
    files: tuple[FileSum, ...]
    sha256: str = ''

    @property
    def content_sha256(self) -> str:
        """What the hash has to be."""
        return replace(self, sha256='').hash

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Self:
        """Make the manifest from what `to_dict` returned; what is now `metadata` was once written as `facts`."""
        if isinstance(data, Mapping) and 'facts' in data:
            data = {'metadata' if name == 'facts' else name: value for name, value in data.items()}
        if isinstance(data, Mapping):
            data = {'sha256': '', **data}
        return super().from_dict(data)


def compare_configs(saved: Mapping[str, Json], present: Mapping[str, Json]) -> list[str]:
    """Return one line per parameter in which a saved run differs from the present one; what is not said is equal."""
    return [
        f'{name}: {saved[name]!r} saved, {present[name]!r} now'
        for name in sorted(set(saved) & set(present))
        if saved[name] != present[name]
    ]


def to_json(values: Mapping[str, Any]) -> str:
    """Return plain values as JSON text."""
    return json.dumps(values, sort_keys=True, allow_nan=True)


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read and verified.

    Attributes:
        path: where it lies.
        metadata: what it says.
        tensors: what `state_dict` of the trainer had returned.
    """

    path: Path
    metadata: Metadata
    tensors: dict[str, Tensor]


class Checkpoints:
    """The checkpoints of one run, oldest first; a few of the newest are kept, and the best one."""

    def __init__(self, directory: Path, *, keep: int = 3) -> None:
        """Prepare; nothing is touched. Whoever is going to write calls `clean` first.

        Args:
            directory: of the checkpoints; made with the first one.
            keep: how many of the newest are kept.
        """
        if keep < 2:
            raise CheckpointError(f'expected to keep at least 2 checkpoints, got {keep}; one may be damaged')
        self.directory = directory
        self._keep = keep

    @property
    def names(self) -> list[str]:
        """Names of the checkpoints, oldest first; the best one is not among them."""
        if not self.directory.exists():
            return []
        return sorted(path.name for path in self.directory.iterdir() if path.name.isdigit())

    def clean(self) -> None:
        """Remove what a killed writer left half done; bring back a best one that it had moved aside.

        Only for the one who writes: what looks half done to others may be in the making.
        """
        for path in self.directory.glob('.*.partial'):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.directory.glob('.*.old'):
            target = self.directory / path.name.removeprefix('.').removesuffix('.old')
            if target.exists():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.rename(target)

    def save(
        self,
        tensors: Mapping[str, Tensor],
        metadata: Metadata,
        policy: Policy | None = None,
        critics: tuple[Critic, Critic] | None = None,
        *,
        best: bool = False,
    ) -> Path:
        """Write a checkpoint and remove the oldest ones, or put what did best in the place of what did best before.

        Args:
            tensors: what training goes on from.
            metadata: what it says beside them.
            policy: what acts; kept next to it for whoever wants to run it.
            critics: of the policy, and their targets, for a run that begins with it.
            best: it did best.

        Returns:
            its directory.

        Raises:
            CheckpointError: the disk is full or gone; the checkpoints before are as they were.
        """
        if best:
            return self._write(BEST, tensors, metadata, policy, critics)
        names = self.names
        number = int(names[-1]) + 1 if names else 0
        path = self._write(f'{number:06d}', tensors, metadata, policy, critics)
        for name in self.names[: -self._keep]:
            shutil.rmtree(self.directory / name, ignore_errors=True)
        return path

    def load(self) -> Saved | None:
        """Return the newest checkpoint that is whole; None, with a warning, where there is none at all.

        Raises:
            CheckpointError: there are some, and all are damaged; nobody should begin from nothing unasked.
        """
        names = self.names
        if not names:
            _log.warning('%s holds no checkpoint: training begins from the start', self.directory)
            return None
        complaints = []
        for name in reversed(names):
            try:
                return self.read(name)
            except CheckpointError as error:
                complaints.append(str(error))
                _log.warning('%s; the checkpoint before it is used', error)
        raise CheckpointError(
            f'expected one whole checkpoint in {self.directory}, got {len(names)} damaged ones '
            f'({complaints[0]}); restore one, or name another run directory to begin from the start'
        )

    def load_best(self) -> Saved:
        """Return what did best, for going back to it.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        if not (self.directory / BEST).is_dir():
            raise CheckpointError(
                f'expected a best checkpoint in {self.directory}, got none; it appears with the first 20 episodes'
            )
        return self.read(BEST)

    def read(self, name: str) -> Saved:
        """Return one checkpoint, every file compared with its hash.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        path = self.directory / name
        manifest = CheckpointManifest.from_json(_read(path / MANIFEST))
        if manifest.sha256 and manifest.sha256 != manifest.content_sha256:
            raise CheckpointError(
                f'expected {path / MANIFEST} with the hash {manifest.content_sha256[:12]}, got {manifest.sha256[:12]}; '
                f'the file was changed'
            )
        if not manifest.sha256:
            _log.warning('%s has no hash of its own, as older ones: what it counts is taken as it is', path)
        contents = {file.name: _verified(path / file.name, file.sha256) for file in manifest.files}
        if STATE not in contents:
            raise CheckpointError(
                f'expected {STATE} in {path}, got {sorted(contents)}; the checkpoint is damaged'
            )
        try:
            tensors = load_tensors(contents[STATE])
        except SafetensorError as error:
            raise CheckpointError(
                f'expected tensors in {path / STATE}, got {error}; restore the file'
            ) from error
        return Saved(path, manifest.metadata, tensors)

    def _write(
        self,
        name: str,
        tensors: Mapping[str, Tensor],
        metadata: Metadata,
        policy: Policy | None,
        critics: tuple[Critic, Critic] | None,
    ) -> Path:
        target, aside = self.directory / name, self.directory / f'.{name}.partial'
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            _put(aside / STATE, save_tensors({key: value.contiguous() for key, value in tensors.items()}))
            if policy is not None:
                save_policy(aside / POLICY, policy, critics=critics)
            files = sorted(path for path in aside.rglob('*') if path.is_file())
            sums = tuple(
                FileSum(
                    name=str(path.relative_to(aside)), sha256=hashlib.sha256(path.read_bytes()).hexdigest()
                )
                for path in files
            )
            manifest = CheckpointManifest(metadata=metadata, files=sums)
            manifest = replace(manifest, sha256=manifest.content_sha256)
            _put(aside / MANIFEST, manifest.to_json().encode())
            if target.exists():  # only the best one is ever replaced
                old = self.directory / f'.{name}.old'
                shutil.rmtree(old, ignore_errors=True)
                target.rename(old)
                aside.rename(target)
                shutil.rmtree(old, ignore_errors=True)
            else:
                aside.rename(target)
            _sync(self.directory)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise CheckpointError(
                f'expected to write a checkpoint to {target}, got "{error.strerror}"; free space there, the '
                f'checkpoints before are whole'
            ) from error
        return target


def _read(path: Path) -> bytes:
    try:
        return read_file(path, MOST_BYTES)
    except OSError as error:
        raise CheckpointError(
            f'expected {path}, got "{error.strerror}"; the checkpoint is damaged'
        ) from error


def _verified(path: Path, sha256: str) -> bytes:
    content = _read(path)
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise CheckpointError(
            f'expected {path} with the hash {sha256[:12]}, got {digest[:12]}; the file is damaged'
        )
    return content


def _put(path: Path, content: bytes) -> None:
    with path.open('wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    folder = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
