# SPDX-License-Identifier: Apache-2.0
"""Whatever comes in over the wire: the real server, raw sockets, and a page that goes on."""

import json
import logging
import os
import random
import socket

import pytest
from test_server import ask, heard, is_refused, live, Robot, TOKEN
from websockets.exceptions import ConnectionClosed

from so101_console import connections, server
from so101_console.access import Access
from so101_console.server import application, Server

MORE = os.environ.get('SO101_HOSTILE')
REQUESTS, BURSTS = int(MORE or 350), int(MORE or 150)
"""So many odd requests and bursts of frames; SO101_HOSTILE=500 asks for more than a run of all tests has time for."""

PATHS = (
    '/',
    '/arm',
    '/controls',
    '/episodes',
    '/episode',
    '/episode_frame',
    '/stop',
    '/page/console.js',
    '/live',
)
ODD = (
    *(
        '',
        '[',
        '[::1',
        'http://[',
        'null',
        '-1',
        '%00',
        '%',
        '%ff%fe',
        '..%2f..%2fetc',
        '٣',
        '²',
        '1e9',
        'a=b; c',
    ),
    *(
        '9' * 5000,
        'x' * 10_000,
        '"',
        '\x7f',
        '\\',
        '=;=;=',
        'bytes=',
        'bytes=9-1',
        f'bytes={"9" * 5000}-',
        'é',
    ),
    *(
        'bytes=²-',
        'bytes=0-0,' * 300,
        'Sun, 99 Foo 99999 99:99:99 GMT',
        'chunked',
        'gzip, chunked',
        '100-continue',
    ),
)
HEADERS = (
    *(
        'Cookie',
        'Origin',
        'Host',
        'Range',
        'If-Range',
        'If-Modified-Since',
        'If-None-Match',
        'Content-Length',
    ),
    *('Transfer-Encoding', 'Expect', 'Upgrade', 'Connection', 'Sec-WebSocket-Key', 'Sec-WebSocket-Version'),
    *(
        'Sec-WebSocket-Extensions',
        'Sec-WebSocket-Protocol',
        'Content-Type',
        'Accept',
        'X-Forwarded-For',
        'Odd name',
    ),
)
CONTENTS = (
    *(
        b'',
        b'\xff\xfe',
        b'{',
        b'{"do": 7}',
        b'{"do": "drive", "axes": [1e999, 0, 0]}',
        b'[' * 1999,
        b'x' * 9000,
    ),
    *(b'{"do": "drive", "axes": [NaN, [], {}]}', b'{"do": null}', b'\x03\xe8', b'\xff\xff', b'9' * 5000),
)
METHODS = ('GET', 'GET', 'POST', 'HEAD', 'OPTIONS', 'PUT', 'CONNECT', 'B@D', '')


class Told(logging.Handler):
    """Keeps what is told with a traceback."""

    def __init__(self):
        super().__init__()
        self.tracebacks = []

    def emit(self, record):
        if record.exc_info:
            self.tracebacks.append(record.exc_info[1])


@pytest.fixture
def told():
    kept = Told()
    names = ('', 'uvicorn.error', 'asyncio')
    for name in names:
        logging.getLogger(name).addHandler(kept)
    yield kept
    for name in names:
        logging.getLogger(name).removeHandler(kept)


@pytest.fixture
def serve(told):
    servers = []

    def start(token=''):
        made = Server(application(Robot(), Access('127.0.0.1', token), 0.05, 0.0), '127.0.0.1', 0)
        made.start(lambda: None)
        servers.append(made)
        return made.port

    yield start
    for made in servers:
        made.close()
    assert told.tracebacks == []


def raw(port, data):
    """Send bytes and nothing more; return what comes until the server closes."""
    with socket.create_connection(('127.0.0.1', port), timeout=100.0) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            found = b''
            while piece := connection.recv(65536):
                found += piece
        except ConnectionError:
            return b''
    return found


def request(rng, port, token):
    """Make a request with up to three odd things in it."""
    query = rng.choice(
        ('', '?', f'?token={token}', f'?key={rng.choice(ODD)}&index={rng.choice(ODD)}&token={token}')
    )
    head = [
        f'{rng.choice(METHODS)} {rng.choice(PATHS)}{rng.choice(("", "", "/", "/%00", "/" + rng.choice(ODD)))}{query}'
    ]
    lines = {'Host': f'127.0.0.1:{port}', 'Origin': f'http://127.0.0.1:{port}', 'Connection': 'close'}
    for _ in range(rng.randrange(4)):
        lines[rng.choice(HEADERS)] = rng.choice(ODD)
    text = f'{head[0]} HTTP/1.{rng.choice("1111109")}\r\n'
    text += ''.join(f'{name}: {value}\r\n' for name, value in lines.items()) + '\r\n'
    data = text.encode('utf-8', errors='replace') + rng.choice((b'', b'', b'{"do": "take"}', b'\0' * 5000))
    return data[: rng.randrange(len(data))] if rng.random() < 0.1 else data


