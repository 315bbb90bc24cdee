# SPDX-License-Identifier: Apache-2.0
"""Reads the pickle stream of a torch file without the means to run anything.

Python's own unpickler does the reading, and three things keep it harmless. `find_class` imports nothing: whatever name
a stream says, it gets a stand-in that only notes what the stream does with it, or a refusal. Opcodes that plain data do
not need are refused before anything is read, among them those that could reach past `find_class` (EXT). And the same
pass over the opcodes refuses streams that would take more depth, memory or time than a snapshot does.
"""

from collections.abc import Callable, Sequence
import functools
import io
import math
import pickle
import pickletools
import struct
from typing import Any, ClassVar, NamedTuple, TypeAlias

from so101_contract.errors import ContractError

Value: TypeAlias = Any

MAX_BYTES = 64 * 1024 * 1024
MAX_OPCODES = 1_000_000
MAX_DEPTH, MAX_SIZE = 500, 5_000_000
"""How deep values may be nested, and how many there may be in one, each counted as often as it is named."""
MAX_BITS = 1000
"""Of an integer: every such number is a float, too."""
MAX_COUNT, MAX_AXES = 1 << 48, 64

DAMAGED = (
    *(pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError, ValueError, OverflowError),
    *(MemoryError, RecursionError, struct.error),
)
"""What the unpickler raises where a stream makes no sense."""


class UnpickleError(ContractError):
    """A stream names something that is not allowed, or is damaged."""


class Inert:
    """An object of a class that is not known here: what its stream says about it, and nothing else.

    `find_class` gives each name a subclass of its own. Nothing else can be set: `__slots__` leaves BUILD no `__dict__`,
    and BUILD on the subclass itself fails, since `__setstate__` then lacks its object.
    """

    __slots__ = ('arguments', 'state')
    kind: ClassVar[str]

    arguments: tuple[Value, ...]
    state: Value

    def __new__(cls, *arguments: Value) -> 'Inert':
        """Note the arguments."""
        made = object.__new__(cls)
        made.arguments, made.state = arguments, None
        return made

    def __setstate__(self, state: Value) -> None:
        """Note the state."""
        self.state = state


class StandIn:
    """What stands for a function or class that a snapshot needs: it makes plain data out of plain data."""

    __slots__ = ('_make',)

    def __init__(self, make: Callable[..., Value]) -> None:
        self._make = make

    def __call__(self, *arguments: Value) -> Value:
        """Return the data."""
        return self._make(*arguments)

    def __setstate__(self, state: Value) -> None:
        """Refuse to be changed by a stream."""
        raise ValueError('a state for a function')


class Named(dict[Value, Value]):
    """A dict in which no name comes twice; what else a stream says about it (`_metadata`) is of no interest."""

    __slots__ = ()

    def __setitem__(self, key: Value, value: Value) -> None:
        """Add an entry."""
        if isinstance(key, str) and key in self:
            raise UnpickleError(f'expected each name once, got {key[:80]!r} twice; do not trust this file')
        super().__setitem__(key, value)

    def __setstate__(self, state: Value) -> None:
        """Ignore the attributes."""


class StorageRef(NamedTuple):
    """A run of numbers that lies in a file of the archive.

    Attributes:
        kind: torch's name of its type, e.g. `FloatStorage`.
        key: name of the file.
        numbers: how many of them.
    """

    kind: str
    key: str
    numbers: int


