# SPDX-License-Identifier: Apache-2.0
"""Who may talk to the console: pages that it served itself, on this machine, or with the token.

A page of any other site runs in the same browser and can reach 127.0.0.1 too. What tells them apart is the `Origin`
header, which no script can forge, and the `Host` header, which shows a name that was made to point here.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
import hmac
from http.cookies import SimpleCookie
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = 'so101_token'
FORBIDDEN = 403
POLICY_VIOLATION = 1008
SHORTEST_TOKEN = 8


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
        if self.token and len(self.token) < SHORTEST_TOKEN:
            raise AccessError(
                f'expected a token of at least {SHORTEST_TOKEN} characters, got {len(self.token)}; take a longer one'
            )

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
            return f'this console serves this machine, not {name or "a request without a host"}'
        origin = headers.get('origin', '')
        if is_socket and not origin:
            return 'a browser says where its page comes from; this request does not'
        if origin and urlsplit(origin).netloc != host:
            return f'the page comes from {origin}, not from this console'
        if self.token and not self._knows_token(headers, query):
            return 'the token is missing or wrong; open the address that the console printed'
        return ''

    def _knows_token(self, headers: Mapping[str, str], query: str) -> bool:
        cookie = SimpleCookie()
        cookie.load(headers.get('cookie', ''))
        given = [
            *parse_qs(query).get('token', []),
            *(morsel.value for morsel in cookie.values() if morsel.key == COOKIE),
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
        cookie = f'{COOKIE}={self._access.token}; HttpOnly; SameSite=Strict; Path=/'.encode()

        async def send_with_cookie(message: MutableMapping[str, Any]) -> None:
            if message['type'] == 'http.response.start' and self._access.token:
                message = {**message, 'headers': [*message.get('headers', []), (b'set-cookie', cookie)]}
            await send(message)

        return send_with_cookie


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine and nobody else."""
    if host == 'localhost':
        return True
    try:
        return ip_address(host.strip('[]')).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """Return the host without its port."""
    return urlsplit(f'//{host}').hostname or ''


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {key.decode('latin-1').lower(): value.decode('latin-1') for key, value in raw}
