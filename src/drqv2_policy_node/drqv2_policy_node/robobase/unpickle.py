# SPDX-License-Identifier: Apache-2.0
"""Reads the pickle stream of a torch file without the means to run anything.

The opcodes go through a small stack machine of our own. It makes dicts, lists, tuples, numbers, texts,
descriptions of tensors, and inert records of any other object. It never imports a module, never calls what a
stream names, and refuses every name that is not on its list.
"""

from collections.abc import Callable
import io
import pickletools
import struct
from typing import Any

from drqv2_policy_node.robobase.unpickle_values import (
    allowed,
    describe,
    Inert,
    Name,
    storage,
    UnpickleError,
    Value,
)

_MARK = object()


def read_pickle(stream: bytes) -> Value:
    """Return what a stream describes.

    Raises:
        UnpickleError: it names something that is not on the list, uses an opcode that is not needed for data, or
            is damaged.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(stream)):
            machine.step(opcode.name, argument)
        return machine.result()
    except UnpickleError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise UnpickleError(
            f'expected the pickle stream of a snapshot, got a damaged one ({error}); copy the file again'
        ) from error


class _Machine:
    """Stack, marks and memo of the stream."""

    def __init__(self) -> None:
        self.stack: list[Value] = []
        self.memo: dict[int, Value] = {}

    def result(self) -> Value:
        """Return what is left."""
        (value,) = self.stack
        return value

    def step(self, opcode: str, argument: Any) -> None:
        """Do what one opcode says."""
        if opcode in _PUSH:
            self.stack.append(argument)
        elif opcode in _MAKE:
            self.stack.append(_MAKE[opcode]())
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        elif opcode not in _NOTHING:
            raise UnpickleError(
                f'expected a snapshot of numbers and settings, got the opcode {opcode}; do not trust this file'
            )

    def pop(self) -> Value:
        """Take the top."""
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError('a mark where a value should be')
        return value

    def pop_mark(self) -> list[Value]:
        """Take everything down to the last mark."""
        start = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    @property
    def top(self) -> Value:
        """What lies on top."""
        return self.stack[-1]

    def find(self, module: str, name: str) -> None:
        """Push a name of the list."""
        self.stack.append(allowed(Name(module, name)))

    def global_(self, argument: str) -> None:
        """Push the name that the argument spells."""
        module, name = argument.split(' ', 1)
        self.find(module, name)

    def stack_global(self, _: Any) -> None:
        """Push the name that lies on the stack in two parts."""
        name, module = self.pop(), self.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError('a name that is no text')
        self.find(module, name)

    def reduce(self, _: Any) -> None:
        """Replace a name and arguments by what they describe."""
        arguments, function = self.pop(), self.pop()
        self.stack.append(describe(function, arguments))

    def build(self, _: Any) -> None:
        """Note the state of an object; of a container it is of no interest."""
        state = self.pop()
        if isinstance(self.top, Inert):
            self.top.state = state

    def append(self, _: Any) -> None:
        """Add one entry to a list."""
        self.extend([self.pop()])

    def extend(self, values: list[Value]) -> None:
        """Add entries to the list or object on top."""
        target = self.top.items if isinstance(self.top, Inert) else self.top
        if not isinstance(target, list):
            raise ValueError('entries for something that is no list')
        target.extend(values)

    def set_items(self, values: list[Value]) -> None:
        """Add keys and values to the dict or object on top."""
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if isinstance(self.top, Inert):
            self.top.items.extend(pairs)
            return
        if not isinstance(self.top, dict):
            raise ValueError('keys for something that is no dict')
        for key, value in pairs:
            if isinstance(key, str) and key in self.top:
                raise UnpickleError(f'expected each name once, got {key!r} twice; do not trust this file')
            self.top[key] = value

    def persistent(self, _: Any) -> None:
        """Replace a storage's id by its description."""
        self.stack.append(storage(self.pop()))


_NOTHING = frozenset({'PROTO', 'FRAME', 'STOP'})
_PUSH = frozenset(
    {'INT', 'LONG', 'BININT', 'BININT1', 'BININT2', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT', 'UNICODE'}
    | {'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8'}
)
_MAKE: dict[str, Callable[[], Value]] = {
    'NONE': lambda: None,
    'NEWTRUE': lambda: True,
    'NEWFALSE': lambda: False,
    'MARK': lambda: _MARK,
    'EMPTY_LIST': list,
    'EMPTY_TUPLE': tuple,
    'EMPTY_DICT': dict,
    'EMPTY_SET': list,
}


def _pack(count: int) -> Callable[[_Machine, Any], None]:
    def action(machine: _Machine, _: Any) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.stack.append(tuple(reversed(values)))

    return action


def _collect(make: Callable[[list[Value]], Value]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(make(machine.pop_mark()))


def _memoize(machine: _Machine, index: Any) -> None:
    machine.memo[len(machine.memo) if index is None else int(index)] = machine.top


def _recall(machine: _Machine, index: Any) -> None:
    machine.stack.append(machine.memo[int(index)])


def _drop(_: Value) -> None:
    """Forget a value."""


_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    'POP': lambda machine, _: _drop(machine.stack.pop()),
    'POP_MARK': lambda machine, _: _drop(machine.pop_mark()),
    'DUP': lambda machine, _: machine.stack.append(machine.top),
    'TUPLE1': _pack(1),
    'TUPLE2': _pack(2),
    'TUPLE3': _pack(3),
    'TUPLE': _collect(tuple),
    'LIST': _collect(list),
    'FROZENSET': _collect(list),
    'DICT': _collect(lambda values: dict(zip(values[::2], values[1::2], strict=True))),
    'APPEND': _Machine.append,
    'APPENDS': lambda machine, _: machine.extend(machine.pop_mark()),
    'ADDITEMS': lambda machine, _: machine.extend(machine.pop_mark()),
    'SETITEM': lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    'SETITEMS': lambda machine, _: machine.set_items(machine.pop_mark()),
    'PUT': _memoize,
    'BINPUT': _memoize,
    'LONG_BINPUT': _memoize,
    'MEMOIZE': _memoize,
    'GET': _recall,
    'BINGET': _recall,
    'LONG_BINGET': _recall,
    'GLOBAL': _Machine.global_,
    'STACK_GLOBAL': _Machine.stack_global,
    'REDUCE': _Machine.reduce,
    'NEWOBJ': _Machine.reduce,
    'BUILD': _Machine.build,
    'BINPERSID': _Machine.persistent,
}
