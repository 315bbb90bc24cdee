# SPDX-License-Identifier: Apache-2.0
"""GR00T's messages: values to the bytes of one frame and back, in each encoding that its servers have had.

| encoding | servers | an array is | a modality's configuration is |
|---|---|---|---|
| `n1.5` | N1.5 since 2025-08 | a map with `__ndarray_class__` and the bytes of a .npy file | JSON as a text |
| `n1.6` | N1.6, N1.7 | the same | JSON as a map |
| `main` | after N1.7 | a map of msgpack-numpy: type, shape and raw bytes | JSON as a map, under another key |

All of them are msgpack. The first servers of N1.5 spoke pickle, which runs what it is sent: it is recognised by its
first bytes and refused. Arrays are read by hand and are numbers and nothing else; msgpack-numpy and np.load, which
read more than that, are never called. What comes is bounded before it is built: bytes of a frame, entries of a map,
number of containers, depth, and the elements of an array against the bytes that are there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
import json
import math
import re
from typing import Any, TypeAlias

import msgpack
import numpy as np
import numpy.typing as npt

from so101_contract.errors import ContractError

Value: TypeAlias = (
    'bool | int | float | str | bytes | list[Value] | dict[str, Value] | Array | Modality | None'
)
Array: TypeAlias = npt.NDArray[Any]


class Encoding(StrEnum):
    """How a server writes its messages; named after the first version that did."""

    N15 = 'n1.5'
    N16 = 'n1.6'
    MAIN = 'main'

    @property
    def is_flat(self) -> bool:
        """Whether keys carry their modality (`video.front`), and nothing has a batch axis."""
        return self is Encoding.N15


LARGEST_REPLY = 1 << 20
"""Bytes of an answer that are taken: a chunk of actions has a few thousand."""

LARGEST_REQUEST = 1 << 26
"""Bytes of a request that are taken: a few pictures [B]."""

MOST_CONTAINERS = 512
"""Maps and lists in a message."""

MOST_ENTRIES = 1024
"""Entries of a map or a list."""

DEEPEST = 12
"""Containers in containers."""

MOST_AXES = 6
LONGEST_JSON = 1 << 16

NPY, NPY_BYTES = '__ndarray_class__', 'as_npy'
CONFIG, CONFIG_OF_MAIN, AS_JSON = '__ModalityConfig_class__', '__ModalityConfig__', 'as_json'
_DTYPE = re.compile(r'\|[iub]1|[<>|]?[iu][1248]|[<>]f[248]')
_NPY_HEADER = re.compile(
    rb"\{'descr': '([^']{2,4})', 'fortran_order': (True|False), 'shape': \(([0-9, ]{0,120})\), ?\}[ ]*\n"
)
_NPY_MAGIC = b'\x93NUMPY\x01\x00'
_PICKLES = (b'PK\x03\x04', *(bytes([0x80, version]) for version in range(2, 6)))


class WireError(ContractError):
    """Bytes are no message of these encodings, or larger than any."""


class PickleError(WireError):
    """A server speaks pickle."""


@dataclass(frozen=True)
class Modality:
    """One modality of a server's configuration: what it wants to see, or says, and at which times.

    Attributes:
        keys: names within the modality.
        indices: times of the entries relative to now, in steps of the training's data.
        more: what else the configuration says; kept, and used by nobody here.
        encoding: in which it came, and goes out again.
    """

    keys: tuple[str, ...]
    indices: tuple[int, ...]
    more: Mapping[str, Any] = field(default_factory=dict)
    encoding: Encoding = Encoding.N16

    @classmethod
    def from_plain(cls, plain: Any, encoding: Encoding) -> 'Modality':
        """Make it of the JSON that came.

        Raises:
            WireError: it is something else.
        """
        if not isinstance(plain, dict):
            raise WireError(f'expected the configuration of a modality as a map, got {_short(plain)}')
        keys, indices = (_list_of(plain, name) for name in ('modality_keys', 'delta_indices'))
        named = all(isinstance(key, str) for key in keys)
        if not named or not all(type(index) is int and abs(index) <= MOST_ENTRIES for index in indices):
            raise WireError(
                f'expected names and numbers in the configuration of a modality, got {_short(plain)}'
            )
        more = {key: value for key, value in plain.items() if key not in ('modality_keys', 'delta_indices')}
        return cls(tuple(keys), tuple(indices), more, encoding)

    def to_plain(self) -> dict[str, Any]:
        """Return what `from_plain` takes."""
        return {'delta_indices': list(self.indices), 'modality_keys': list(self.keys), **self.more}


def _list_of(plain: dict[str, Any], name: str) -> list[Any]:
    """Return a list of the configuration of a modality."""
    found = plain.get(name)
    if not isinstance(found, list) or len(found) > MOST_ENTRIES:
        raise WireError(f'expected {name} in the configuration of a modality, got {_short(plain)}')
    return found


def encode(value: Any, encoding: Encoding) -> bytes:
    """Return the frame that says a value (dicts, lists, texts, numbers, arrays, modalities)."""
    packed: bytes = msgpack.packb(value, default=lambda other: _to_map(other, encoding), use_bin_type=True)
    return packed


def decode(frame: bytes, largest: int = LARGEST_REPLY) -> Value:
    """Return what a frame says, whichever of the encodings it is in.

    Args:
        frame: as it came.
        largest: bytes that are taken.

    Raises:
        PickleError: it is a pickle; nothing of it was loaded.
        WireError: it is no message, or larger than any; the sentence says what came.
    """
    if frame.startswith(_PICKLES) or frame == b'ERROR':
        raise PickleError(
            'expected msgpack, got an answer of a server that speaks pickle, which would run on this machine whatever '
            'it is sent; nothing of it was loaded: use a GR00T of September 2025 or later (N1.5 4af2b622, N1.6, N1.7)'
        )
    if len(frame) > largest:
        raise WireError(f'expected at most {largest} bytes, got a message of {len(frame)}')
    try:
        plain = msgpack.unpackb(
            frame,
            raw=False,
            strict_map_key=False,
            max_array_len=MOST_ENTRIES,
            max_map_len=MOST_ENTRIES,
            ext_hook=_refuse_extension,
            **_counting(),
        )
    except WireError:
        raise
    except (ValueError, TypeError, RecursionError, OverflowError, msgpack.UnpackException) as error:
        said = str(error)[:200] or type(error).__name__
        raise WireError(
            f'expected a msgpack message, got {len(frame)} bytes that are none ({said})'
        ) from error
    return _to_value(plain, 0)


def encoding_of(configuration: Value) -> Encoding:
    """Return the encoding of a server, by what it answers to `get_modality_config`.

    Raises:
        WireError: that is no configuration.
    """
    found = (
        {part.encoding for part in configuration.values() if isinstance(part, Modality)}
        if isinstance(configuration, dict)
        else set()
    )
    if len(found) != 1:
        raise WireError(
            f'expected the configuration of a GR00T server, got {_short(configuration)}; is another program there?'
        )
    return found.pop()


# --- to the wire ---


def _to_map(value: Any, encoding: Encoding) -> Any:
    if isinstance(value, Modality):
        plain = value.to_plain()
        if encoding is Encoding.MAIN:
            return {CONFIG_OF_MAIN: True, AS_JSON: plain}
        return {
            CONFIG: True,
            AS_JSON: json.dumps(plain, separators=(',', ':')) if encoding.is_flat else plain,
        }
    if isinstance(value, np.ndarray) and value.dtype.kind in 'fiub':
        return _raw_map(value) if encoding is Encoding.MAIN else {NPY: True, NPY_BYTES: npy_bytes(value)}
    raise TypeError(f'expected a value that these messages can say, got {type(value).__name__}')


def _raw_map(array: Array) -> dict[bytes, Any]:
    return {
        b'nd': True,
        b'type': array.dtype.str,
        b'kind': b'',
        b'shape': list(array.shape),
        b'data': array.tobytes(),
    }


def npy_bytes(array: Array) -> bytes:
    """Return a .npy file, version 1.0, of an array in C order."""
    shape = f'({array.shape[0]},)' if array.ndim == 1 else str(array.shape)
    header = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {shape}, }}".encode('ascii')
    used = len(_NPY_MAGIC) + 2 + len(header) + 1
    header += b' ' * (-used % 64) + b'\n'
    return _NPY_MAGIC + len(header).to_bytes(2, 'little') + header + array.tobytes()


# --- from the wire ---


def _counting() -> dict[str, Any]:
    """Return hooks that end the building of a message with too many maps and lists."""
    left = MOST_CONTAINERS

    def count(items: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise WireError(f'expected at most {MOST_CONTAINERS} maps and lists in a message, got more')
        return items

    return {'object_pairs_hook': lambda pairs: count(_Pairs(pairs)), 'list_hook': count}


class _Pairs(list[tuple[Any, Any]]):
    """The entries of a map, as they came."""


def _refuse_extension(code: int, data: bytes) -> Any:
    raise WireError(
        f'expected no extension types, got type {code} with {len(data)} bytes; a GR00T server has none'
    )


def _to_value(plain: Any, depth: int) -> Value:
    """Return what plain msgpack means; `depth` containers are around it."""
    if depth > DEEPEST:
        raise WireError(f'expected at most {DEEPEST} maps and lists in each other, got more')
    if isinstance(plain, _Pairs):
        return _of_map(plain, depth)
    if isinstance(plain, list):
        return [_to_value(item, depth + 1) for item in plain]
    if plain is None or isinstance(plain, bool | int | float | str | bytes):
        return plain
    raise WireError(f'expected plain values, got {type(plain).__name__}')


def _of_map(pairs: _Pairs, depth: int) -> Value:
    entries: dict[str, Any] = {}
    for key, value in pairs:
        name = _text(key) if isinstance(key, str | bytes) else None
        if name is None or name in entries:
            raise WireError(f'expected texts as the keys of a map, each once, got {_short(key)}')
        entries[name] = value
    if NPY in entries:
        return npy_array(entries.get(NPY_BYTES))
    if 'nd' in entries and 'data' in entries:
        return _raw_array(entries)
    for mark in (CONFIG, CONFIG_OF_MAIN):
        if mark in entries:
            return _modality(entries.get(AS_JSON), mark, depth)
    return {name: _to_value(value, depth + 1) for name, value in entries.items()}


def _modality(said: Any, mark: str, depth: int) -> Modality:
    if not isinstance(said, str):
        encoding = Encoding.MAIN if mark == CONFIG_OF_MAIN else Encoding.N16
        return Modality.from_plain(_to_value(said, depth + 1), encoding)
    if len(said) > LONGEST_JSON:
        raise WireError(f'expected at most {LONGEST_JSON} characters of JSON, got {len(said)}')
    try:
        return Modality.from_plain(json.loads(said), Encoding.N15)
    except (ValueError, RecursionError) as error:
        raise WireError(f'expected the configuration of a modality as JSON, got {_short(said)}') from error


def npy_array(data: Any) -> Array:
    """Return the array of a .npy file of version 1.0 with plain numbers.

    Raises:
        WireError: it holds anything else.
    """
    if not isinstance(data, bytes) or not data.startswith(_NPY_MAGIC) or len(data) < len(_NPY_MAGIC) + 2:
        raise WireError(f'expected an array as the bytes of a .npy file, got {_short(data)}')
    start = len(_NPY_MAGIC) + 2
    body = start + int.from_bytes(data[start - 2 : start], 'little')
    header = _NPY_HEADER.fullmatch(data[start:body])
    if header is None:
        raise WireError(f'expected the header of an array of numbers, got {_short(data[start:body])}')
    descr, fortran, sizes = header.groups()
    words = [word.strip() for word in sizes.decode('ascii').split(',')]
    if not all(word.isdigit() for word in words[:-1]) or not (words[-1] == '' or words[-1].isdigit()):
        raise WireError(f'expected the shape of an array, got {_short(sizes)}')
    shape = [int(word) for word in words if word]
    return _array(descr.decode('ascii', 'replace'), shape, data[body:], fortran == b'True')


def _raw_array(entries: Mapping[str, Any]) -> Array:
    """Return the array of a map of msgpack-numpy; kind `O` would be a pickle there."""
    shape, data, descr = (entries.get(key) for key in ('shape', 'data', 'type'))
    plain = entries.get('nd') is True and entries.get('kind') in (b'', '', None)
    if plain and isinstance(descr, str | bytes) and isinstance(data, bytes) and isinstance(shape, list):
        return _array(_text(descr), list(shape), data, fortran=False)
    told = {key: entries.get(key) for key in ('nd', 'kind', 'type')}
    raise WireError(f'expected an array of numbers, got one with {_short(told)}')


def _array(descr: str, shape: list[Any], data: bytes, fortran: bool) -> Array:
    """Return the numbers of some bytes; the shape is believed as far as it accounts for all of them."""
    if not _DTYPE.fullmatch(descr):
        raise WireError(
            f'expected an array of numbers or booleans, got dtype {_short(descr)}, which is not read: objects and '
            f'records could run code'
        )
    dtype = np.dtype(descr)
    sizes_ok = len(shape) <= MOST_AXES and all(type(size) is int and size >= 0 for size in shape)
    if not sizes_ok or math.prod(shape) * dtype.itemsize != len(data):
        raise WireError(
            f'expected an array whose shape accounts for its {len(data)} bytes, got {_short(shape)} of {descr}'
        )
    flat = np.frombuffer(data, dtype)
    return flat.reshape(shape, order='F' if fortran else 'C')


def _text(word: Any) -> str:
    return word.decode('utf-8', 'replace') if isinstance(word, bytes) else str(word)


def _short(value: Any) -> str:
    """Say what came, in a line of bounded length."""
    if isinstance(value, str | bytes):
        said = repr(value[:60]) + ('...' if len(value) > 60 else '')
    elif isinstance(value, _Pairs | dict | list):
        parts = dict(value) if isinstance(value, _Pairs) else value
        said = f'{type(parts).__name__} of {len(parts)}: {list(parts)[:6]!r:.120}'
    else:
        said = f'{value!r:.80}'
    return said
