# SPDX-License-Identifier: Apache-2.0
"""Shared memory of killed nodes: a real node, killed, and real locks."""

import fcntl
import mmap
import os
from pathlib import Path
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy')

from std_msgs.msg import Empty

from so101_bringup.leftovers import (
    clear_arms,
    clear_leftovers,
    clear_shared_memory,
    clear_sockets,
    clear_unmapped,
    mapped,
    SHARED_MEMORY,
    told,
)

NAME = 'fastrtps_0123456789abcdef'
NODE = """
import sys, rclpy
rclpy.init()
node = rclpy.create_node('leftover')
print('ready', flush=True)
sys.stdin.read()
"""

LISTENER = """
import rclpy
from std_msgs.msg import Empty
rclpy.init()
node, heard = rclpy.create_node('listener'), []
node.create_subscription(Empty, 'still_there', heard.append, 1)
print('ready', flush=True)
while not heard:
    rclpy.spin_once(node, timeout_sec=0.1)
print('heard', flush=True)
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
    for name in [*others, NAME]:  # the last one has no lock: see below
        (tmp_path / name).touch()
    assert clear_shared_memory(tmp_path) == clear_shared_memory(tmp_path / 'nothing') == 0
    assert {path.name for path in tmp_path.iterdir()} == {*others, NAME}


PORT = ('fastrtps_port7412', 'fastrtps_port7412_el', 'sem.fastrtps_port7412_mutex')


@pytest.fixture
def port(tmp_path):
    """A port with its lock and its semaphore, a segment without a lock, and what is none of Fast DDS's."""
    for name in (*PORT, NAME, 'mine', 'fastrtps_portable', f'{NAME}x'):
        (tmp_path / name).write_bytes(bytes(4096))
        os.utime(tmp_path / name, (0, 0))
    return tmp_path


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_port_and_a_segment_that_no_process_maps_are_removed_and_nothing_else(port):
    clear_unmapped(port)
    assert names(port) == {'mine', 'fastrtps_portable', f'{NAME}x'}
    clear_unmapped(port / 'nothing')


@pytest.mark.parametrize('part', PORT)
def test_a_port_of_which_a_process_maps_a_part_stays_whole_as_long_as_it_does(port, part):
    with (port / part).open('r+b') as file, mmap.mmap(file.fileno(), 4096):
        clear_unmapped(port)
        assert names(port) > set(PORT)
    clear_unmapped(port)
    assert not names(port) & set(PORT)


def test_a_port_whose_reader_lives_or_that_is_young_stays(port):
    with (port / PORT[1]).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        clear_unmapped(port)
        assert names(port) > set(PORT)
    os.utime(port / PORT[0])
    clear_unmapped(port)
    assert names(port) > set(PORT)


def begun(program):
    process = subprocess.Popen(
        [sys.executable, '-c', program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == 'ready\n'
    return process


def test_of_a_killed_node_nothing_stays_and_who_lives_hears_and_is_heard(ros):
    node = ros.create_node('heard')
    said = node.create_publisher(Empty, 'still_there', 1)
    listeners, killed = [begun(LISTENER)], begun(NODE)
    try:
        maps = Path(f'/proc/{killed.pid}/maps').read_text()
        theirs = set(re.findall(r'/dev/shm/(?:sem\.)?(fastrtps_[a-z0-9]+)', maps))
        killed.kill()
        killed.communicate()
        unused = theirs - {name.removeprefix('sem.').partition('_mutex')[0] for name in mapped(SHARED_MEMORY)}
        for path in [path for path in SHARED_MEMORY.iterdir() if any(name in path.name for name in unused)]:
            os.utime(path, (0, 0))
        clear_leftovers()
        assert not [
            path.name for path in SHARED_MEMORY.iterdir() if any(name in path.name for name in unused)
        ]
        listeners.append(begun(LISTENER))
        deadline = time.monotonic() + 200.0
        while any(listener.poll() is None for listener in listeners):
            assert time.monotonic() < deadline
            said.publish(Empty())
            time.sleep(0.05)
        assert [listener.communicate()[0] for listener in listeners] == ['heard\n'] * 2
    finally:
        for listener in listeners:
            listener.kill()
            listener.communicate()
        node.destroy_node()


def test_what_a_killed_node_leaves_is_cleared_and_a_living_one_goes_on():
    killed, alive = begun(NODE), begun(NODE)
    try:
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
