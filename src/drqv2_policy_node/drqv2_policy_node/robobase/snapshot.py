# SPDX-License-Identifier: Apache-2.0
"""Reads a RoboBase snapshot: a zip archive of a pickle stream and the numbers of its tensors.

Nothing in the file is run, omegaconf is not needed, and it does not matter on which device it was saved.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
import hashlib
from pathlib import Path
import struct
from typing import Any, IO
import zipfile

import torch
from torch import Tensor

from drqv2_policy_node.robobase.unpickle import Inert, MAX_BYTES, read_pickle, StorageRef, TensorRef
from so101_contract.errors import ContractError
from so101_contract.record import Json
from so101_interfaces_py.files import open_file

COUNTERS = ('_pretrain_step', '_main_loop_iterations', '_global_env_episode')
BEST = 'best_eval_reward'

_DTYPES = {
    'FloatStorage': torch.float32,
    'DoubleStorage': torch.float64,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
}
BAD_ARCHIVE = (
    *(OSError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, LookupError),
    *(struct.error, OverflowError, MemoryError),
)
"""What `zipfile` lets through where an archive is damaged, encrypted, or of a kind that it does not know."""

_MAX_SETTINGS = 100_000
_MAX_DEPTH = 64


class SnapshotError(ContractError):
    """A file is no RoboBase snapshot, or a damaged one."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a snapshot holds.

    Attributes:
        tensors: the agent's state dict.
        counters: how far its training was.
        config: its Hydra configuration as plain values; interpolations stay text.
        best: best evaluation reward, where it says one.
        sha256: hash of the file.
    """

    tensors: Mapping[str, Tensor]
    counters: Mapping[str, int]
    config: Mapping[str, Json]
    best: float | None
    sha256: str


def read_snapshot(path: str | Path) -> Snapshot:
    """Read a snapshot.

    Raises:
        ContractError: the file is damaged, is no snapshot, or names what could run code; nothing was run.
    """
    try:
        with open_file(path) as file:
            digest = hashlib.file_digest(file, 'sha256').hexdigest()
            payload = _Archive(file).load()
    except ContractError:
        raise
    except BAD_ARCHIVE as error:
        raise SnapshotError(
            f'expected a RoboBase snapshot as torch writes it (a zip archive) at {path}, got {error}; '
            f'copy the file again'
        ) from error
    return _snapshot(payload, digest)


def _snapshot(payload: object, digest: str) -> Snapshot:
    agent = payload.get('agent') if isinstance(payload, dict) else None
    if not isinstance(payload, dict) or not isinstance(agent, dict):
        keys = sorted(map(str, payload)) if isinstance(payload, dict) else type(payload).__name__
        raise SnapshotError(
            f"expected a snapshot with the key 'agent', got {keys}; pass a file of RoboBase's snapshots/ folder"
        )
    strange = [str(name) for name, value in agent.items() if not isinstance(value, Tensor)]
    if strange:
        raise SnapshotError(f'expected tensors only in the agent, got others: {strange}; save it again')
    best = payload.get(BEST)
    return Snapshot(
        tensors={str(name): value for name, value in agent.items()},
        counters={name: payload[name] for name in COUNTERS if isinstance(payload.get(name), int)},
        config=_config(payload.get('cfg')),
        best=float(best) if isinstance(best, int | float) else None,
        sha256=digest,
    )


class _Archive:
    """The zip file that torch writes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file)
        names = self._zip.namelist()
        roots = [name.removesuffix('data.pkl') for name in names if name.endswith('/data.pkl')]
        packed = [info.filename for info in self._zip.infolist() if info.compress_type != zipfile.ZIP_STORED]
        if len(roots) != 1 or len(set(names)) != len(names) or packed:
            raise SnapshotError(
                f'expected an archive with one data.pkl, each name once and nothing compressed, got '
                f'{len(roots)} of them in {len(names)} files; pass a file that torch.save wrote'
            )
        self._root = roots[0]
        self._storages: dict[StorageRef, Tensor] = {}

    def load(self) -> object:
        """Return the content, with tensors in place of their descriptions."""
        if self._zip.getinfo(f'{self._root}data.pkl').file_size > MAX_BYTES:
            raise SnapshotError(f'expected a data.pkl of at most {MAX_BYTES} bytes; do not trust this file')
        order = f'{self._root}byteorder'
        if order in self._zip.namelist() and self._zip.read(order) != b'little':
            raise SnapshotError(
                'expected a snapshot in little-endian order, got another; save it on x86 or ARM'
            )
        payload = read_pickle(self._zip.read(f'{self._root}data.pkl'))
        if isinstance(payload, dict) and isinstance(payload.get('agent'), dict):
            payload['agent'] = {
                name: self._tensor(name, value) if isinstance(value, TensorRef) else value
                for name, value in payload['agent'].items()
            }
        return payload

    def _tensor(self, name: object, described: TensorRef) -> Tensor:
        storage = self._storage(name, described.storage)
        return storage.as_strided(described.shape, described.stride, described.offset).clone(
            memory_format=torch.contiguous_format
        )

    def _storage(self, name: object, ref: StorageRef) -> Tensor:
        if ref not in self._storages:
            dtype = _DTYPES[ref.kind]
            entry = f'{self._root}data/{ref.key}'
            content = bytearray(self._zip.read(entry)) if entry in self._zip.namelist() else bytearray()
            if len(content) != ref.numbers * dtype.itemsize:
                raise SnapshotError(
                    f'expected {ref.numbers * dtype.itemsize} bytes in {entry} for {name}, got {len(content)}; '
                    f'copy the file again'
                )
            whole = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            self._storages[ref] = whole
        return self._storages[ref]


def _config(value: object) -> dict[str, Json]:
    """Return omegaconf's containers as plain dicts and lists."""
    budget = iter(range(_MAX_SETTINGS))
    plain = _plain(value, budget, 0)
    return plain if isinstance(plain, dict) else {}


def _plain(value: Any, budget: Iterator[int], depth: int) -> Json:
    if depth > _MAX_DEPTH or next(budget, None) is None:
        raise SnapshotError(
            'expected the settings of a training, got too many or too deep; do not trust this file'
        )
    if isinstance(value, Inert):
        state = value.state if isinstance(value.state, dict) else {}
        held = [state[name] for name in ('_content', '_val') if name in state]
        return _plain(held[0], budget, depth + 1) if held else value.kind
    if isinstance(value, dict):
        return {_text(key): _plain(item, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, budget, depth + 1) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else _text(value)


def _text(value: object) -> str:
    """Return a key, or a value that JSON has no form for."""
    if isinstance(value, Inert) or (isinstance(value, type) and issubclass(value, Inert)):
        return value.kind
    return str(value)