class TensorRef(NamedTuple):
    """A tensor whose numbers are still in the archive."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_pickle(stream: bytes) -> Value:
    """Return what a stream describes.

    Raises:
        UnpickleError: it names something that is not on the list, uses an opcode that is not needed for data, asks for
            more than a snapshot needs, or is damaged.
    """
    try:
        _check_opcodes(stream)
        return _Unpickler(io.BytesIO(stream)).load()
    except UnpickleError:
        raise
    except DAMAGED as error:
        raise UnpickleError(
            f'expected the pickle stream of a snapshot, got a damaged one ({error}); copy the file again'
        ) from error


class _Unpickler(pickle.Unpickler):
    """Knows stand-ins only."""

    def find_class(self, module: str, name: str, /) -> Any:
        """Return what stands for a name that is on the list."""
        if '.' in name or not _allowed(module, name):
            raise UnpickleError(
                f'expected a snapshot of numbers and settings, got the name {module[:80]}.{name[:80]}, which could '
                f'run code; nothing was run, do not trust this file'
            )
        made = _STAND_INS.get(f'{module}.{name}')
        return _inert(f'{module}.{name}') if made is None else StandIn(made)

    def persistent_load(self, identity: Value, /) -> StorageRef:
        """Return the description of a storage from the id that torch gives it."""
        tag, kind, key, _location, count = identity  # where it was, e.g. cuda:0, does not matter
        numbers = kind.kind if isinstance(kind, type) and issubclass(kind, Inert) else ''
        good = tag == 'storage' and numbers in _STORAGES and isinstance(key, str) and key.isalnum()
        if not good or not _count(count):
            raise ValueError('a storage that is none')
        return StorageRef(numbers.removeprefix('torch.'), key, count)


@functools.lru_cache(maxsize=1024)
def _inert(kind: str) -> type[Inert]:
    return type('Inert', (Inert,), {'__slots__': (), 'kind': kind})


def _allowed(module: str, name: str) -> bool:
    full = f'{module}.{name}'
    return (
        module.startswith('omegaconf.')
        or module in ('typing', 'pathlib', 'pathlib._local')
        or (module in ('builtins', '__builtin__') and name in _TYPES)
        or full in _STORAGES
        or full in _STAND_INS
        or full == _DTYPE
    )


# --- what the opcodes ask for ---

_MEMORY = {'PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'}
_RECALL = {'GET', 'BINGET', 'LONG_BINGET'}
_OPCODES = (
    {'PROTO', 'FRAME', 'STOP', 'NONE', 'NEWTRUE', 'NEWFALSE', 'INT', 'LONG', 'BININT', 'BININT1', 'BININT2'}
    | {'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT', 'UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8'}
    | {'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'EMPTY_LIST', 'EMPTY_TUPLE', 'EMPTY_DICT', 'EMPTY_SET'}
    | {'TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3', 'LIST', 'FROZENSET', 'DICT', 'APPEND', 'APPENDS', 'ADDITEMS'}
    | {'SETITEM', 'SETITEMS', 'MARK', 'POP', 'POP_MARK', 'DUP', 'GLOBAL', 'STACK_GLOBAL', 'REDUCE', 'NEWOBJ'}
    | {'BUILD', 'BINPERSID'}
    | _MEMORY
    | _RECALL
)
"""Not among them: EXT1, EXT2, EXT4, INST, OBJ, NEWOBJ_EX, PERSID, and what only other files need."""


def _check_opcodes(stream: bytes) -> None:
    """Refuse opcodes that data do not need, and streams that would take more than a snapshot does."""
    if len(stream) > MAX_BYTES:
        raise _too_much('bytes', MAX_BYTES)
    sizes = _Sizes()
    for number, (opcode, argument, at) in enumerate(pickletools.genops(stream)):
        if opcode.name not in _OPCODES:
            raise UnpickleError(
                f'expected a snapshot of numbers and settings, got the opcode {opcode.name}; do not trust this file'
            )
        if number >= MAX_OPCODES:
            raise _too_much('opcodes', MAX_OPCODES)
        if isinstance(argument, int) and argument.bit_length() > MAX_BITS:
            raise _too_much('bits of an integer', MAX_BITS)
        if opcode.name == 'FRAME' and int(argument or 0) > len(stream) - (at or 0):
            raise ValueError('a frame beyond the end')
        if opcode.name in _MEMORY and argument is not None and int(argument) > number:
            raise ValueError('a place in the memo that cannot be')  # the unpickler makes room for all below
        sizes.step(opcode, argument)


class _Sizes:
    """Follows a stream without its values: of each value on the stack (depth, size), of a mark None.

    A tuple that names another one twice has twice its size: hashing it takes that long, however short the stream.
    """

    def __init__(self) -> None:
        self.stack: list[tuple[int, int] | None] = []
        self.memo: dict[int, tuple[int, int] | None] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Follow one opcode."""
        if opcode.name in _MEMORY:
            self.memo[len(self.memo) if argument is None else int(argument)] = self.stack[-1]
        elif opcode.name in _RECALL:
            self.stack.append(self.memo[int(argument)])
        elif opcode.name == 'DUP':
            self.stack.append(self.stack[-1])
        elif opcode.name == 'MARK':
            self.stack.append(None)
        else:
            taken = self.take(opcode.stack_before)
            depth, size = 1 + max((d for d, _ in taken), default=0), 1 + sum(n for _, n in taken)
            if depth > MAX_DEPTH:
                raise _too_much('levels', MAX_DEPTH)
            if size > MAX_SIZE:
                raise _too_much('values in one', MAX_SIZE)
            self.stack += [(depth, size)] * len(opcode.stack_after)

    def take(self, before: Sequence[object]) -> list[tuple[int, int]]:
        """Take from the stack what an opcode takes."""
        start = len(self.stack) - len(before)
        if pickletools.markobject in before:
            mark = len(self.stack) - 1
            while self.stack[mark] is not None:
                mark -= 1
            start = mark - before.index(pickletools.markobject)
        if start < 0:
            raise IndexError('nothing left on the stack')
        taken = self.stack[start:]
        del self.stack[start:]
        return [value for value in taken if value is not None]


