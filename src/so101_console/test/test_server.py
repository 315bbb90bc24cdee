# SPDX-License-Identifier: Apache-2.0
"""The real server with its real rules, over real sockets, and in a real browser; only the robot is a list."""

import http.client
import json
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from so101_console.access import Access
from so101_console.operator_input import DriveError
from so101_console.server import application, Server, ServerError

TOKEN = 'correct-horse-battery'


class Robot:
    """A backend that remembers what it was asked for."""

    cameras = 1

    def __init__(self):
        self.asked, self.gone = [], []

    def arm_file(self):
        return b'\0\0\0\0'

    def state(self, page):
        return {'type': 'state', 'title': 'The policy drives', 'asked': len(self.asked)}

    def curves(self, since):
        return {'rows': [[1.0]] if since < 1 else [], 'from': since, 'until': 1, 'charts': []}

    def frame(self, newer_than, camera=0):
        return (1, b'jpeg') if newer_than < 1 else None

    def act(self, page, message):
        if 'do' not in message:
            raise DriveError('expected something to do; nothing was done')
        self.asked.append(message['do'])
        return ''

    def ask(self, what):
        self.asked.append(what)

    def closed(self, page):
        self.gone.append(page)

    def episodes(self):
        return {'rows': [], 'problems': []}

    def episode(self, key):
        return {'key': key, 'steps': []} if key == 'bag/1' else None

    def episode_frame(self, key, index, camera=0):
        return b'jpeg' if (key, index) == ('bag/1', 0) else None


@pytest.fixture
def robot():
    return Robot()


@pytest.fixture
def serve(robot):
    servers = []

    def start(token=''):
        server = Server(application(robot, Access('127.0.0.1', token), 0.02, 0.02), '127.0.0.1', 0)
        server.start(lambda: None)
        servers.append(server)
        return server.port

    yield start
    for server in servers:
        server.close()


def ask(port, path, method='GET', **headers):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=100)
    connection.request(
        method, path, headers={name.replace('_', '-'): value for name, value in headers.items()}
    )
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def live(port, query='', **options):
    options.setdefault('origin', f'http://127.0.0.1:{port}')
    return connect(f'ws://127.0.0.1:{port}/live{query}', **options)


def is_refused(port, query='', **options):
    try:
        with live(port, query, **options) as socket:
            socket.send('{"do": "take"}')
            socket.recv(timeout=200.0)
    except (InvalidStatus, ConnectionClosed):
        return True
    return False


def heard(socket, wanted, most=50):
    for _ in range(most):
        message = socket.recv(timeout=200.0)
        if isinstance(message, str) and wanted in message:
            return json.loads(message)
    return None


def test_the_page_and_its_parts_are_served(serve):
    port = serve()
    for path in ('/', '/page/console.js', '/page/console.css', '/arm'):
        answer, body = ask(port, path)
        assert answer.status == 200
        assert body


def test_every_answer_tells_the_browser_to_load_nothing_from_elsewhere(serve):
    answer, _ = ask(serve(), '/')
    assert "default-src 'self'" in answer.headers['content-security-policy']
    assert "frame-ancestors 'none'" in answer.headers['content-security-policy']


def test_a_file_outside_the_page_is_not_served(serve):
    assert ask(serve(), '/page/../server.py')[0].status == 404
    assert ask(serve(), '/page/%2e%2e/server.py')[0].status == 404


def test_a_page_hears_everything_once_and_then_what_has_changed(serve):
    with live(serve()) as socket:
        assert heard(socket, '"title"')['title'] == 'The policy drives'
        socket.send('{"do": "take"}')
        news = heard(socket, '"asked":1')
        assert 'title' not in news


@pytest.mark.parametrize('origin', ['http://evil.example', 'null', None])
def test_a_socket_from_another_origin_is_refused(serve, robot, origin):
    assert is_refused(serve(), origin=origin)
    assert robot.asked == []


@pytest.mark.parametrize('query', ['', '?token=', '?token=wrong-horse-battery'])
def test_a_missing_or_wrong_token_is_refused(serve, robot, query):
    port = serve(TOKEN)
    assert ask(port, f'/{query}')[0].status == 403
    assert is_refused(port, query)
    assert robot.asked == []


def test_the_token_opens_the_page_and_is_remembered_as_a_cookie(serve, robot):
    port = serve(TOKEN)
    answer, _ = ask(port, f'/?token={TOKEN}')
    assert answer.status == 200
    cookie = answer.headers['set-cookie']
    assert 'HttpOnly' in cookie
    assert 'SameSite=Strict' in cookie
    name = cookie.split(';')[0]
    with live(port, additional_headers={'Cookie': name}) as socket:
        socket.send('{"do": "success"}')
        assert heard(socket, '"asked":1')
    assert robot.asked == ['success']


