# SPDX-License-Identifier: Apache-2.0
"""Folders of processes that end in order, live, and are killed."""

import os
import subprocess
import sys
import time

import pytest

from so101_interfaces_py.scratch import clear_scratch, Scratch

OWNER = """
import sys
from so101_interfaces_py.scratch import Scratch
scratch = Scratch('test')
(scratch.path / 'much').write_bytes(bytes(1000))
print(scratch.path, flush=True)
sys.stdin.read()
scratch.close()
"""


@pytest.fixture
def owner(tmp_path):
    """A process with a folder, and the folder."""
    environment = {
        **os.environ,
        'TMPDIR': str(tmp_path),
        'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
    }
    process = subprocess.Popen(
        [sys.executable, '-c', OWNER],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin.close()


def test_a_process_that_ends_in_order_leaves_nothing(owner, tmp_path):
    owner.stdin.close()
    owner.wait()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_leaves_the_next_start_clears_and_not_before(owner, tmp_path):
    assert clear_scratch(tmp_path, young_s=0.0) == 0, 'its owner lives'
    owner.kill()
    owner.wait()
    assert clear_scratch(tmp_path, young_s=3600.0) == 0, (
        'so young that its owner may still be about to lock it'
    )
    assert clear_scratch(tmp_path, young_s=0.0) == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_is_touched(tmp_path):
    others = ['so101-mine', 'so101', 'other']
    for name in others:
        (tmp_path / name).mkdir()
        (tmp_path / name / 'mine').touch()
    (tmp_path / 'so101-virtual-arm').symlink_to('other')
    (tmp_path / 'so101-file').touch()
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    (elsewhere / '.owner').touch()
    (tmp_path / 'so101-link').symlink_to('elsewhere')
    before = sorted(tmp_path.rglob('*'))
    assert clear_scratch(tmp_path, young_s=0.0) == clear_scratch(tmp_path / 'nothing') == 0
    assert sorted(tmp_path.rglob('*')) == before


def test_one_that_was_killed_before_it_had_its_lock_goes_too(tmp_path):
    (tmp_path / 'so101-xyz').mkdir(mode=0o700)
    clear_scratch(tmp_path, young_s=0.0)
    assert list(tmp_path.iterdir()) == []


def test_closing_twice_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    with Scratch() as scratch:
        assert scratch.path.is_dir()
        assert time.time() - scratch.path.stat().st_mtime < 3600.0
    scratch.close()
    assert list(tmp_path.iterdir()) == []
