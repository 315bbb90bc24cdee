# SPDX-License-Identifier: Apache-2.0
"""The whole stack, with learner and page: Ctrl-C ends it, nothing is left, and the same again starts at once."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import pytest

pytest.importorskip('rclpy')

from so101_testing.console_rig import free_port

PATIENCE_S = 600.0


class Stack:
    """`./so101 up` with everything, in a folder for temporary files of its own."""

    def __init__(self, folder, port):
        self.folder, self.port, self.run = folder, port, folder / 'run'
        self.temporary = folder / 'tmp'
        self.temporary.mkdir(exist_ok=True)
        words = [
            f'run:={self.run}',
            f'console_port:={port}',
            'namespace:=restart',
            f'record:={folder / "bags"}',
        ]
        self.log = (folder / 'log').open('w+')
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'so101_bringup.cli', 'up', *words],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'TMPDIR': str(self.temporary)},
        )

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def wait_for_page_and_learner(self):
        end = time.monotonic() + PATIENCE_S
        while not (self.serves() and (self.run / 'online' / 'live').exists()):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.2)

    def serves(self):
        try:
            with urlopen(f'http://127.0.0.1:{self.port}', timeout=100.0) as answer:
                return b'SO-101' in answer.read()
        except (URLError, OSError):
            return False

    def press_ctrl_c(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_S)

    def processes(self):
        """Whoever still has the name of the run on its command line, or was started by one that has."""
        found = []
        for entry in Path('/proc').glob('[0-9]*/environ'):
            try:
                if f'TMPDIR={self.temporary}'.encode() in entry.read_bytes().split(b'\0'):
                    found.append(entry.parent.name)
            except OSError:
                continue
        return found

    def wait_until_nobody_is_left(self):
        end = time.monotonic() + PATIENCE_S
        while self.processes():  # the training process saves
            assert time.monotonic() < end, self.processes()
            time.sleep(0.1)


def test_ctrl_c_ends_everything_and_the_same_stack_starts_again_at_once(tmp_path):
    port = free_port()
    for _ in range(2):
        stack = Stack(tmp_path, port)
        stack.wait_for_page_and_learner()
        assert stack.press_ctrl_c() == 0, stack.said()
        assert 'Traceback' not in stack.said()
        assert not stack.serves()
    stack.wait_until_nobody_is_left()
    assert list(stack.temporary.iterdir()) == []
    stack.log.close()
