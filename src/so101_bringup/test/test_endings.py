# SPDX-License-Identifier: Apache-2.0
"""However a stack loses its terminal or its parent, under `./so101 up` and under `ros2 launch`: the arm parks, all six
servos are limp, nobody is left, and the exit code tells."""

import contextlib
import os
from pathlib import Path
import select
import signal
import subprocess
import sys
import time

import pytest

rclpy = pytest.importorskip('rclpy')

from std_srvs.srv import SetBool

from so101_driver.emulator.arm import virtual_calibration
from so101_driver.emulator.control import ArmControl
from so101_interfaces_py import topics

from .test_graph import LAUNCH, NO_LAUNCH, RUN_FILE

STARTERS = {
    'up': [sys.executable, '-m', 'so101_bringup.cli', 'up', '--stack', 'driver'],
    'launch': [sys.executable, '-c', RUN_FILE, str(LAUNCH / 'driver.launch.py')],
}
BOTH = pytest.mark.parametrize('starter', ['up', pytest.param('launch', marks=NO_LAUNCH)])
HANG_S = 120.0
NAMESPACE = f'endings_{os.getpid()}'
AWAY_RAD = (0.2, -0.6, 0.7, 0.4, -0.3, 0.8)
# A terminal of its own, as sshd and terminal emulators make it, and signals as a shell leaves them.
IN_TERMINAL = """
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def wait_for(condition, what, stack=None):
    deadline = time.monotonic() + HANG_S
    while not (value := condition()):
        assert time.monotonic() < deadline, what if stack is None else f'{what}: {stack.said}'
        time.sleep(0.05)
    return value


class Stack:
    """The driver of a real arm, which the virtual arm of the test stands for, in a terminal."""

    def __init__(self, starter, port):
        options = [f'namespace:={NAMESPACE}', 'sim:=false', f'port:={port}', f'calibration:={port}.json']
        self.command = [sys.executable, '-c', IN_TERMINAL, *STARTERS[starter], *options]
        self.start()

    def start(self):
        self.said = ''
        self.terminal, slave = os.openpty()
        self.process = subprocess.Popen(self.command, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)

    def hears(self, text):
        with contextlib.suppress(OSError):
            while select.select([self.terminal], [], [], 0.0)[0]:
                self.said += os.read(self.terminal, 65536).decode(errors='replace')
        return text in self.said

    def hang_up(self):
        os.close(self.terminal)
        self.terminal = None

    def close(self):
        if self.terminal is not None:
            self.hang_up()
        self.process.kill()
        self.process.wait()


ENDS = {
    'SIGHUP to all': lambda stack: os.killpg(stack.process.pid, signal.SIGHUP),
    'SIGTERM to the parent': lambda stack: stack.process.terminate(),
    'SIGKILL to the parent': lambda stack: stack.process.kill(),
    'the terminal closes': lambda stack: stack.hang_up(),
}


@pytest.fixture(scope='module')
def arm(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp('endings')
    words = ['--link', folder / 'arm', '--calibration', folder / 'arm.json', '--control', folder / 'control']
    start('so101_driver', 'virtual_arm', *words)
    wait_for((folder / 'control').exists, 'the virtual arm')
    control = ArmControl(folder / 'control')
    yield folder / 'arm', control
    control.close()


def driven(control):
    return list(control.call('torque').values())


def processes():
    """The stack and its nodes: process id -> words that it was started with."""
    found = {}
    for entry in Path('/proc').glob('[0-9]*/cmdline'):
        with contextlib.suppress(OSError):
            words = entry.read_text().split('\0')
            if any(NAMESPACE in word for word in words):
                found[int(entry.parent.name)] = words
    return found


def arm_nodes():
    """Those that have become arm_node, and begin to import."""
    return [
        pid for pid, words in processes().items() if any(word.endswith('/arm_node') for word in words[:2])
    ]


@contextlib.contextmanager
def enabled(starter, arm):
    """A stack whose arm holds itself up."""
    port, control = arm
    for servo_id, encoder in enumerate(virtual_calibration().rad_to_encoder_ticks(AWAY_RAD), start=1):
        control.call('position', servo_id=servo_id, encoder=float(encoder))
    stack = Stack(starter, port)
    node = rclpy.create_node('hand', namespace=NAMESPACE)
    client = node.create_client(SetBool, topics.ARM_ENABLE_SERVICE)

    def ask():
        if stack.process.poll() is not None:  # too busy a machine for the arm to answer in time
            stack.close()
            stack.start()
        if client.service_is_ready():
            answer = client.call_async(SetBool.Request(data=True))
            rclpy.spin_until_future_complete(node, answer, timeout_sec=5.0)
        return stack.hears('waiting for a command') and all(driven(control))

    try:
        wait_for(ask, 'an enabled arm', stack)
        yield stack
    finally:
        node.destroy_node()
        stack.close()
        wait_for(lambda: not processes(), 'nobody left')


@BOTH
@pytest.mark.parametrize('end', ENDS)
def test_a_stack_without_parent_or_terminal_parks_releases_and_leaves_nobody(starter, end, arm, ros):
    _, control = arm
    with enabled(starter, arm) as stack:
        control.call('clear_log')
        ENDS[end](stack)
        wait_for(lambda: not processes(), 'nobody left')
        assert driven(control) == [False] * 6
        assert len(control.call('log', register='GOAL_POSITION')) > 6, 'it was dropped, not parked'


@BOTH
def test_the_exit_code_tells_of_a_required_node_that_failed(starter, arm, ros):
    with enabled(starter, arm) as stack:
        (pid,) = arm_nodes()
        os.kill(pid, signal.SIGKILL)
        assert stack.process.wait(HANG_S) == 1
        assert stack.hears('the stack needs it')


@BOTH
@pytest.mark.parametrize('end', ['is interrupted', 'is killed'])
def test_a_stack_that_ends_while_it_imports_is_quiet_and_leaves_nobody(starter, end, arm):
    stack = Stack(starter, arm[0])
    try:
        wait_for(arm_nodes, 'arm_node begins')
        if end == 'is killed':
            stack.process.kill()
        else:
            os.write(stack.terminal, b'\x03')
        wait_for(lambda: stack.hears('Traceback') or stack.process.poll() is not None, 'the stack ends')
        wait_for(lambda: not processes(), 'nobody left')
        assert not stack.hears('Traceback'), stack.said
    finally:
        stack.close()
