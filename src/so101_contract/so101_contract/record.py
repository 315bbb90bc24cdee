# SPDX-License-Identifier: Apache-2.0
"""Records: frozen dataclasses that travel as JSON, have a stable hash, and explain how they differ."""

from collections.abc import Mapping
import dataclasses
from enum import Enum
import functools
import hashlib
import json
import math
import types
from typing import Any, ClassVar, get_args, get_origin, get_type_hints, Self, TypeAlias, Union

import numpy as np

from so101_contract.errors import ContractError

Json: TypeAlias = 'bool | int | float | str | list[Json] | dict[str, Json] | None'


class Record:
    """Base of the frozen dataclasses that are written to files, messages and hashes.

    Fields are of type bool, int, float, str, an Enum, a Record, a tuple of those, or one of those or None.
    Every value is brought to exactly that type when the record is made (1 becomes 1.0 in a float field, a
    list becomes a tuple), so records that mean the same are equal and hash the same.
    """

    KIND: ClassVar[str]
    """What the record is, with the version of its meaning; part of the hash."""

    ERROR: ClassVar[type[ContractError]] = ContractError
    """Raised where a value or key is wrong."""

    OPTIONAL: ClassVar[frozenset[str]] = frozenset()
    """Fields that came later: left out where they are None, so that what was written before is the same as ever."""

    def __post_init__(self) -> None:
        """Bring each field to its declared type; subclasses check the values afterwards."""
        for name, hint in _hints(type(self)).items():
            value = _coerce(hint, getattr(self, name), f'{type(self).__name__}.{name}', self.ERROR)
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Json]:
        """Return the record as nested dicts, lists and plain values that JSON can hold."""
        values = {name: _plain(getattr(self, name)) for name in _hints(type(self))}
        return {name: v for name, v in values.items() if v is not None or name not in self.OPTIONAL}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Self:
        """Make the record from what `to_dict` returned.

        Raises:
            ContractError: a key is unknown or missing (the class's own ERROR), or a value is not valid.
        """
        if not isinstance(data, Mapping):
            raise cls.ERROR(f'expected {cls.__name__} as a mapping, got {type(data).__name__}; pass a dict')
        wanted = set(_hints(cls))
        unknown, missing = sorted(map(str, set(data) - wanted)), sorted(wanted - set(data) - cls.OPTIONAL)
        if unknown or missing:
            raise cls.ERROR(
                f'expected the keys {sorted(wanted)} for {cls.__name__}, got unknown {unknown} and missing '
                f'{missing}; write it with the same version of so101_contract'
            )
        return cls(**data)

    def to_json(self, indent: int | None = 2) -> str:
        """Return the record as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Make the record from JSON text; a key that is given twice is refused."""
        try:
            data = json.loads(text, object_pairs_hook=functools.partial(_unique, error=cls.ERROR))
            return cls.from_dict(data)
        except cls.ERROR:
            raise
        except (
            ValueError,
            RecursionError,
        ) as error:  # no JSON, numbers of thousands of digits, lists in lists
            raise cls.ERROR(f'expected {cls.__name__} as JSON, got {error}; restore the file') from error

    def canonical(self) -> str:
        """Return the text that is hashed: JSON with sorted keys and the shortest exact form of each float."""
        content = {'kind': self.KIND, 'fields': self.to_dict()}
        return json.dumps(content, sort_keys=True, separators=(',', ':'), allow_nan=False)

    @property
    def hash(self) -> str:
        """Hex SHA-256 of the canonical form; equal on every platform for records that mean the same."""
        return hashlib.sha256(self.canonical().encode('ascii')).hexdigest()

    def diff(self, other: 'Record', names: tuple[str, str] = ('here', 'there')) -> list[str]:
        """Return one readable line per field that differs, with both values; empty where nothing does.

        Args:
            other: the record to compare with.
            names: what to call this record and the other one, for example `('policy', 'buffer')`.
        """
        if self.KIND != other.KIND:
            return [f'kind: {self.KIND} {names[0]}, {other.KIND} {names[1]}']
        return list(_differences('', self.to_dict(), other.to_dict(), names))


def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _plain(value: object) -> Json:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f'expected a plain value, got {value!r}; give the field one of the types of Record')


_ACCEPTED: dict[type, tuple[type, ...]] = {
    bool: (bool, np.bool_),
    int: (int, np.integer),
    float: (int, float, np.integer, np.floating),
    str: (str,),
}


def _coerce(hint: Any, value: object, where: str, error: type[ContractError]) -> object:
    """Return the value as the type that the hint names, or raise the error."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (arg for arg in get_args(hint) if arg is not types.NoneType)
        return None if value is None else _coerce(inner, value, where, error)
    if origin is tuple:
        return _coerce_tuple(get_args(hint), value, where, error)
    if issubclass(hint, Record):
        if not isinstance(value, hint | Mapping):
            raise error(f'expected {where} as {hint.__name__}, got {value!r}; pass one')
        return value if isinstance(value, hint) else hint.from_dict(value)
    if issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError:
            known = [member.value for member in hint]
            raise error(f'expected {where} as one of {known}, got {value!r}; choose one') from None
    # A bool is an int to Python, but never to the author of a spec.
    if not isinstance(value, _ACCEPTED[hint]) or (hint is not bool and isinstance(value, bool)):
        raise error(f'expected {where} of type {hint.__name__}, got {value!r}; correct it')
    try:
        number = hint(value)
    except OverflowError:  # an int of 400 digits
        number = math.inf
    if hint is float and not math.isfinite(number):
        raise error(f'expected {where} as a finite number, got {number}; correct it')
    return number + 0.0 if hint is float else number  # -0.0 means 0.0 and must hash the same


def _coerce_tuple(
    args: tuple[Any, ...], value: object, where: str, error: type[ContractError]
) -> tuple[object, ...]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise error(f'expected {where} as a list, got {value!r}; correct it')
    hints = args[:1] * len(value) if args[1:] == (Ellipsis,) else args
    if len(hints) != len(value):
        raise error(f'expected {where} with {len(hints)} entries, got {len(value)}; correct it')
    return tuple(
        _coerce(hint, item, f'{where}[{i}]', error)
        for i, (hint, item) in enumerate(zip(hints, value, strict=True))
    )


def _unique(pairs: list[tuple[str, object]], error: type[ContractError]) -> dict[str, object]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise error(f'expected each key once, got {keys}; remove the repeated one')
    return dict(pairs)


def _differences(path: str, one: Json, two: Json, names: tuple[str, str]) -> list[str]:
    if isinstance(one, dict) and isinstance(two, dict):
        lines = []
        for key in one | two:
            lines += _differences(f'{path}.{key}' if path else key, one.get(key), two.get(key), names)
        return lines
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        return [
            line
            for i, (a, b) in enumerate(zip(one, two, strict=True))
            for line in _differences(f'{path}[{i}]', a, b, names)
        ]
    if one == two and type(one) is type(two):
        return []
    return [f'{path}: {_short(one)} {names[0]}, {_short(two)} {names[1]}']


def _short(value: Json) -> str:
    return 'none' if value is None else json.dumps(value)
