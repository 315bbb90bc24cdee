# SPDX-License-Identifier: Apache-2.0
"""`./so101 test`: what failed beside another file runs once more, alone, and that is said."""

import os

import pytest

from so101_bringup.cli import RUN_ALONE, run_tests

STEADY = 'def test_it():\n    assert True\n'
BROKEN = 'def test_it():\n    assert False\n'
STARVED = """
from pathlib import Path

def test_it():
    been = Path(__file__).with_suffix('.been')
    first = not been.exists()
    been.touch()
    assert not first

def test_other():
    pass
"""


pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason='on one core no file runs beside another')


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    for name in [name for name in os.environ if name.startswith('PYTEST')]:
        monkeypatch.delenv(name)  # else it passes for a worker of the run that this is in

    def run_(files, *argv):
        for name, text in files.items():
            (tmp_path / f'test_{name}.py').write_text(text)
        code = run_tests(tmp_path, argv)
        return code, [line for line in capfd.readouterr().out.splitlines() if line.startswith('so101 test:')]

    return run_


def test_what_passes_runs_once(run):
    assert run({'steady': STEADY, 'other': STEADY}) == (0, [])


def test_what_passes_alone_is_named_and_counts_as_passed(run):
    code, said = run({'steady': STEADY, 'starved': STARVED})
    assert code == 0
    assert said == [
        'so101 test: failed beside another file; once more, alone: test_starved.py',
        'so101 test: failed beside another file, passed alone: test_starved.py::test_it',
    ]


def test_what_fails_alone_too_has_failed(run):
    code, said = run({'broken': BROKEN, 'starved': STARVED})
    assert code == 1
    assert said[0].endswith('test_broken.py, test_starved.py')
    assert [line.rpartition(', ')[2] for line in said[1:]] == [
        'failed alone too: test_broken.py::test_it',
        'passed alone: test_starved.py::test_it',
    ]


def test_where_many_fail_there_is_no_second_run(run):
    assert run({f'starved{n}': STARVED for n in range(RUN_ALONE + 1)}) == (1, [])


def test_what_is_asked_for_runs_as_it_is_asked_for(run):
    assert run({'steady': STEADY, 'starved': STARVED}, 'test_starved.py') == (1, [])
