# SPDX-License-Identifier: Apache-2.0
"""What the pickle stream of a snapshot may name, and what stands for it here: plain data, never code."""

from collections.abc import Callable
from dataclasses import dataclass, field
import math
import struct
from typing import Any, TypeAlias

from so101_contract.errors import ContractError

Value: TypeAlias = Any


class UnpickleError(ContractError):
    """A stream names something that is not allowed, or is damaged."""


@dataclass(frozen=True)
class Name:
    """A module's attribute, by name only."""

    module: str
    name: str

    def __str__(self) -> str:
        """Return it as it is written in Python."""
        return f'{self.module}.{self.name}'


@dataclass(eq=False)
class Inert:
    """An object of a class that is not known here: what its stream says about it, and nothing else."""

    kind: Name
    arguments: Value = field(default=(), repr=False)
    state: Value = field(default=None, repr=False)
    items: list[Value] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class StorageRef:
    """A run of numbers that lies in a file of the archive.

    Attributes:
        kind: torch's name of its type, e.g. `FloatStorage`.
        key: name of the file.
        count: how many numbers.
    """

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class TensorRef:
    """A tensor whose numbers are still in the archive."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


_SETTINGS = 'omegaconf.'
_INERT = frozenset({'typing', 'pathlib', 'pathlib._local'})
_TYPES = frozenset(
    {'dict', 'list', 'tuple', 'set', 'frozenset', 'int', 'float', 'str', 'bool', 'bytes', 'object', 'type'}
    | {'long', 'unicode'}  # int and str in the old protocol that torch writes
)
_STORAGES = frozenset(
    f'{kind}Storage'
    for kind in ('Float', 'Double', 'Half', 'BFloat16', 'Long', 'Int', 'Short', 'Char', 'Byte', 'Bool')
)


def allowed(name: Name) -> Name:
    """Return a name that is on the list.

    Raises:
        UnpickleError: it is not.
    """
    module = name.module
    good = (
        module.startswith(_SETTINGS)
        or module in _INERT
        or (module in ('builtins', '__builtin__') and name.name in _TYPES)
        or (module == 'torch' and name.name in _STORAGES)
        or name in _CALLS
        or name == _DTYPE
    )
    if not good or '.' in name.name:
        raise UnpickleError(
            f'expected a snapshot of numbers and settings, got the name {name}, which could run code; '
            f'nothing was run, do not trust this file'
        )
    return name


def describe(function: Value, arguments: Value) -> Value:
    """Return what a call would have made, without calling anything."""
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise ValueError('a call of something that is no name')
    if function in _CALLS:
        return _CALLS[function](*arguments)
    return Inert(function, arguments)


def storage(identity: Value) -> StorageRef:
    """Return the description of a storage from the id that torch gives it."""
    tag, kind, key, _location, count = identity  # where it was, e.g. cuda:0, does not matter
    good = tag == 'storage' and isinstance(kind, Name) and kind.name in _STORAGES
    if not good or not isinstance(key, str) or not key.isalnum() or type(count) is not int or count < 0:
        raise ValueError(f'a storage that is none: {identity}')
    return StorageRef(kind.name, key, count)


def _tensor(storage: Value, offset: Value, shape: Value, stride: Value, *_: Value) -> TensorRef:
    shape, stride = tuple(shape), tuple(stride)
    numbers = (offset, *shape, *stride)
    if not isinstance(storage, StorageRef) or not all(type(x) is int and x >= 0 for x in numbers):
        raise ValueError('a tensor without storage or sizes')
    if len(shape) != len(stride):
        raise ValueError('a tensor with as many strides as it has no axes')
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if 0 not in shape and (last >= storage.count or math.prod(shape) > storage.count):
        raise ValueError(f'a tensor of {shape} beyond the {storage.count} numbers of its storage')
    return TensorRef(storage, offset, shape, stride)


def _dict(pairs: Value = ()) -> dict[Value, Value]:
    return dict(pairs) if isinstance(pairs, list | tuple) else {}


def _bytes(text: Value, encoding: Value = 'latin1') -> bytes:
    if not isinstance(text, str) or encoding != 'latin1':
        raise ValueError('bytes of another encoding')
    return text.encode('latin1')


def _number(dtype: Value, content: Value) -> Value:
    """Return a NumPy scalar, as best-so-far values may be."""
    kind = dtype.arguments[0] if isinstance(dtype, Inert) and dtype.kind == _DTYPE else None
    forms = {'f8': '<d', 'f4': '<f', 'i8': '<q', 'i4': '<i', 'b1': '<?'}
    if kind not in forms or not isinstance(content, bytes):
        raise ValueError(f'a NumPy number of the type {kind}')
    return struct.unpack(forms[kind], content)[0]


def _same(value: Value, *_: Value) -> Value:
    return value


_DTYPE = Name('numpy', 'dtype')
_CALLS: dict[Name, Callable[..., Value]] = {
    Name('collections', 'OrderedDict'): _dict,
    Name('collections', 'defaultdict'): lambda *_: {},
    Name('torch._utils', '_rebuild_tensor_v2'): _tensor,
    Name('torch._utils', '_rebuild_parameter'): _same,
    Name('torch', 'Size'): tuple,
    Name('_codecs', 'encode'): _bytes,
    Name('builtins', 'bytes'): lambda: b'',
    Name('__builtin__', 'bytes'): lambda: b'',
    Name('numpy.core.multiarray', 'scalar'): _number,
    Name('numpy._core.multiarray', 'scalar'): _number,
}
