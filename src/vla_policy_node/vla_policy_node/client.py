# SPDX-License-Identifier: Apache-2.0
"""A policy server as its client sees it: asked what it is, asked for chunks, told of a new episode.

    server = PolicyServer('tcp://127.0.0.1:5555', timeout_s=2.0)
    server.greet()               # what it wants to see, and in which encoding
    server.targets(seen)         # (n, 6) in its own units

Every call blocks for the time-out at most, so it belongs into a thread of its own (`worker`). After any error the
connection is given up and the next call makes a new one: a server that was killed and started again is found again.
"""

from typing import Any

from vla_policy_node.protocol import FloatArray, LONGEST_TEXT, Offer, request_of, Seen, targets_of
from vla_policy_node.wire import decode, encode, Encoding, LARGEST_REPLY, Value, WireError
from vla_policy_node.zmtp import Address, Connection, ServerError

PING, CONFIGURATION, GET_ACTION, RESET = 'ping', 'get_modality_config', 'get_action', 'reset'


class RefusalError(ServerError):
    """A server answers with an error of its own."""


class PolicyServer:
    """One server; for one thread."""

    def __init__(self, address: str, *, token: str = '', timeout_s: float = 2.0) -> None:
        """Prepare; nothing is sent yet.

        Args:
            address: `tcp://HOST:PORT`.
            token: what it is given as `api_token`; empty: none.
            timeout_s: how long an answer may take [s].

        Raises:
            ServerError: the address is none.
        """
        self.address = Address.parse(address)
        self.offer: Offer | None = None
        self._token, self._timeout_s = token, timeout_s
        self._connection: Connection | None = None

    def greet(self) -> Offer:
        """Ask for the configuration, and find the encoding out by it: it holds no arrays, so any server can say it.

        Raises:
            ServerError: nobody is there, it is no policy server, or one for another robot.
            WireError: it speaks none of the encodings; `PickleError` where it speaks pickle.
        """
        self.offer = None
        self.offer = Offer.from_value(self._ask(CONFIGURATION, None, Encoding.N16))
        return self.offer

    def targets(self, seen: Seen) -> FloatArray:
        """Return a chunk of targets (n, 6) in the server's units, for what is seen now.

        Raises:
            ServerError: there is none, or none that can be used.
            WireError: what came is no message.
        """
        offer = self._known()
        return targets_of(self._ask(GET_ACTION, request_of(seen, offer), offer.encoding), offer)

    def reset(self) -> None:
        """Tell the server that another episode begins; N1.5 does not want to know.

        Raises:
            ServerError: it does not answer.
            WireError: what came is no message.
        """
        offer = self._known()
        if not offer.encoding.is_flat:
            self._ask(RESET, {'options': None}, offer.encoding)

    def close(self) -> None:
        """Hang up; the next call connects anew."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _known(self) -> Offer:
        return self.greet() if self.offer is None else self.offer

    def _ask(self, endpoint: str, data: Any, encoding: Encoding) -> Value:
        request = {'endpoint': endpoint}
        request |= {} if data is None else {'data': data}
        request |= {'api_token': self._token} if self._token else {}
        try:
            if self._connection is None:
                self._connection = Connection(self.address, self._timeout_s)
            frame = self._connection.ask(
                encode(request, encoding), timeout_s=self._timeout_s, largest=LARGEST_REPLY
            )
            answer = decode(frame)
        except (ServerError, WireError):
            self.close()
            self.offer = None  # another one may answer next time
            raise
        if isinstance(answer, dict) and 'error' in answer:
            raise RefusalError(self._sentence(endpoint, str(answer['error'])))
        return answer

    def _sentence(self, endpoint: str, said: str) -> str:
        told = ' '.join(said[:LONGEST_TEXT].split())
        remedy = (
            'give it the token that the server was started with' if 'nauthorized' in said else 'see its log'
        )
        return f'expected {self.address} to answer {endpoint}, got its error "{told}"; {remedy}'
