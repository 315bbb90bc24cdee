# SPDX-License-Identifier: Apache-2.0
"""The server: GR00T's endpoints over ZeroMQ, for one of our actors.

It does what the genuine ones do, in the encoding that it is told, with two differences: it listens to this machine
alone unless told otherwise, and has no `kill`, which any client could call.
"""

from collections.abc import Callable
from dataclasses import dataclass
import logging
import time
from typing import Any

import zmq

from so101_contract.errors import ContractError
from vla_policy_node.client import CONFIGURATION, GET_ACTION, PING, RESET
from vla_policy_node.protocol import answer_of, Offer, seen_of
from vla_policy_node.serving.actors import Actor
from vla_policy_node.wire import decode, encode, LARGEST_REQUEST, Value, WireError

_log = logging.getLogger(__name__)

LOOK_MS = 200
"""How often it looks whether it is to end [ms]."""


@dataclass(frozen=True)
class Terms:
    """How a server answers.

    Attributes:
        offer: what it wants to see and says, and in which encoding.
        token: what a client has to give; empty: nothing.
        delay_s: how much later than it could it answers `get_action` [s].
    """

    offer: Offer
    token: str = ''
    delay_s: float = 0.0


class Answers:
    """From the bytes of a request to the bytes of an answer."""

    def __init__(self, actor: Actor, terms: Terms) -> None:
        self._actor, self._terms = actor, terms
        self.told = 0
        """Chunks that were told."""

    def answer(self, frame: bytes) -> bytes:
        """Return the answer; whatever is wrong with a request is its answer."""
        try:
            answer = self._answer(decode(frame, LARGEST_REQUEST))
        except ContractError as error:
            _log.warning('refused a request: %s', error)
            answer = {'error': str(error)}
        return encode(answer, self._terms.offer.encoding)

    def _answer(self, request: Value) -> Any:
        if not isinstance(request, dict):
            raise WireError(f'expected a request as a map, got {type(request).__name__}')
        if self._terms.token and request.get('api_token') != self._terms.token:
            return {'error': 'Unauthorized: Invalid API token'}
        endpoint = request.get('endpoint', GET_ACTION)
        if endpoint == PING:
            return {'status': 'ok', 'message': 'Server is running'}
        if endpoint == CONFIGURATION:
            return self._terms.offer.to_value()
        if endpoint == GET_ACTION:
            return self._act(request.get('data'))
        if endpoint == RESET and not self._terms.offer.encoding.is_flat:
            self._actor.reset()
            return {}
        return {'error': f'Unknown endpoint: {str(endpoint)[:40]}'}

    def _act(self, data: Value) -> Any:
        began_s = time.monotonic()
        targets = self._actor.targets(seen_of(data, self._terms.offer), began_s)
        time.sleep(max(0.0, began_s + self._terms.delay_s - time.monotonic()))
        self.told += 1
        return answer_of(targets, self._terms.offer)


def serve(answers: Answers, address: str, is_over: Callable[[], bool], ready: Callable[[str], None]) -> None:
    """Answer until it is over.

    Args:
        answers: what to answer.
        address: `tcp://HOST:PORT`, or with `*` as the port for a free one.
        is_over: asked five times a second.
        ready: told the address once it listens.

    Raises:
        ContractError: the address is taken, or none of this machine's.
    """
    context = zmq.Context()
    socket = context.socket(zmq.REP)
    try:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_REQUEST)
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise ContractError(
                f'expected a free port at {address}, got "{error.strerror}"; name another one: --port'
            ) from error
        ready(socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip('\0'))
        while not is_over():
            if socket.poll(LOOK_MS):
                parts = socket.recv_multipart()
                socket.send(answers.answer(parts[0] if len(parts) == 1 else b''))
    finally:
        socket.close()
        context.term()
