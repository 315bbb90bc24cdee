# SPDX-License-Identifier: Apache-2.0
"""A short seed of `tools/fuzz.py`, and that it finds what is bad."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile

import fuzz
import fuzz_surfaces
import pytest


@pytest.mark.parametrize(
    'surfaces',
    [
        [
            'calibration',
            'camera-calibration',
            'parameters',
            'policy',
            'policy-inside',
            'snapshot',
            'snapshot-inside',
        ],
        ['run', 'checkpoint', 'checkpoint-inside', 'buffer', 'buffer-inside', 'page', 'bag-zstd-messages'],
        ['dataset-v30', 'dataset-v30-video', 'dataset-v21'],
    ],
    ids=['settings and policies', 'runs', 'datasets'],
)
def test_damaged_files_end_in_a_result_or_a_sentence(surfaces):
    done = subprocess.run(
        [sys.executable, fuzz.__file__, *surfaces, '--mutants', '8'],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def traceback(_):
    raise KeyError('x')


def crash(_):
    os.kill(os.getpid(), signal.SIGSEGV)


def grow(_):
    return len(b'x' * (600 * 2**20))


def leave(_):
    Path(tempfile.gettempdir(), 'rest').touch()


@pytest.mark.parametrize(
    ('attempt', 'verdict'),
    [
        (traceback, 'KeyError at test_fuzz.py'),
        (crash, 'ended by SIGSEGV'),
        (leave, "left behind: ['rest']"),
        (grow, ' MB'),
        (lambda _: 'another', 'silent'),
        (lambda _: 'good', 'result'),
        (lambda _: sys.exit('no'), 'sentence'),
        (lambda _: int('x'), 'sentence'),
    ],
    ids=['traceback', 'crash', 'rest', 'memory', 'silent', 'result', 'exit', 'sentence'],
)
def test_what_is_bad_is_called_so(tmp_path, attempt, verdict):
    surface = fuzz_surfaces.Surface(lambda _: None, attempt, (ValueError,))
    assert verdict in fuzz.judge(tmp_path, surface, 'good' if attempt.__name__ == '<lambda>' else None)


def test_one_seed_makes_the_same_mutants():
    text = b'{"a": 1, "b": [2.5, "x"]}' * 20
    made = [[fuzz.mutate(text, fuzz.random.Random(seed)) for seed in range(50)] for _ in range(2)]
    assert made[0] == made[1]
    assert len(set(made[0])) > 40


def test_a_row_takes_the_place_of_the_one_before(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('# T\n\n| surface | n |\n|---|---|\n| a | 1 |\n\nrest\n')
    fuzz.put_row(page, 'a', '| a | 2 |')
    fuzz.put_row(page, 'b', '| b | 3 |')
    assert page.read_text() == '# T\n\n| surface | n |\n|---|---|\n| a | 2 |\n| b | 3 |\n\nrest\n'