def test_no_request_makes_the_server_fail(serve):
    port = serve(TOKEN)
    rng = random.Random(0)
    answers = [raw(port, request(rng, port, TOKEN)) for _ in range(REQUESTS)]
    codes = [int(answer[9:12]) for answer in answers if answer.startswith(b'HTTP/')]
    assert len(codes) > REQUESTS // 2
    assert max(codes) < 500
    assert ask(port, f'/?token={TOKEN}')[0].status == 200


def hello(port):
    lines = [
        f'GET /live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}',
        'Upgrade: websocket',
    ]
    lines += [
        'Connection: Upgrade',
        'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
        'Sec-WebSocket-Version: 13',
        '',
        '',
    ]
    return '\r\n'.join(lines).encode()


def frames(rng):
    """Make what no browser sends: a frame of any kind, cut, mad or huge."""
    content, mask = rng.choice(CONTENTS), rng.randbytes(4)
    head = bytes([rng.choice((0x80, 0x80, 0)) | rng.choice((0, 1, 1, 2, 3, 8, 9, 10, 15))])
    masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(content))
    if rng.random() < 0.1:
        head, masked = head + bytes([len(content) & 127]), content  # as no client may
    elif len(content) < 126:
        head += bytes([0x80 | len(content)]) + mask
    else:
        head += bytes([0xFE]) + len(content).to_bytes(2, 'big') + mask
    data = bytearray(head + masked)
    if rng.random() < 0.3:
        data[rng.randrange(min(len(data), 8))] ^= 1 << rng.randrange(8)
    return bytes(data)


def test_no_frame_makes_a_page_of_another_fail(serve):
    port = serve()
    rng = random.Random(1)
    with live(port) as other:
        assert heard(other, '"title"')
        for _ in range(BURSTS):
            answer = raw(port, hello(port) + b''.join(frames(rng) for _ in range(rng.randrange(1, 4))))
            assert answer.startswith(b'HTTP/1.1 101') or not answer
        other.send('{"do": "success"}')
        assert heard(other, '"asked"', most=100_000)


@pytest.mark.parametrize(
    'half',
    [
        b'',
        b'GET / HTTP/1.1\r\nHost: 127',
        b'POST /stop HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\nx',
        b'GET /controls HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n' * 2,
    ],
    ids=['nothing', 'half', 'body', 'kept'],
)
def test_half_a_request_ends_by_itself(serve, monkeypatch, half):
    monkeypatch.setattr(connections.BoundedProtocol, 'whole_request_s', 0.2)
    port = serve()
    with socket.create_connection(('127.0.0.1', port), timeout=100.0) as connection:
        connection.sendall(half)
        try:
            while connection.recv(65536):
                pass
        except ConnectionError:
            pass  # it is over, one way or the other
    with live(port) as page:  # whoever has a page keeps it
        for _ in range(10):
            assert heard(page, '"state"')


def test_so_many_connections_leave_a_place_for_the_operator(serve, monkeypatch):
    monkeypatch.setattr(connections, 'MOST', 10)
    port = serve()
    with live(port) as page:
        idle = [socket.create_connection(('127.0.0.1', port), timeout=100.0) for _ in range(40)]
        assert ask(port, '/')[0].status == 200
        assert heard(page, '"title"')
        assert all(gone(connection) for connection in idle[:20])
        for connection in idle:
            connection.close()


def gone(connection):
    try:
        return connection.recv(1) == b''
    except ConnectionError:
        return True


def test_one_page_too_many_is_sent_away_and_the_others_stay(serve, monkeypatch):
    monkeypatch.setattr(server, 'MOST_PAGES', 2)
    port = serve()
    with live(port) as one, live(port) as two:
        assert heard(one, '"title"')
        assert heard(two, '"title"')
        assert is_refused(port)
        one.send(json.dumps({'do': 'success'}))
        assert heard(two, '"asked":1', most=1000)


def test_who_never_reads_is_left_by_the_kernel(serve):
    made = Server(application(Robot(), Access('127.0.0.1'), 1.0, 0.0), '127.0.0.1', 0)
    try:
        option = made._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert option == connections.UNREAD_S * 1000
    finally:
        made.close()


def test_a_cookie_of_another_program_locks_nobody_out(serve):
    port = serve(TOKEN)
    cookie = ask(port, f'/?token={TOKEN}')[0].headers['set-cookie'].split(';')[0]
    for foreign in ('a[]=1', '{"x": 1}', 'so101_token=of-another-arm', '"', '=', 'é=é', 'x=' + 'y' * 10_000):
        both = f'{foreign}; {cookie}'
        assert ask(port, '/', Cookie=both.encode())[0].status == 200
        try:
            with live(port, additional_headers={'Cookie': both}) as page:
                assert heard(page, '"title"')
        except ConnectionClosed as error:
            raise AssertionError(foreign) from error
