# SPDX-License-Identifier: Apache-2.0
"""Who may talk to the console: pages that it served itself, on this machine, or with the token.

A page of any other site runs in the same browser and can reach 127.0.0.1 too. What tells them apart is the `Origin`
header, which no script can forge, and the `Host` header, which shows a name that was made to point here.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
import hashlib
import hmac
from ipaddress import ip_address
import re
import socket
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = 'so101_token'
TOKEN_VARIABLE = 'SO101_CONSOLE_TOKEN'
FORBIDDEN = 403
POLICY_VIOLATION = 1008
SHORTEST_TOKEN, LONGEST_TOKEN = 8, 200
_TOKEN = re.compile(r'[A-Za-z0-9._~-]*')
"""What stands for itself in an address (RFC 3986, 2.3) and in a cookie (RFC 6265, 4.1.1)."""


class AccessError(ValueError):
    """The console would be open to others without a token."""


@dataclass(frozen=True)
class Access:
    """The rule.

    Attributes:
        host: Address that is served on.
        token: Secret; empty: none is asked for.
    """

    host: str
    token: str = ''

    def __post_init__(self) -> None:
        """Refuse to serve others without a secret."""
        if not is_loopback(self.host) and not self.token:
            raise AccessError(
                f'expected a token to serve on {self.host}, where others can reach the arm, got none; '
                f'set SO101_CONSOLE_TOKEN, or serve on 127.0.0.1'
            )
        if self.token and not SHORTEST_TOKEN <= len(self.token) <= LONGEST_TOKEN:
            raise AccessError(
                f'expected a token of {SHORTEST_TOKEN} to {LONGEST_TOKEN} characters, got {len(self.token)}; '
                f'take another one'
            )
        if not _TOKEN.fullmatch(self.token):
            raise AccessError(
                'expected a token of letters, digits and . _ ~ - alone, got other characters, which an address or a '
                'cookie would change; take another one'
            )

    @property
    def cookie(self) -> str:
        """Name of the cookie: browsers give those of one console to all others of that machine, whatever the port."""
        return f'{COOKIE}_{hashlib.sha256(self.token.encode()).hexdigest()[:8]}'

    def refusal(self, headers: Mapping[str, str], query: str, *, is_socket: bool) -> str:
        """Return why a request is refused, in a sentence, or an empty string.

        Args:
            headers: By lower-case name.
            query: Query string of the address.
            is_socket: Whether it opens a WebSocket, over which an arm can be moved.
        """
        host = headers.get('host', '')
        name = _name(host)
        if is_loopback(self.host) and not is_loopback(name):
            return f'this console serves this machine, not {name[:100] or "a request without a host"}'
        origin = headers.get('origin', '')
        if is_socket and not origin:
            return 'a browser says where its page comes from; this request does not'
        if origin and _netloc(origin) != host:
            return f'the page comes from {origin[:100]}, not from this console'
        if self.token and not self._knows_token(headers, query):
            return 'the token is missing or wrong; open the address that the console printed'
        return ''

    def _knows_token(self, headers: Mapping[str, str], query: str) -> bool:
        # By hand: one cookie of another program that is none would hide all that follow from `http.cookies`.
        pairs = (pair.strip().partition('=') for pair in headers.get('cookie', '').split(';'))
        given = [
            *parse_qs(query).get('token', []),
            *(value.strip('"') for name, _, value in pairs if name in (COOKIE, self.cookie)),
        ]
        return any(hmac.compare_digest(word.encode(), self.token.encode()) for word in given)


class AccessMiddleware:
    """Answers 403, or closes a WebSocket, before the application hears of a request that is refused."""

    def __init__(self, app: App, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed; remember a right token as a cookie that no script can read."""
        if scope['type'] not in ('http', 'websocket'):
            await self._app(scope, receive, send)
            return
        headers = _headers(scope['headers'])
        query = scope.get('query_string', b'').decode('latin-1')
        reason = self._access.refusal(headers, query, is_socket=scope['type'] == 'websocket')
        if not reason:
            await self._app(scope, receive, self._with_cookie(send) if parse_qs(query).get('token') else send)
        elif scope['type'] == 'websocket':
            await receive()
            await send({'type': 'websocket.close', 'code': POLICY_VIOLATION, 'reason': reason[:120]})
        else:
            body = f'Refused: {reason}.\n'.encode()
            kind = (b'content-type', b'text/plain; charset=utf-8')
            await send({'type': 'http.response.start', 'status': FORBIDDEN, 'headers': [kind]})
            await send({'type': 'http.response.body', 'body': body})

    def _with_cookie(self, send: Send) -> Send:
        access = self._access
        cookie = f'{access.cookie}={access.token}; HttpOnly; SameSite=Strict; Path=/'.encode()

        async def send_with_cookie(message: MutableMapping[str, Any]) -> None:
            if message['type'] == 'http.response.start' and access.token:
                message = {**message, 'headers': [*message.get('headers', []), (b'set-cookie', cookie)]}
            await send(message)

        return send_with_cookie


def own_cookies(line: bytes) -> bytes:
    """Return what a browser says of cookies without those of other programs."""
    return b'; '.join(pair for pair in line.split(b';') if pair.strip().startswith(COOKIE.encode()))


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine and nobody else."""
    if host == 'localhost':
        return True
    try:
        return ip_address(host.strip('[]')).is_loopback
    except ValueError:
        return False


NOWHERE = '192.0.2.1'
"""An address of nobody (RFC 5737): a socket that is meant for it tells which of ours the network knows."""


def near_address(host: str) -> str:
    """Return the address by which others reach what is served on `host`, as an address of a page has it."""
    if host not in ('0.0.0.0', '::'):
        return f'[{host}]' if ':' in host else host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((NOWHERE, 9))  # nothing is sent
            return str(probe.getsockname()[0])
        except OSError:  # no network at all
            return socket.gethostname()


def _name(host: str) -> str:
    """Return the host without its port."""
    try:
        return urlsplit(f'//{host}').hostname or ''
    except ValueError:  # brackets that do not close
        return ''


def _netloc(origin: str) -> str:
    """Return host and port of an origin."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ''


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {key.decode('latin-1').lower(): value.decode('latin-1') for key, value in raw}