@pytest.mark.parametrize(
    'garbled', ['', '{', '7', '[]', '{}', 'x' * 3000, '[' * 1500, b'\xff\x00'],
    ids=['empty', 'cut', 'number', 'list', 'nothing', 'long', 'deep', 'bytes'],
)  # fmt: skip
def test_a_garbled_message_is_answered_and_does_nothing(serve, robot, garbled):
    with live(serve()) as socket:
        socket.send(garbled)
        assert 'nothing was done' in heard(socket, '"note"')['text']
        socket.send('{"do": "success"}')
        assert heard(socket, '"asked":1'), 'the page goes on'
    assert robot.asked == ['success']


def test_a_stop_needs_no_socket_but_does_need_the_origin(serve, robot):
    port = serve()
    assert ask(port, '/stop', 'POST', Origin='http://evil.example')[0].status == 403
    assert robot.asked == []
    assert ask(port, '/stop', 'POST', Origin=f'http://127.0.0.1:{port}')[0].status == 202
    assert robot.asked == ['e_stop']


@pytest.mark.parametrize('what', ['state', 'frame', 'curves'])
def test_a_page_that_can_be_told_nothing_more_is_sent_away_and_asks_again(serve, robot, what):
    port, told = serve(), getattr(robot, what)
    with live(port) as socket:
        heard(socket, '"title"')
        setattr(robot, what, lambda _: {}['no such state'])
        with pytest.raises(ConnectionClosed) as closed:
            heard(socket, 'nothing that comes', most=100_000)
    assert closed.value.rcvd.code == 1013
    setattr(robot, what, told)
    with live(port) as socket:
        assert heard(socket, '"title"')


def test_a_page_that_goes_is_noticed(serve, robot):
    with live(serve()) as socket:
        heard(socket, '"title"')
        assert robot.gone == []
    deadline = time.monotonic() + 10.0
    while not robot.gone and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(robot.gone) == 1


def test_episodes_and_pictures_that_do_not_exist_are_404(serve):
    port = serve()
    assert json.loads(ask(port, '/episodes')[1]) == {'rows': [], 'problems': []}
    assert ask(port, '/episode?key=bag/1')[0].status == 200
    assert ask(port, '/episode?key=../../etc/passwd')[0].status == 404
    assert ask(port, '/episode_frame?key=bag/1&index=0')[1] == b'jpeg'
    assert ask(port, '/episode_frame?key=bag/1&index=9')[0].status == 404
    for odd in ('-1', '9' * 5000, '', 'x'):
        assert ask(port, f'/episode_frame?key=bag/1&index={odd}')[0].status == 400


def test_a_port_in_use_is_said_in_a_sentence(serve):
    port = serve()
    with pytest.raises(ServerError, match='end the other console'):
        Server(application(Robot(), Access('127.0.0.1'), 1.0, 0.0), '127.0.0.1', port)


# --- in a real browser ---

NEVER_S = 1000.0
WHOLE = {
    'title': 'The policy drives',
    'detail': 'episode 1, step 2',
    'drives': 'policy',
    'arm': 'ready',
    'camera': {'age': 0.1, 'fps': 20},
    'bus': 'Bus: all is well',
}


def shows(page, selector, words):
    page.locator(selector, has_text=words).wait_for(timeout=200_000)


class Odd(Robot):
    """A console that says what it is told to say."""

    def __init__(self):
        super().__init__()
        self.said, self.pages = dict(WHOLE), set()

    def state(self, page):
        self.pages.add(page)
        return {'type': 'state', **self.said}

    def curves(self, since):
        return {'rows': []}


@pytest.fixture
def odd():
    return Odd()


@pytest.fixture
def show(odd, chromium):
    opened = []

    def start(period_s):
        server = Server(application(odd, Access('127.0.0.1'), period_s, 0.0), '127.0.0.1', 0)
        server.start(lambda: None)
        page = chromium.new_page()
        opened.append((server, page))
        page.goto(f'http://127.0.0.1:{server.port}/')
        shows(page, '#state', 'The policy drives')
        return page

    yield start
    for server, page in opened:
        page.close()
        server.close()


def test_a_page_that_hears_nothing_more_asks_again_although_its_socket_is_open(show, odd, wait_until):
    show(NEVER_S)
    wait_until(lambda: len(odd.pages) >= 3, 'the page has connected again, twice')


@pytest.mark.parametrize('value', ['text', 7, None, [], {'a': 1}, [[None]]], ids=str)
def test_a_value_of_another_type_than_expected_leaves_the_rest_of_the_page_alive(
    show, odd, value, wait_until
):
    page = show(0.05)
    keys = [
        'servos',
        'checks',
        'coach',
        'curves',
        'episodes',
        'note',
        'poses',
        'tcp',
        'target',
        'box',
        'camera',
        'detail',
        *('drawn', 'scores', 'seen', 'objects', 'planned', 'help', 'progress'),
    ]
    odd.said = {**WHOLE, **dict.fromkeys(keys, value), 'bus': 'Bus: lives'}
    shows(page, '#bus', 'Bus: lives')
    odd.said = {**WHOLE, 'title': 'All is well again'}
    shows(page, '#state', 'All is well again')
    page.click('#e-stop')
    shows(page, '#camera-said', '100 ms old')
    wait_until(lambda: 'e_stop' in odd.asked, 'the stop has come')
