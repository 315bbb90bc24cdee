# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

import pytest

pytest.importorskip('rclpy')

ASKS = 'import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))'
SPINS = """
import os, sys
from rclpy.node import Node
from so101_interfaces_py.spin import run_node

class Look(Node):
    def __init__(self):
        super().__init__('look')
        self.create_timer(0.01, self.look)

    def look(self):
        threads = [os.sched_getscheduler(int(thread)) for thread in os.listdir('/proc/self/task')]
        own = os.sched_getscheduler(0)
        print(own, threads.count(own), len(threads))
        self.context.try_shutdown()

sys.exit(run_node(Look, urgent=sys.argv[1] == 'urgent'))
"""


def python(program, *words):
    return subprocess.run(
        [sys.executable, '-c', program, *words], capture_output=True, text=True, timeout=60.0, check=False
    )


@pytest.mark.parametrize('manner', ['urgent', 'usual'])
def test_a_node_that_moves_the_arm_takes_precedence_where_that_is_permitted(manner):
    permitted = python(ASKS).returncode == 0
    done = python(SPINS, manner)
    assert done.returncode == 0, done.stderr
    scheduler, alike, threads = map(int, done.stdout.split())
    assert scheduler == (os.SCHED_RR if permitted and manner == 'urgent' else os.SCHED_OTHER)
    assert alike > threads / 2  # those of DDS too; those of numpy were there before
