# SPDX-License-Identifier: Apache-2.0
"""The newest of what comes a hundred times a second: kept as it came over the wire, read when a page asks."""

from collections.abc import Callable
from typing import Any

from rclpy.serialization import deserialize_message


class Newest:
    """One message of each name. The node's thread keeps, the server's reads."""

    def __init__(self) -> None:
        self._raw: dict[str, bytes] = {}
        self._read: dict[tuple[str, str], tuple[bytes, Any]] = {}

    def keep(self, name: str) -> Callable[[bytes], None]:
        """Return a callback for serialised messages."""

        def hear(message: bytes) -> None:
            self._raw[name] = message

        return hear

    def read(self, name: str, kind: Any, what: Callable[[Any], Any], purpose: str = '') -> Any:
        """Return what the newest message says, worked out once for all who ask; None before the first.

        Args:
            name: what it was kept as.
            kind: type of the message.
            what: takes from a message what is wanted.
            purpose: tells what is wanted of one message for several reasons apart.
        """
        raw = self._raw.get(name)
        if raw is None:
            return None
        before = self._read.get((name, purpose))
        if before is None or before[0] is not raw:
            self._read[name, purpose] = before = raw, what(deserialize_message(raw, kind))
        return before[1]
