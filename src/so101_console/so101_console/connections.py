# SPDX-License-Identifier: Apache-2.0
"""How many connections the console has, and how long one may keep it waiting.

Whoever can open a socket can open many, send half a request, or never read an answer. Such a connection ends after a
while by itself, and before that where others need its place, so that the operator's page always finds one.
"""

import asyncio
import socket
from typing import Any

from h11 import LocalProtocolError
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from so101_console.access import own_cookies

MOST = 100
"""Connections at a time; a page has one for its socket, and up to six that come and go."""
MOST_PAGES = 16
"""Pages at a time: each is told everything, many times a second."""
WHOLE_REQUEST_S = 10.0
"""How long a request may take to arrive as a whole [s]."""
UNREAD_S = 20.0
"""How long an answer may lie unread before its connection ends [s]."""


class BoundedProtocol(H11Protocol):
    """Uvicorn's side of a connection, which ends without a whole request, and of which there are not too many."""

    whole_request_s = WHOLE_REQUEST_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, where there is a place."""
        there = [one for one in self.connections if not one.transport.is_closing()]
        if len(there) >= MOST:
            waiting = [one for one in there if isinstance(one, BoundedProtocol) and one.waits]
            if not waiting:
                transport.abort()
                return
            min(waiting, key=lambda one: one.since_s).transport.abort()
        super().connection_made(transport)
        self.since_s = self.loop.time()
        self._answers = self._seen = 0
        self._watch = self.loop.call_later(self.whole_request_s, self._look)

    @property
    def waits(self) -> bool:
        """Whether there is no whole request that is being answered."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def data_received(self, data: bytes) -> None:
        """Read a piece; garbage behind a whole request ends the connection."""
        try:
            super().data_received(data)
        except LocalProtocolError:
            self.transport.abort()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Become a WebSocket; of its cookies the console's own go with it, since others may be longer than a line."""
        self.headers = [
            (name, own_cookies(value) if name == b'cookie' else value) for name, value in self.headers
        ]
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """Count the answers."""
        self._answers += 1
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self.transport is not None:
            self._watch.cancel()
            super().connection_lost(exc)

    def _look(self) -> None:
        """End a connection that has brought no whole request since the last look."""
        if self.transport.is_closing() or self.transport.get_protocol() is not self:  # closed, or a WebSocket
            return
        if self.waits and self._answers == self._seen:
            self.transport.abort()
            return
        self._seen = self._answers
        self._watch = self.loop.call_later(self.whole_request_s, self._look)


class BoundedSocket(WebSocketsSansIOProtocol):
    """Uvicorn's side of a WebSocket, which ends where what came was no handshake, and takes any text for text."""

    def data_received(self, data: bytes) -> None:
        """Read a piece; the first one is the whole request."""
        super().data_received(data)
        if not self.handshake_initiated:
            self.transport.abort()

    def send_receive_event_to_app(self) -> None:
        """Hand on a message; a text that is none is told as bytes, with which nothing is done."""
        try:
            b''.join(self.frames).decode()
        except UnicodeDecodeError:
            self.curr_msg_data_type = 'bytes'
        super().send_receive_event_to_app()


def bound_unread(listening: socket.socket) -> None:
    """Let the kernel end what nobody reads any more: connections inherit this from the socket that listens."""
    option: Any = getattr(socket, 'TCP_USER_TIMEOUT', None)
    if option is not None:  # Linux
        listening.setsockopt(socket.IPPROTO_TCP, option, int(UNREAD_S * 1000))
