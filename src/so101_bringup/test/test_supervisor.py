# SPDX-License-Identifier: Apache-2.0
"""The supervisor with real processes."""

import os
from pathlib import Path
import subprocess
import sys
import threading
import time

from so101_bringup.programs import NodeSpec
from so101_bringup.supervisor import Supervisor

FOREVER = 'import time; print("up"); time.sleep(60)'
DEAF = 'import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; print("up"); time.sleep(60)'


class Run:
    """A supervisor in a thread, and the lines it wrote."""

    def __init__(self):
        self.lines = []
        self.supervisor = Supervisor(os.environ, self.lines.append)
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


def test_stop_ends_even_processes_that_ignore_signals():
    run = Run()
    run.add('deaf', DEAF, required=True)
    run.start()
    run.wait_for('deaf | up')
    started = time.monotonic()
    run.stop()
    assert time.monotonic() - started < 10.0
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
        'from so101_bringup.supervisor import Supervisor\n'
        'made = Supervisor(os.environ, lambda line: print(line, flush=True))\n'
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