def _too_much(what: str, most: int) -> UnpickleError:
    return UnpickleError(
        f'expected a snapshot of at most {most} {what}, got one with more; do not trust this file'
    )


# --- what stands for what ---

_TYPES = frozenset(
    {'dict', 'list', 'tuple', 'set', 'frozenset', 'int', 'float', 'str', 'bool', 'bytes', 'object', 'type'}
    | {'long', 'unicode'}  # int and str in the old protocol that torch writes
)
_STORAGES = frozenset(
    f'torch.{kind}Storage'
    for kind in ('Float', 'Double', 'Half', 'BFloat16', 'Long', 'Int', 'Short', 'Char', 'Byte', 'Bool')
)
_DTYPE = 'numpy.dtype'
_NUMBERS = {'f8': '<d', 'f4': '<f', 'i8': '<q', 'i4': '<i', 'b1': '<?'}


def _count(number: Value) -> bool:
    return type(number) is int and 0 <= number < MAX_COUNT


def _tensor(storage: Value, offset: Value, shape: Value, stride: Value, *_: Value) -> TensorRef:
    if not isinstance(shape, tuple) or not isinstance(stride, tuple) or not isinstance(storage, StorageRef):
        raise ValueError('a tensor without storage or sizes')
    if len(shape) != len(stride) or len(shape) > MAX_AXES or not all(map(_count, (offset, *shape, *stride))):
        raise ValueError('a tensor without sizes, or with as many strides as it has no axes')
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if 0 not in shape and (last >= storage.numbers or math.prod(shape) > storage.numbers):
        raise ValueError(f'a tensor of {shape} beyond the {storage.numbers} numbers of its storage')
    return TensorRef(storage, offset, shape, stride)


def _named(pairs: Value = ()) -> Named:
    made = Named()
    for key, value in pairs if isinstance(pairs, list | tuple) else ():
        made[key] = value
    return made


def _size(numbers: Value) -> tuple[Value, ...]:
    if not isinstance(numbers, list | tuple):
        raise ValueError('a size that is none')
    return tuple(numbers)


def _bytes(text: Value = '', encoding: Value = 'latin1') -> bytes:
    if not isinstance(text, str) or encoding != 'latin1':
        raise ValueError('bytes of another encoding')
    return text.encode('latin1')


def _number(dtype: Value, content: Value) -> Value:
    """Return a NumPy scalar, as best-so-far values may be."""
    kind = dtype.arguments[0] if isinstance(dtype, Inert) and dtype.kind == _DTYPE else None
    if not isinstance(kind, str) or kind not in _NUMBERS or not isinstance(content, bytes):
        raise ValueError('a NumPy number of an unknown type')
    return struct.unpack(_NUMBERS[kind], content)[0]


_STAND_INS: dict[str, Callable[..., Value]] = {
    'collections.OrderedDict': _named,
    'collections.defaultdict': lambda *_: Named(),
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_parameter': lambda value, *_: value,
    'torch.Size': _size,
    '_codecs.encode': _bytes,
    'builtins.bytes': lambda: b'',
    '__builtin__.bytes': lambda: b'',
    'numpy.core.multiarray.scalar': _number,
    'numpy._core.multiarray.scalar': _number,
}
