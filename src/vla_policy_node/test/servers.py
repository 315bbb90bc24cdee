# SPDX-License-Identifier: Apache-2.0
"""Servers on real sockets: one that answers by a function, over ZeroMQ, and one that does as it likes with TCP."""

import contextlib
import socket
import threading

import zmq

from vla_policy_node.protocol import answer_of, Offer
from vla_policy_node.wire import decode, encode, Encoding, LARGEST_REQUEST

GREETING = b'\xff' + bytes(7) + b'\x01\x7f' + bytes([3, 0]) + b'NULL'.ljust(20, b'\0') + bytes(32)
READY = b'\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03REP'


class ZmqServer:
    """Answers each request by `reply(bytes) -> bytes or None` (no answer); enter it to start.

    Attributes:
        requests: as they came.
    """

    def __init__(self, reply, port=0):
        self.reply, self.port, self.requests = reply, port, []
        self._over = threading.Event()

    def __enter__(self):
        context = self._context = zmq.Context()
        self._socket = context.socket(zmq.ROUTER)  # a REP socket could not leave a request unanswered
        self._socket.setsockopt(zmq.LINGER, 0)
        if self.port:
            self._socket.bind(f'tcp://127.0.0.1:{self.port}')
        else:
            self.port = self._socket.bind_to_random_port('tcp://127.0.0.1')
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(20.0)
        self._socket.close()
        self._context.term()

    @property
    def address(self):
        return f'tcp://127.0.0.1:{self.port}'

    def _run(self):
        while not self._over.is_set():
            if self._socket.poll(20):
                peer, empty, request = self._socket.recv_multipart()
                self.requests.append(request)
                answer = self.reply(request)
                if answer is not None:
                    self._socket.send_multipart([peer, empty, answer])


class TcpServer:
    """Lets `behave(connection)` do what it likes with each connection."""

    def __init__(self, behave):
        self._behave = behave
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.address = f'tcp://127.0.0.1:{self._listener.getsockname()[1]}'
        self._threads = []

    def __enter__(self):
        self._listener.settimeout(0.05)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(20.0)
        self._listener.close()

    def _run(self):
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, contextlib.suppress(OSError):
            self._behave(connection)


def shake_hands(connection):
    """Do a server's half of the greeting, and take the client's."""
    connection.sendall(GREETING + READY)
    left = len(GREETING) + 2 + 38  # of the client: greeting, head and body of READY
    while left:
        left -= len(connection.recv(left))


def after_request(*answer):
    """Return a behaviour: a proper greeting, a request, and then these pieces of bytes as they are."""

    def behave(connection):
        shake_hands(connection)
        connection.recv(1 << 16)
        for piece in answer:
            connection.sendall(piece)
        while connection.recv(1 << 16):  # until the client hangs up
            pass

    return behave


class Policy:
    """A policy in a few lines: what it answers to `get_action` may be exchanged at any time.

    Attributes:
        seen: data of the requests for actions.
        resets: how often it was told of a new episode.
    """

    def __init__(self, targets, encoding=Encoding.N16, offer=None):
        self.offer = offer or Offer(encoding, ('front',), 16)
        self.targets, self.seen, self.resets = targets, [], 0
        self.answer = None

    def __call__(self, request):
        said = decode(request, LARGEST_REQUEST)
        endpoint, encoding = said['endpoint'], self.offer.encoding
        if endpoint == 'get_modality_config':
            return encode(self.offer.to_value(), encoding)
        if endpoint == 'reset':
            self.resets += 1
            return encode({}, encoding)
        self.seen.append(said['data'])
        if self.answer is not None:
            return self.answer(self.seen[-1])
        return encode(answer_of(self.targets(self.seen[-1]), self.offer), encoding)
