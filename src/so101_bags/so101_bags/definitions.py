# SPDX-License-Identifier: Apache-2.0
"""The text of a message type, with all that it contains, found where ROS packages install it."""

from collections.abc import Iterator
from dataclasses import dataclass
import functools
import json
import os
from pathlib import Path
import re

from so101_bags.errors import BagError

_RULE = '=' * 80
_FIELD = re.compile(
    r'^\s*(?P<type>[A-Za-z]\w*(?:/\w+){0,2})(?:<=\d+)?(?:\[(?:<=)?\d*\])?\s+[a-z]\w*\b(?!\s*=\s*\S+\s*$|=)'
)
_BUILT_IN = frozenset(
    [
        'bool',
        'byte',
        'char',
        'float32',
        'float64',
        'int8',
        'uint8',
        'int16',
        'uint16',
        'int32',
        'uint32',
        'int64',
        'uint64',
        'string',
        'wstring',
    ]
)


@dataclass(frozen=True)
class Definition:
    """A type: its name, its text as rosbag2 embeds it, and the hash of its description."""

    msgtype: str
    text: str
    type_hash: str = ''


@functools.cache
def definition_of(msgtype: str) -> Definition:
    """Return the definition of a type such as `sensor_msgs/msg/Image`.

    Raises:
        BagError: the package that has it is not installed.
    """
    main = _read(msgtype)
    parts, seen, todo = [main], {msgtype}, list(_parts_of(msgtype, main))
    while todo:
        inner = todo.pop(0)
        if inner in seen:
            continue
        seen.add(inner)
        content = _read(inner)
        package, _, name = inner.split('/')
        parts.append(f'{_RULE}\nMSG: {package}/{name}\n{content}')
        todo += _parts_of(inner, content)
    return Definition(msgtype, '\n'.join(parts), _hash_of(msgtype))


def _parts_of(msgtype: str, content: str) -> Iterator[str]:
    """Yield the full names of the types that a definition mentions, in order."""
    package = msgtype.split('/', maxsplit=1)[0]
    for line in content.splitlines():
        match = _FIELD.match(line.split('#')[0])
        name = match['type'] if match else ''
        if not name or name in _BUILT_IN:
            continue
        parts = name.split('/')
        yield f'{parts[0] if len(parts) > 1 else package}/msg/{parts[-1]}'


def _read(msgtype: str) -> str:
    path = _find(msgtype, '.msg')
    if path is None:
        raise BagError(
            f'expected the definition of {msgtype} in share/{msgtype}.msg of an installed package, found none; '
            f'install {msgtype.split("/", maxsplit=1)[0]}, or leave the topic out'
        )
    return path.read_text()


def _hash_of(msgtype: str) -> str:
    path = _find(msgtype, '.json')
    if path is None:
        return ''
    hashes = json.loads(path.read_text()).get('type_hashes', [])
    return next((str(entry['hash_string']) for entry in hashes if entry['type_name'] == msgtype), '')


def _find(msgtype: str, suffix: str) -> Path | None:
    package, _, name = msgtype.partition('/')
    folders = [
        Path(prefix) / 'share' / package
        for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(':')
        if prefix
    ]
    # Beside the Python packages where ROS itself is not sourced: <prefix>/lib/python3.x/site-packages.
    folders += [parent / 'share' / package for parent in Path(__file__).resolve().parents]
    folders += [parent / package for parent in Path(__file__).resolve().parents]
    paths = [folder / f'{name}{suffix}' for folder in folders]
    return next((path for path in paths if path.is_file()), None)
