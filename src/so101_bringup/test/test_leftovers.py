# SPDX-License-Identifier: Apache-2.0
"""Shared memory of killed nodes: a real node, killed, and real locks."""

import fcntl
import os
from pathlib import Path
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from so101_bringup.leftovers import clear_arms, clear_shared_memory, clear_sockets, SHARED_MEMORY, told

NAME = 'fastrtps_0123456789abcdef'
NODE = """
import sys, rclpy
rclpy.init()
node = rclpy.create_node('leftover')
print('ready', flush=True)
sys.stdin.read()
"""


@pytest.fixture
def segment(tmp_path):
    """A segment with its lock, begun long ago."""
    path = tmp_path / NAME
    path.write_bytes(bytes(8192))
    lock = tmp_path / f'{NAME}_el'
    lock.touch()
    os.utime(lock, (0, 0))
    return path


def test_a_segment_whose_owner_is_gone_is_removed_with_its_lock(segment, tmp_path):
    assert clear_shared_memory(tmp_path) >= 8192
    assert list(tmp_path.iterdir()) == []


def test_a_segment_that_is_in_use_or_young_stays(segment, tmp_path):
    lock = segment.with_name(f'{NAME}_el')
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert clear_shared_memory(tmp_path) == 0
    os.utime(lock)
    assert clear_shared_memory(tmp_path) == 0
    assert segment.exists()


def test_nothing_else_is_touched(tmp_path):
    others = ['fastrtps_port7412', 'fastrtps_port7412_el', 'sem.fastrtps_port7412_mutex', 'mine', f'{NAME}x']
    for name in [*others, NAME]:  # the last one has no lock: nobody can say whose it is
        (tmp_path / name).touch()
    assert clear_shared_memory(tmp_path) == clear_shared_memory(tmp_path / 'nothing') == 0
    assert {path.name for path in tmp_path.iterdir()} == {*others, NAME}


def test_what_a_killed_node_leaves_is_cleared_and_a_living_one_goes_on():
    pytest.importorskip('rclpy')
    killed, alive = (
        subprocess.Popen(
            [sys.executable, '-c', NODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    )
    try:
        for node in (killed, alive):
            assert node.stdout.readline() == 'ready\n'
        theirs, ours = owned(killed), owned(alive)
        if not theirs:
            pytest.skip('this Fast DDS uses no shared memory here')
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        assert all((SHARED_MEMORY / name).exists() for name in theirs)
        for name in theirs:
            os.utime(SHARED_MEMORY / f'{name}_el', (0, 0))
        clear_shared_memory()
        assert not any((SHARED_MEMORY / name).exists() for name in theirs)
        assert all((SHARED_MEMORY / name).exists() for name in ours)
        assert alive.poll() is None
    finally:
        for node in (killed, alive):
            node.kill()
            node.communicate()


def owned(node):
    """Names of the segments whose locks a process has open."""
    opened = [os.readlink(path) for path in Path(f'/proc/{node.pid}/fd').iterdir()]
    return {found[1] for path in opened if (found := re.search(r'/(fastrtps_[0-9a-f]{16})_el$', path))}


def test_it_is_told_where_it_is_worth_a_line():
    assert told(10**6) == []
    assert '2.5 GB' in told(2_500_000_000)[0]


def test_the_port_of_a_killed_virtual_arm_goes_with_what_lies_beside_it(start, tmp_path):
    arms = {name: tmp_path / f'so101-virtual-arm-{name}' for name in ('killed', 'alive', 'starting')}
    running = {
        name: start('so101_driver', 'virtual_arm', '--link', path, '--calibration', f'{path}.json')
        for name, path in arms.items()
        if name != 'starting'
    }
    deadline = time.monotonic() + 120.0
    while not all(arms[name].exists() for name in running):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    Path(f'{arms["starting"]}.json').touch()  # its port comes in a moment
    running['killed'].kill()
    running['killed'].wait()
    assert {path.name for path in tmp_path.iterdir()} > {'.so101-virtual-arm-killed.heard'}
    for path in tmp_path.iterdir():
        if 'starting' not in path.name and not path.is_symlink():
            os.utime(path, (0, 0))
    clear_arms(tmp_path)
    alive, starting = arms['alive'].name, arms['starting'].name
    assert {path.name for path in tmp_path.iterdir()} == {
        alive, f'{alive}.json', f'.{alive}.heard', f'{starting}.json'
    }  # fmt: skip


def test_a_socket_that_nobody_listens_at_goes(tmp_path):
    for name in ('dead', 'alive'):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / f'{name}.sock'))
        listener.listen()
        if name == 'dead':
            listener.close()
    (tmp_path / 'plain.sock').touch()
    clear_sockets(tmp_path)
    clear_sockets(tmp_path / 'nothing')
    assert {path.name for path in tmp_path.iterdir()} == {'alive.sock', 'plain.sock'}
    listener.close()
