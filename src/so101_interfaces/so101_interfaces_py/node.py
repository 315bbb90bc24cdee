# SPDX-License-Identifier: Apache-2.0
"""A node that no message ends: what comes is bounded and read in one place, and what is bad is counted, told, dropped.

rclpy drops bytes that are no message without a word, and lets whatever a callback raises end the node. Here every
subscription takes bytes and reads them itself, and what a message or a request makes a callback raise is its own
fault: the node says so and goes on. What timers raise still ends it; so whatever they use is checked when it comes.
"""

from collections import Counter
from collections.abc import Callable
import functools
from typing import Any

import rclpy.node
from rclpy.serialization import deserialize_message

MOST_BYTES = 1 << 18
"""Size of a message that is taken [B]."""

MOST_BYTES_OF = {'Image': 1 << 26, 'CompressedImage': 1 << 24, 'PolicyWeights': 1 << 25, 'String': 1 << 22}
"""The same for types of which a message is large."""

MOST_CHARACTERS = 4000
"""Length of a text in a message of any other type: it is a sentence for people, or a hash."""

SAID_CHARACTERS = 400
"""Of the reason that is told: it quotes what came."""

UNUSABLE = (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
"""What values raise that nobody expected."""


class MessageError(ValueError):
    """What came is no message of its type, or too large to be one."""


def require_size(data: bytes, kind: Any) -> None:
    """Refuse a serialised message that is larger than any of its type.

    Raises:
        MessageError: it is.
    """
    most = MOST_BYTES_OF.get(kind.__name__, MOST_BYTES)
    if len(data) > most:
        raise MessageError(f'expected a {kind.__name__} of at most {most} bytes, got {len(data)}')


def read_message(data: bytes, kind: Any) -> Any:
    """Return the message of serialised bytes.

    Args:
        data: as they came.
        kind: class of the message.

    Raises:
        MessageError: they are none, or larger than any.
    """
    require_size(data, kind)
    try:
        message = deserialize_message(data, kind)
    except RuntimeError as error:
        raise MessageError(
            f'expected a whole {kind.__name__}, got {len(data)} bytes that are none'
        ) from error
    require_texts(message)
    return message


def require_texts(message: Any) -> None:
    """Refuse a message, or a request, with a text that is longer than any.

    Raises:
        MessageError: it has one.
    """
    kind: Any = type(message)
    for name in _texts(kind):
        length = len(getattr(message, name))
        if length > MOST_CHARACTERS:
            raise MessageError(
                f'expected at most {MOST_CHARACTERS} characters as {name} of a {kind.__name__}, got {length}'
            )


@functools.cache
def _texts(kind: Any) -> tuple[str, ...]:
    """Return the fields that are bounded texts."""
    if kind.__name__ in MOST_BYTES_OF:
        return ()
    return tuple(name for name, form in kind.get_fields_and_field_types().items() if form == 'string')


def worth_telling(count: int) -> bool:
    """Whether it is the first of its sort, the tenth, the hundredth and so on."""
    return count == 10 ** (len(str(count)) - 1)


def reason_of(error: Exception) -> str:
    """Return what an exception says, on one line of bounded length."""
    # str() of a KeyError is the repr of its message.
    said = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return ' '.join(said[: 2 * SAID_CHARACTERS].split())[:SAID_CHARACTERS] or type(error).__name__


class Node(rclpy.node.Node):
    """rclpy's node, which goes on whatever it is sent."""

    @functools.cached_property
    def dropped(self) -> Counter[str]:
        """Messages and requests that were dropped, by topic or service."""
        return Counter()

    def create_subscription(
        self, msg_type: Any, topic: str, callback: Callable[..., object], qos_profile: Any, **options: Any
    ) -> Any:
        """Subscribe as rclpy does; with `raw=True` the callback gets the bytes, which are bounded and nothing else."""
        raw = options.pop('raw', False)

        @functools.wraps(callback)  # rclpy looks whether it takes the message's info too
        def hear(data: bytes, *info: Any) -> None:
            try:
                if raw:
                    require_size(data, msg_type)
                callback(data if raw else read_message(data, msg_type), *info)
            except UNUSABLE as error:
                self.drop(topic, error)

        return super().create_subscription(msg_type, topic, hear, qos_profile, raw=True, **options)

    def create_service(
        self, srv_type: Any, srv_name: str, callback: Callable[[Any, Any], Any], **options: Any
    ) -> Any:
        """Offer a service as rclpy does; a request that cannot be answered is refused with a sentence."""

        def answer(request: Any, response: Any) -> Any:
            try:
                require_texts(request)
                return callback(request, response)
            except UNUSABLE as error:
                self.drop(srv_name, error)
                return _refusal(srv_type.Response(), error)

        return super().create_service(srv_type, srv_name, answer, **options)

    def drop(self, name: str, error: Exception) -> None:
        """Count a message that cannot be used; tell the first one of a topic, the tenth, the hundredth and so on."""
        self.dropped[name] += 1
        count = self.dropped[name]
        if worth_telling(count):
            self.get_logger().error(
                f'{name}: dropped what cannot be used ({count} so far): {reason_of(error)}; '
                f'ros2 topic info -v says who sends it'
            )


def _refusal(response: Any, error: Exception) -> Any:
    """Say no, where the type of the answer has words for it."""
    if hasattr(response, 'success') and hasattr(response, 'message'):
        response.success, response.message = False, reason_of(error)
    return response
