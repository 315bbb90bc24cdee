# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint says beside its tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
import json
from typing import Any, ClassVar

from hilserl_learner.errors import CheckpointError
from so101_contract.record import Json, Record


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
class Facts(Record):
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

    KIND: ClassVar[str] = 'hilserl_learner/facts/1'
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


@dataclass(frozen=True, kw_only=True)
class CheckpointManifest(Record):
    """The manifest of a checkpoint."""

    KIND: ClassVar[str] = 'hilserl_learner/checkpoint/1'
    ERROR = CheckpointError

    facts: Facts
    files: tuple[FileSum, ...]


def compare_configs(saved: Mapping[str, Json], present: Mapping[str, Json]) -> list[str]:
    """Return one line per parameter in which a saved run differs from the present one; what is not said is equal."""
    return [
        f'{name}: {saved[name]!r} saved, {present[name]!r} now'
        for name in sorted(set(saved) & set(present))
        if saved[name] != present[name]
    ]


def to_json(values: Mapping[str, Any]) -> str:
    """Return plain values as the JSON text of a fact."""
    return json.dumps(values, sort_keys=True, allow_nan=True)
