# SPDX-License-Identifier: Apache-2.0
"""The supervisor with real processes."""

import os
from pathlib import Path
import subprocess
import sys
import threading
import time

from so101_bringup.programs import NodeSpec
from so101_bringup.supervisor import Failures, Lines, Supervisor

FOREVER = 'import time; print("up"); time.sleep(60)'
DEAF = 'import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; print("up"); time.sleep(60)'


class Run:
    """A supervisor in a thread, and the lines it wrote."""

    def __init__(self):
        self.lines = []
        self.supervisor = Supervisor(os.environ, Lines(self.lines.append))
        self.code = None

    def add(self, name, program, **how):
        self.supervisor.add(NodeSpec(name, 'p', 'e', **how), [sys.executable, '-c', program])

    def start(self):
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        self.code = self.supervisor.run()

    def wait_for(self, text, timeout=200.0, times=1):
        deadline = time.monotonic() + timeout
        while sum(text in line for line in self.lines) < times:
            assert time.monotonic() < deadline, f'no {text!r} in {self.lines}'
            time.sleep(0.02)

    def stop(self):
        self.supervisor.stop()
        self.thread.join(20.0)
        assert not self.thread.is_alive()


def test_the_end_of_a_required_process_stops_everything_with_its_exit_code():
    run = Run()
    run.add('arm', 'import sys; sys.exit(3)', required=True)
    run.add('other', FOREVER)
    run.start()
    run.thread.join(20.0)
    assert run.code == 3


def test_the_end_of_the_work_ends_everything_well_but_a_crash_of_it_does_not():
    run = Run()
    run.add('arm', FOREVER, required=True)
    run.add('session', 'print("done")', finishes=True)
    run.start()
    run.thread.join(20.0)
    assert run.code == 0
    run = Run()
    run.add('session', 'import sys; print("born"); sys.exit(3)', finishes=True)
    run.start()
    run.wait_for('born', times=2)
    run.stop()


def test_another_process_is_started_again():
    run = Run()
    run.add('arm', FOREVER, required=True)
    run.add('camera', 'print("born")')
    run.start()
    run.wait_for('born', times=2)
    run.stop()
    assert run.code == 0


def test_what_fails_the_same_way_three_times_is_not_started_again_and_the_page_is_told_why():
    run = Run()
    told = (
        'import os, time; p = os.environ["SO101_GIVEN_UP"]\nwhile not os.path.exists(p): time.sleep(0.01)\n'
    )
    run.add('page', f'{told}print("page:", open(p).read(), flush=True); time.sleep(60)')
    run.add('policy', 'import sys, time; print(f"born {time.time()}: no file 7"); sys.exit(3)')
    other = 'import os, sys; print("lost", "".join(chr(97 + int(c)) for c in str(os.getpid()))); sys.exit(3)'
    run.add('other', other)
    run.start()
    run.wait_for('policy | It ended 3 times the same way (exit code 3)')
    run.wait_for('Its last words: born')
    run.wait_for('page: {"policy": "It ended 3 times')
    run.wait_for('lost ', times=4)  # each time another way
    run.stop()
    assert sum('born' in line and 'last words' not in line for line in run.lines) == 3
    assert not Path(run.supervisor._environment['SO101_GIVEN_UP']).parent.exists()


def test_the_words_of_a_log_line_are_what_the_node_says_and_not_when():
    failures = Failures()
    for second in (1, 2):
        failures.hear(f'[ERROR] [17000000{second}.5] [policy_node]: no policy in /nowhere')
        assert failures.note(1, 0.5) == ''
    failures.hear('')
    assert 'Its last words: no policy in /nowhere' in failures.note(1, 0.5)
    assert failures.note(1, 100.0) == ''  # it had run well for a while


def test_stop_ends_even_processes_that_ignore_signals():
    run = Run()
    run.add('deaf', DEAF, required=True)
    run.start()
    run.wait_for('deaf | up')
    run.stop()
    assert run.code == 0


def test_what_outlives_the_others_is_stopped_after_they_have_ended():
    run = Run()
    slow = 'import signal, time\nprint("up")\ntry: time.sleep(60)\nexcept KeyboardInterrupt: time.sleep(0.5); print("arm ended")'
    bus = 'import time\nprint("up")\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print("bus ended")'
    run.add('bus', bus, required=True, outlives=True)
    run.add('arm', slow, required=True)
    run.start()
    run.wait_for('| up', times=2)
    run.stop()
    run.wait_for('bus ended')
    said = [line for line in run.lines if 'ended' in line]
    assert [line.split('| ')[1] for line in said] == ['arm ended', 'bus ended']


def test_what_a_child_started_ends_with_it():
    run = Run()
    run.add(
        'parent',
        f'import subprocess, sys, time\np = subprocess.Popen([sys.executable, "-c", "{FOREVER.replace(chr(34), chr(39))}"])\nprint("child", p.pid)\ntime.sleep(60)',
        required=True,
    )
    run.start()
    run.wait_for('child ')
    pid = int(next(line for line in run.lines if 'child ' in line).split()[-1])
    run.stop()
    deadline = time.monotonic() + 5.0
    while os.path.exists(f'/proc/{pid}') and Path(f'/proc/{pid}/stat').read_text().split()[2] != 'Z':
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_supervisor_that_is_killed_takes_its_processes_along(tmp_path):
    ended = tmp_path / 'ended'
    child = (
        'import time, pathlib\ntry:\n    print("up", flush=True); time.sleep(60)\n'
        f'except KeyboardInterrupt:\n    pathlib.Path({str(ended)!r}).touch()'
    )
    program = (
        'import os, sys\nfrom so101_bringup.programs import NodeSpec\n'
        'from so101_bringup.supervisor import Lines, Supervisor\n'
        'made = Supervisor(os.environ, Lines(lambda line: print(line, flush=True)))\n'
        f'made.add(NodeSpec("arm", "p", "e"), [sys.executable, "-c", {child!r}])\nmade.run()'
    )
    with subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True) as supervisor:
        assert 'up' in supervisor.stdout.readline()
        supervisor.kill()
    deadline = time.monotonic() + 10.0
    while not ended.exists():
        assert time.monotonic() < deadline, 'it goes on without anybody who could stop it'
        time.sleep(0.02)


def test_an_interrupt_during_imports_is_not_shown_but_an_error_is():
    run = Run()
    run.add('importing', 'def f():\n    import time; print("up"); time.sleep(60)\nf()')
    run.add('broken', 'import signal, time\ntry:\n    print("up"); time.sleep(60)\nfinally:\n    1 / 0')
    run.start()
    run.wait_for('up', times=2)
    run.stop()
    assert not [line for line in run.lines if line.startswith('importing') and 'Traceback' in line]
    assert [line for line in run.lines if 'ZeroDivisionError' in line]


STORM = """
import random, signal, sys
from so101_bringup import supervisor
supervisor.LOOK_S = 0.0002
rng = random.Random(0)
for _ in range(400):
    runs = supervisor.Supervisor({}, print)
    signal.signal(signal.SIGALRM, lambda *_: runs.stop())
    signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.0005, 0.005), 0.0001)
    code = runs.run()
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    assert code == 0
print('ended')
"""


def test_a_signal_that_comes_at_any_moment_ends_it():
    done = subprocess.run(
        [sys.executable, '-c', STORM], capture_output=True, text=True, timeout=600.0, check=False
    )
    assert done.stdout == 'ended\n', done.stderr
