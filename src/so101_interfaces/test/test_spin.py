# SPDX-License-Identifier: Apache-2.0
import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip('rclpy')

ASKS = 'import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))'
SPINS = """
import os, sys
from rclpy.node import Node
from so101_interfaces_py.spin import run_node, stop_spinning

class Look(Node):
    def __init__(self):
        super().__init__('look')
        self.create_timer(0.01, self.look)

    def look(self):
        threads = [os.sched_getscheduler(int(thread)) for thread in os.listdir('/proc/self/task')]
        own = os.sched_getscheduler(0)
        print(before, own, threads.count(own), len(threads))
        stop_spinning()

before = os.sched_getscheduler(0)
sys.exit(run_node(Look, urgent=sys.argv[1] == 'urgent'))
"""


def python(program, *words):
    return subprocess.run(
        [sys.executable, '-c', program, *words], capture_output=True, text=True, timeout=600.0, check=False
    )


@pytest.mark.parametrize('manner', ['urgent', 'usual'])
def test_a_node_that_moves_the_arm_takes_precedence_where_that_is_permitted(manner):
    permitted = python(ASKS).returncode == 0
    done = python(SPINS, manner)
    assert done.returncode == 0, done.stderr
    before, scheduler, alike, threads = map(int, done.stdout.split())
    assert scheduler == (os.SCHED_RR if permitted and manner == 'urgent' else before)
    assert alike > threads / 2  # those of DDS too; those of numpy were there before


BUSY = """
import sys, time
from rclpy.node import Node
from std_msgs.msg import String
from so101_interfaces_py.spin import run_node

class Busy(Node):
    def __init__(self):
        super().__init__('busy')
        self.publisher = self.create_publisher(String, 'busy', 10)
        self.begun = self.done = 0
        self.create_timer(0.001, self.work)

    def work(self):
        self.begun += 1
        if self.begun == 20:
            print('works', flush=True)
        until = time.monotonic() + 0.005
        while time.monotonic() < until:
            self.publisher.publish(String(data='x'))
        self.done += 1

    def close(self):
        self.publisher.publish(String(data='the last'))
        print(self.begun - self.done, flush=True)

sys.exit(run_node(Busy))
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_callback_finish_and_leaves_no_traceback(number):
    with subprocess.Popen(
        [sys.executable, '-c', BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == 'works\n'
        process.send_signal(number)
        process.send_signal(number)
        said, complained = process.communicate(timeout=300.0)
    assert (process.returncode, said, complained) == (0, '0\n', '')


WAITS = """
import sys, time
from so101_interfaces_py.spin import run_node

def make():
    print('waits', flush=True)
    time.sleep(60.0)

sys.exit(run_node(make))
"""


def test_a_node_that_is_still_waiting_for_something_ends_at_once():
    with subprocess.Popen(
        [sys.executable, '-c', WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == 'waits\n'
        process.send_signal(signal.SIGINT)
        _, complained = process.communicate(timeout=300.0)
    assert (process.returncode, complained) == (0, '')


LEAVES = """
import atexit, sys
from so101_interfaces_py.endings import leave

class Slow:
    def __del__(self):
        print('taken apart')

kept = Slow()
atexit.register(print, 'at exit')
print('the last word', end='')
sys.stderr.write('so it is')
leave(3)
"""


def test_a_program_that_leaves_says_its_last_word_and_takes_nothing_apart():
    done = python(LEAVES)
    assert (done.returncode, done.stdout, done.stderr) == (3, 'the last word', 'so it is')
