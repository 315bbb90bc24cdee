# SPDX-License-Identifier: Apache-2.0
"""YAML out of files that nobody has looked at: bounded before it is believed.

libyaml follows nesting with the stack of the processor, so that 200 kB of brackets end Python; and an alias of an alias
of an alias stands for more values than there is memory. So a pass over the events, which needs neither, comes first.
"""

from collections.abc import Iterable
from typing import Any

import yaml

MOST_CHARACTERS, MOST_LEVELS, MOST_VALUES = 16_000_000, 50, 500_000
"""Of a text: how long it may be, how deep, and how many values it may stand for, those of aliases included."""

_Loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


class YamlError(ValueError):
    """A text is no YAML, or asks for more than anybody needs; the message says where."""


def load_yaml(text: str) -> Any:
    """Return what a text says, as plain values.

    Raises:
        YamlError: it is no YAML, or too much of it.
    """
    if len(text) > MOST_CHARACTERS:
        raise YamlError(f'expected at most {MOST_CHARACTERS} characters of YAML, got {len(text)}')
    try:
        _check(yaml.parse(text, Loader=_Loader))
        return yaml.load(text, Loader=_Loader)
    except YamlError:
        raise
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
    ) as error:  # a date that is none, a number of 5000 digits, a list as key
        raise YamlError(
            f'expected YAML, got {type(error).__name__} ({" ".join(str(error).split())[:300]})'
        ) from error


def _check(events: Iterable[Any]) -> None:
    """Refuse what is nested too deeply, or stands for too many values."""
    values = 0
    sizes: dict[Any, int] = {}
    open_ones: list[tuple[Any, int]] = []
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise YamlError(
                    f'expected an alias of what came before, got {str(event.anchor)[:40]!r}, which contains itself'
                )
            values += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            open_ones.append((event.anchor, values))
            values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_ones.pop()
            sizes[anchor] = values - before
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            sizes[event.anchor] = 1
        if len(open_ones) > MOST_LEVELS or values > MOST_VALUES:
            raise YamlError(f'expected at most {MOST_LEVELS} levels and {MOST_VALUES} values, got more')
