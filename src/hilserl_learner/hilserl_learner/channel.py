# SPDX-License-Identifier: Apache-2.0
"""Two processes talk: a JSON header and bytes each way, over a socket pair. When one dies the other one notices."""

from collections.abc import Mapping
import contextlib
import json
import select
import socket
import struct
import threading
from typing import Any, NamedTuple

from hilserl_learner.errors import LearnerError

_HEAD = struct.Struct('<II')
_MAX_BYTES = 2**30
_CHUNK = 2**20


class ChannelClosedError(LearnerError):
    """The other process is gone."""


class Letter(NamedTuple):
    """One message: what it says, and bytes that belong to it."""

    header: dict[str, Any]
    payload: bytes


class Channel:
    """One end. Any thread may send; one thread receives."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lock = threading.Lock()
        self._buffer = bytearray()

    @classmethod
    def pair(cls) -> tuple['Channel', socket.socket]:
        """Return this process's end, and the socket to hand to the other one."""
        mine, other = socket.socketpair()
        return cls(mine), other

    def send(self, header: Mapping[str, Any], payload: bytes = b'') -> None:
        """Send a message, waiting for room.

        Raises:
            ChannelClosedError: nobody is there to receive it.
        """
        text = json.dumps(header).encode()
        try:
            with self._lock:
                self._socket.sendall(_HEAD.pack(len(text), len(payload)) + text)
                if payload:
                    self._socket.sendall(payload)
        except OSError as error:
            raise _gone() from error

    def receive(self, timeout_s: float | None) -> list[Letter]:
        """Return the messages that have come, after waiting for the first one for some time at most.

        Args:
            timeout_s: how long [s]; None for as long as it takes.

        Raises:
            ChannelClosedError: the other end is closed and everything was received.
        """
        letters = self._take()
        while not letters:
            try:
                ready, _, _ = select.select([self._socket], [], [], timeout_s)
                if not ready:
                    return []
                data = self._socket.recv(_CHUNK)
            except (OSError, ValueError) as error:
                raise _gone() from error
            if not data:
                raise _gone()
            self._buffer += data
            letters = self._take()
            timeout_s = None if timeout_s is None else max(timeout_s, 0.001)
        return letters

    def close(self) -> None:
        """Close this end; the other one notices. A thread that waits here wakes up."""
        with contextlib.suppress(OSError):  # the other end is closed already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _take(self) -> list[Letter]:
        letters = []
        while len(self._buffer) >= _HEAD.size:
            text, payload = _HEAD.unpack_from(self._buffer)
            if max(text, payload) > _MAX_BYTES:
                raise ChannelClosedError(
                    f'expected messages up to {_MAX_BYTES} B, got one of {text + payload} B'
                )
            end = _HEAD.size + text + payload
            if len(self._buffer) < end:
                break
            header = json.loads(self._buffer[_HEAD.size : _HEAD.size + text])
            letters.append(Letter(header, bytes(self._buffer[_HEAD.size + text : end])))
            del self._buffer[:end]
        return letters


def _gone() -> ChannelClosedError:
    return ChannelClosedError('expected the other process at its end of the channel, got none; it has ended')
