# SPDX-License-Identifier: Apache-2.0
"""Payloads that nobody asked for, on every topic that somebody hears: what a graph must survive.

Bytes that are no message, messages with damaged bytes, with values that no sender means, with stamps of long ago and
of the far future, and copies. On topics that move an arm none is fresh: a fresh whole command is a command.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
import random
import re
import struct
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import serialize_message

from so101_contract.joints import JOINT_NAMES
from so101_interfaces_py import topics

COMMANDS = (topics.JOINT_COMMAND, topics.EE_DELTA_CMD, topics.POLICY_EE_DELTA, topics.TELEOP_EE_DELTA)
"""Topics on which a fresh message moves an arm."""

AXES, NOT_PRESSED = 'axes', 'buttons'
"""Of a joystick: what lies within its range is a human's wish."""

FRESH_S = 60
FLOATS = (0.0, -0.0, 1.0, -1.0, float('nan'), float('inf'), float('-inf'), 3e38, -3e38, 1e-40)
TEXTS = ('', 'x', 'grün\n\x1b[2J', '<script>', '{' * 50, '9' * 400, 'base_link', 'running')
_SEQUENCE = re.compile(r'sequence<([^,>]+)(?:, *(\d+))?>|(.+)\[(\d+)\]')


def _unsigned(bits: int) -> Callable[[random.Random], int]:
    return lambda rng: rng.choice((0, 1, 2, 9, rng.getrandbits(bits), 2**bits - 1))


def _signed(bits: int) -> Callable[[random.Random], int]:
    return lambda rng: rng.choice((0, 1, -1, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1))


SCALARS: Mapping[str, Callable[[random.Random], Any]] = {
    **{name: lambda rng: rng.choice((*FLOATS, rng.uniform(-2.0, 2.0))) for name in ('double', 'float')},
    **{name: lambda rng: bytes([rng.randrange(4)]) for name in ('octet', 'byte')},
    **{f'uint{bits}': _unsigned(bits) for bits in (8, 16, 32, 64)},
    **{f'int{bits}': _signed(bits) for bits in (8, 16, 32, 64)},
    'boolean': lambda rng: rng.random() < 0.5,
    'char': _unsigned(8),
    'string': lambda rng: rng.choice((*TEXTS, *TEXTS, 'x' * rng.choice((3000, 70_000)))),
}
"""Values that no sender means, by the type of the field; seldom a plain one."""


def odd(form: str, name: str, rng: random.Random) -> Any:
    """Return a value that no sender means.

    Args:
        form: type of the field, such as `sequence<double>`.
        name: of the field.
        rng: source of chance.
    """
    if form in SCALARS:
        return SCALARS[form](rng)
    if found := _SEQUENCE.fullmatch(form):
        item, most, fixed_item, fixed = found.groups()
        count = int(fixed) if fixed else rng.choice((0, 1, 5, 6, 6, 6, 7, 40))
        if name == NOT_PRESSED:
            count = 0
        if name == AXES:
            return [rng.choice((float('nan'), float('-inf'), 3e38, -2.0)) for _ in range(count)]
        if name == 'name' and item == 'string' and rng.random() < 0.5:
            return list(JOINT_NAMES)
        return [odd(item or fixed_item, '', rng) for _ in range(min(count, int(most or count)))]
    package, name = form.split('/')
    return odd_message(getattr(import_module(f'{package}.msg'), name), rng)


def odd_message(kind: Any, rng: random.Random) -> Any:
    """Return a message of which most values make no sense."""
    message = kind()
    for name, form in kind.get_fields_and_field_types().items():
        if rng.random() < 0.8:
            setattr(message, name, odd(form, name, rng))
    return message


