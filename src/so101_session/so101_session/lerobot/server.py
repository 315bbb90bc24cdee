# SPDX-License-Identifier: Apache-2.0
"""The socket that LeRobot's programs connect to: a thread for each guest, and few of them."""

from collections.abc import Callable
import contextlib
import logging
import os
from pathlib import Path
import socket
import socketserver
import struct
import threading
from typing import Any, Protocol

from so101_session.lerobot import wire

MOST_GUESTS = 8
"""A program has a robot and a teleoperator; a second one is to be told that it is one too many."""

_log = logging.getLogger('lerobot')


class Guest(Protocol):
    """Somebody who asks."""

    def answer(self, request: wire.Json) -> tuple[wire.Json, wire.Pictures]:
        """Carry out a request.

        Raises:
            RefusedError: it is not carried out.
        """

    def leave(self) -> None:
        """Nothing more comes."""


class Listener(socketserver.ThreadingUnixStreamServer):
    """A thread for each connection, none of which outlives the process."""

    daemon_threads = True
    request_queue_size = 4 * MOST_GUESTS


class Server:
    """Answers guests until it is closed.

    Args:
        path: of the socket; only this user may open it.
        enter: makes a guest of a new connection.

    Raises:
        OSError: there can be no socket at that path.
    """

    def __init__(self, path: Path, enter: Callable[[], Guest]) -> None:
        seats = threading.BoundedSemaphore(MOST_GUESTS)
        open_sockets = self._open = set[socket.socket]()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                if not is_own(self.request) or not seats.acquire(blocking=False):
                    return
                open_sockets.add(self.request)
                guest = enter()
                try:
                    serve(self.request, guest)
                finally:
                    guest.leave()
                    open_sockets.discard(self.request)
                    seats.release()

        wire.prepare(path)
        self._path = path
        before = os.umask(0o177)
        try:
            self._server = Listener(str(path), Handler)
        finally:
            os.umask(before)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hang up on everybody."""
        self._server.shutdown()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._path.unlink(missing_ok=True)


def serve(sock: socket.socket, guest: Guest) -> None:
    """Answer one guest until it hangs up, stalls, or says what cannot be read on."""
    try:
        while (request := wire.read_request(sock)) is not None:
            pictures: wire.Pictures = {}
            try:
                answer, pictures = guest.answer(request)
            except wire.RefusedError as error:
                answer = refusal(error)
            wire.write_answer(sock, answer, pictures)
    except wire.RefusedError as error:
        with contextlib.suppress(OSError):
            wire.write_answer(sock, refusal(error), {})
    except OSError as error:
        _log.warning('a guest is gone: %s', error)


def refusal(error: wire.RefusedError) -> dict[str, Any]:
    """Return the answer to a request that is not carried out."""
    return {'error': str(error), 'kind': str(error.kind)}


def is_own(sock: socket.socket) -> bool:
    """Whether it is this user, or root, at the other end: the socket's file says so too, where it is honoured."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize('3i'))
    _, uid, _ = struct.unpack('3i', credentials)
    return uid in (0, os.getuid())
