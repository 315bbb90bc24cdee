# SPDX-License-Identifier: Apache-2.0
"""One request and one answer at a time with a ZeroMQ server: the REQ side of ZMTP 3.0 without encryption (RFC 23).

    connection = Connection(Address.parse('tcp://127.0.0.1:5555'), timeout_s=2.0)
    answer = connection.ask(request, timeout_s=2.0)

It is spoken here, and not by libzmq, for two reasons. libzmq takes a message of many parts whole before it gives any,
however many come: its memory is the sender's to fill. And it says nothing of a server that is not there, hangs up, or
is another program: all of them are a time-out to it. A connection that has failed is closed, and a new one is made: so
an answer that comes after its time-out meets nobody.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import re
import socket
import time
from typing import Self

from so101_contract.errors import ContractError

GREETING = b'\xff' + bytes(7) + b'\x01\x7f' + bytes([3, 0]) + b'NULL'.ljust(20, b'\0') + bytes(32)
READY = b'\x05READY\x0bSocket-Type\x00\x00\x00\x03REQ\x08Identity\x00\x00\x00\x00'
_MORE, _LONG, _COMMAND = 1, 2, 4
_SIGNATURE = 10  # bytes; a server says the rest when it has ours
LARGEST_COMMAND = 1024
MOST_COMMANDS = 16
"""Commands that a server may say before its answer."""

_PIECE = 1 << 16


class ServerError(ContractError):
    """A server does what no policy server does; the sentence says what."""


class AbsentError(ServerError):
    """Nobody is there, or it has hung up."""


class LateError(ServerError):
    """Nothing came in time."""


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `tcp://HOST:PORT`.

        Raises:
            ServerError: it is none.
        """
        found = re.fullmatch(r'tcp://(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5})', text)
        if found is None or not 0 < int(found[2]) < 1 << 16:
            raise ServerError(
                f'expected a server as tcp://HOST:PORT, got {text[:80]!r}; GR00T listens at port 5555: '
                f'tcp://127.0.0.1:5555'
            )
        return cls(found[1].strip('[]'), int(found[2]))

    def __str__(self) -> str:
        """Return what `parse` takes."""
        return f'tcp://{f"[{self.host}]" if ":" in self.host else self.host}:{self.port}'


class Connection:
    """A connection to a REP socket; after an error it is closed and of no use any more."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        """Connect and shake hands.

        Raises:
            ServerError: nobody is there, or it speaks something else.
        """
        self.address = address
        self._until = time.monotonic() + timeout_s
        with self._trouble('accepted a connection'):
            self._socket = socket.create_connection((address.host, address.port), timeout_s)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._shake_hands()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def ask(self, request: bytes, *, timeout_s: float, largest: int) -> bytes:
        """Send a request and return the answer.

        Args:
            request: the single frame of it.
            timeout_s: for all of it.
            largest: bytes of an answer that are taken.

        Raises:
            ServerError: it did not come, is too large, or is no answer; the connection is closed.
        """
        self._until = time.monotonic() + timeout_s
        try:
            # An empty part ends the addresses of a request.
            self._send(b''.join((_head(_MORE, 0), _head(0, len(request)), request)))
            if self._message(largest=0, parts=True):
                raise self._strange('an answer that begins with an address')
            return self._message(largest)
        except BaseException:
            self.close()
            raise

    def _shake_hands(self) -> None:
        self._send(GREETING)
        with self._trouble('greeted'):
            greeting = self._receive(_SIGNATURE)
            if greeting[0] != 0xFF or greeting[-1] != 0x7F:
                raise self._strange(f'{bytes(greeting)!r}, which is another program')
            greeting += self._receive(len(GREETING) - _SIGNATURE)
        mechanism = bytes(greeting[12:32]).rstrip(b'\0')
        if greeting[10] < 3 or mechanism != b'NULL':
            raise self._strange(
                f'version {greeting[10]} with the security {mechanism!r}; GR00T has version 3 and NULL'
            )
        self._send(_head(_COMMAND, len(READY)) + READY)
        flags, ready = self._frame(LARGEST_COMMAND)
        if not flags & _COMMAND or not ready.startswith(b'\x05READY'):
            raise self._strange(f'{ready[:40]!r} instead of READY')
        kind = re.search(rb'\x0bSocket-Type\x00\x00\x00.([A-Z]{3,6})', ready)
        if kind is None or kind[1] not in (b'REP', b'ROUTER'):
            raise self._strange(f'a socket of type {kind[1]!r}' if kind else 'a socket of no type')

    def _message(self, largest: int, parts: bool = False) -> bytes:
        """Return the next part of an answer; commands in front of it are heeded as far as they must be."""
        for _ in range(MOST_COMMANDS):
            flags, body = self._frame(max(largest, LARGEST_COMMAND))
            if not flags & _COMMAND:
                if bool(flags & _MORE) is not parts:
                    raise self._strange(
                        'an answer of several parts' if not parts else 'an answer of one part'
                    )
                return body
            if body.startswith(b'\x04PING'):
                self._send(_head(_COMMAND, len(body) - 2) + b'\x04PONG' + body[7:])
        raise self._strange(f'{MOST_COMMANDS} commands and no answer')

    def _frame(self, largest: int) -> tuple[int, bytes]:
        with self._trouble('answered'):
            flags = self._receive(1)[0]
            if flags & ~(_MORE | _LONG | _COMMAND):
                raise self._strange(f'a frame with the flags {flags}')
            size = int.from_bytes(self._receive(8 if flags & _LONG else 1), 'big')
            if size > largest:
                raise self._strange(f'a frame of {size} bytes, of which at most {largest} are taken')
            return flags, bytes(self._receive(size))

    def _receive(self, size: int) -> bytearray:
        """Return so many bytes; what comes is never more than asked for."""
        data = bytearray()
        while len(data) < size:
            self._socket.settimeout(max(self._until - time.monotonic(), 1e-3))
            piece = self._socket.recv(min(size - len(data), _PIECE))
            if not piece:
                raise AbsentError(
                    f'expected an answer of {self.address}, got its end: the server hung up; start it again'
                )
            data += piece
            if time.monotonic() > self._until and len(data) < size:
                raise TimeoutError
        return data

    def _send(self, data: bytes) -> None:
        with self._trouble('took a request'):
            self._socket.settimeout(max(self._until - time.monotonic(), 1e-3))
            self._socket.sendall(data)

    @contextmanager
    def _trouble(self, what: str) -> Iterator[None]:
        """Say in a sentence what the system says."""
        try:
            yield
        except TimeoutError as error:
            raise LateError(
                f'expected that {self.address} {what} in time, and it has not; it is busy, stuck or far away'
            ) from error
        except OSError as error:
            raise AbsentError(
                f'expected that {self.address} {what}, got "{error.strerror or error}"; does the server run there, '
                f'and is the tunnel open?'
            ) from error

    def _strange(self, what: str) -> ServerError:
        return ServerError(f'expected a policy server at {self.address}, got {what}')


def _head(flags: int, size: int) -> bytes:
    """Return what stands before the bytes of a frame."""
    if size < 256:
        return bytes([flags, size])
    return bytes([flags | _LONG]) + size.to_bytes(8, 'big')
