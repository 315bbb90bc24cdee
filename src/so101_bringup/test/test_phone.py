# SPDX-License-Identifier: Apache-2.0
"""phone:=true: the code in the terminal and on the page, read again as a phone does, opens a page that is real."""

import http.client
import os
import re
import signal
import subprocess
import sys
import time
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')

from so101_bringup.options import OptionError, parse_options
from so101_bringup.terminal.phone import code_lines, HALVES, phone_environment, PhoneCode
from so101_console.access import TOKEN_VARIABLE

PATIENCE_S = 300.0
PIXELS = 6


def read(lines):
    """Return what a reader of QR codes sees in lines of a terminal."""
    halves = {character: pair for pair, character in HALVES.items()}
    rows = []
    for line in lines:
        rows += [[pair[half] for pair in (halves[c] for c in line)] for half in (0, 1)]
    picture = np.where(np.array(rows), 0, 255).astype(np.uint8)
    picture = np.kron(picture, np.ones((PIXELS, PIXELS), np.uint8))
    return cv2.QRCodeDetector().detectAndDecode(
        cv2.copyMakeBorder(picture, 30, 30, 30, 30, cv2.BORDER_CONSTANT, value=255)
    )[0]


def test_the_code_in_the_terminal_is_the_address():
    address = 'http://192.168.178.123:8101/?token=aB3_-xYz90123456'
    lines = code_lines(address)
    assert len({len(line) for line in lines}) == 1
    assert max(map(len, lines)) <= 60, 'it fits in a terminal of 80 columns'
    assert read(lines) == address


class Kept:
    def __init__(self):
        self.lines = []

    def write(self, label, line):
        self.lines.append(line)

    tell = write


def test_the_code_is_shown_once_the_page_says_where_it_is_and_all_lines_pass():
    kept, shown = Kept(), []
    output = PhoneCode(kept, shown.append)
    output.write('arm_node', 'ready')
    for _ in range(2):
        output.write(
            'console_node', '[INFO] [1.2] [console_node]: the page is http://10.0.0.5:8101/?token=abcdefgh'
        )
    assert len(kept.lines) == 3
    assert [read(lines) for lines in shown] == ['http://10.0.0.5:8101/?token=abcdefgh']


def test_each_start_has_a_token_of_its_own_unless_one_is_set():
    options = parse_options(['phone:=true'])
    first, second = (phone_environment(options, {})[TOKEN_VARIABLE] for _ in range(2))
    assert first != second
    assert re.fullmatch('[A-Za-z0-9_-]{12,}', first)
    assert phone_environment(options, {TOKEN_VARIABLE: 'my-own-secret'}) == {TOKEN_VARIABLE: 'my-own-secret'}
    assert phone_environment(parse_options([]), {}) == {}
    with pytest.raises(OptionError, match='console:=false'):
        phone_environment(parse_options(['phone:=true', 'console:=false']), {})


def get(address, path, **headers):
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    connection.request('GET', path, headers=headers)
    answer = connection.getresponse()
    return answer, answer.read()


def test_a_page_for_a_phone_is_served_to_who_has_the_code_and_to_nobody_else(tmp_path):
    command = [
        sys.executable,
        '-m',
        'so101_bringup.cli',
        'up',
        '--stack',
        'view',
        'phone:=true',
        'console_port:=0',
    ]
    environment = {k: v for k, v in os.environ.items() if k != TOKEN_VARIABLE}
    environment |= {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    log = tmp_path / 'said.txt'
    with log.open('w') as file:
        process = subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        deadline, address = time.monotonic() + PATIENCE_S, ''
        while not address:
            said = log.read_text()
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.2)
            lines = said.splitlines()
            code = [line for line in lines if line and set(line) <= set(HALVES.values())]
            address = read(code) if len(code) > 10 and len({*map(len, code)}) == 1 else ''
        token = urlsplit(address).query.removeprefix('token=')
        assert any(address in line for line in lines), 'it is the address that the console says'
        page, _ = get(address, f'/?token={token}')
        assert page.status == 200
        cookie = page.headers['set-cookie'].split(';')[0]
        picture, svg = get(address, '/phone.svg', cookie=cookie)
        assert (picture.status, picture.headers['content-type']) == (200, 'image/svg+xml')
        assert b'<svg' in svg
        assert get(address, '/')[0].status == 403
        assert get(address, '/phone.svg')[0].status == 403
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