def stamped(message: Any, now_ns: int, rng: random.Random) -> Any:
    """Give a message a stamp of long ago or of the far future, or one that is none."""
    stamp = getattr(getattr(message, 'header', None), 'stamp', None)
    if stamp is not None:
        hour = 3600
        stamp.sec = rng.choice((now_ns // 10**9 - hour, now_ns // 10**9 + hour, 2**31 - 1, -(2**31), 1))
        stamp.nanosec = rng.choice((0, 999_999_999, 2**32 - 1))
    return message


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return bytes that were cut, stretched or changed in some places."""
    content = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(content) + 1)
        way = rng.randrange(4)
        if way == 0:
            del content[at:]
        elif way == 1:
            content[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif way == 2 and content:
            content[at % len(content)] = rng.randrange(256)
        else:  # a length, as often as not
            content[at & -4 : (at & -4) + 4] = struct.pack('<I', rng.choice((2**32 - 1, 2**31, 2**20, 7)))
    return bytes(content)


def is_fresh(data: bytes, now_ns: int) -> bool:
    """Whether a message has a stamp of now, or none at all, in either byte order."""
    if len(data) < 12:
        return False
    seconds = [struct.unpack_from(form, data, 4)[0] for form in ('<i', '>i')]
    return any(second == 0 or abs(second - now_ns // 10**9) < FRESH_S for second in seconds)


@dataclass
class Flood:
    """Payloads for the topics of a graph, and a count of what was sent.

    Attributes:
        node: that publishes.
        seed: of chance.
        sent: payloads by topic and sort.
        own: hashes of what was sent, to tell it from what others say.
    """

    node: Node
    seed: int = 0
    sent: dict[str, Counter[str]] = field(default_factory=dict)
    own: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Prepare."""
        self._rng = random.Random(self.seed)
        self._last: dict[str, bytes] = {}
        self._publishers: dict[str, Any] = {}
        self._kinds: dict[str, Any] = {}

    def look(self, skip: Callable[[str], bool] = lambda _: False) -> list[str]:
        """Find the topics that other nodes hear, and be ready to publish on them."""
        own = self.node.get_name()
        for topic, (msgtype, *_) in self.node.get_topic_names_and_types():
            ears = [info.node_name for info in self.node.get_subscriptions_info_by_topic(topic)]
            if topic in self._publishers or skip(topic) or not set(ears) - {own}:
                continue
            package, _, name = msgtype.split('/')
            self._kinds[topic] = kind = getattr(import_module(f'{package}.msg'), name)
            # Reliable and latched: it fits whatever a listener asks for.
            profile = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._publishers[topic] = self.node.create_publisher(kind, topic, profile)
            self.sent[topic] = Counter()
        return sorted(self._publishers)

    def send(self, sort: str = '') -> None:
        """Publish one payload of a sort, or of any, on each topic."""
        for topic, publisher in self._publishers.items():
            made, data = self._payload(topic, sort)
            self.sent[topic][made] += 1
            self.own.add(hash(data))
            self._last[topic] = data
            publisher.publish(data)

    def close(self) -> None:
        """Publish no more; what was latched is gone with its publishers."""
        for publisher in self._publishers.values():
            self.node.destroy_publisher(publisher)
        self._publishers.clear()

    def _payload(self, topic: str, wanted: str) -> tuple[str, bytes]:
        now_ns = self.node.get_clock().now().nanoseconds
        moves = topic.endswith(tuple(f'/{name}' for name in COMMANDS))
        for sort, data in self._candidates(topic, wanted, now_ns):
            if not (moves and is_fresh(data, now_ns)):
                return sort, data
        raise AssertionError('candidates never end')

    def _candidates(self, topic: str, wanted: str, now_ns: int) -> Iterator[tuple[str, bytes]]:
        rng, kind = self._rng, self._kinds[topic]
        makers: Mapping[str, Callable[[], bytes]] = {
            'bytes': lambda: rng.randbytes(rng.choice((0, 1, 4, 4, 11, 12, 60, 4000))),
            'damaged': lambda: damaged(serialize_message(stamped(odd_message(kind, rng), now_ns, rng)), rng),
            'odd': lambda: serialize_message(odd_message(kind, rng)),
            'stamps': lambda: serialize_message(stamped(kind(), now_ns, rng)),
            'copies': lambda: self._last.get(topic, b'\0\1\0\0'),
        }
        while True:
            sort = wanted or rng.choice(list(makers))
            if sort == 'damaged' and hasattr(kind, NOT_PRESSED):
                sort = 'bytes'
            yield sort, makers[sort]()
