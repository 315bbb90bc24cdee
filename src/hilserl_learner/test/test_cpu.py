# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != 'linux', reason='other systems have no such class')
def test_a_process_that_steps_back_has_a_core_only_while_nobody_else_wants_it():
    program = 'import os; from hilserl_learner.training.trainer import step_back; step_back(); print(os.sched_getscheduler(0))'
    said = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
    assert int(said.stdout) == os.SCHED_IDLE
