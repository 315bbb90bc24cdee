# SPDX-License-Identifier: Apache-2.0
"""What was written before the names of today still loads: `data/before` is a run in the simulation and a live one."""

import json
from pathlib import Path
import shutil

import pytest

from hilserl_learner.data.store import PartReader, read_buffer, read_header
from hilserl_learner.training.checkpoint import BufferPosition, CheckpointManifest, Checkpoints, MANIFEST
from hilserl_learner.training.evaluate import EvalScore
from hilserl_learner.training.settings import FREE_ON_RESUME, RunDirectory, Settings
from so101_contract.session import Outcome
from so101_contract.transition import Transition

from .experience import ACTION, make_episode, small_spec

BEFORE = Path(__file__).parent / 'data' / 'before'


@pytest.fixture
def before(tmp_path):
    """A copy of what was written before, since whoever goes on writes there."""
    return shutil.copytree(BEFORE, tmp_path / 'before')


def same(one, other):
    assert [(t.episode, t.index, t.reward, t.terminated, t.truncated, t.intervened) for t in one] == [
        (t.episode, t.index, t.reward, t.terminated, t.truncated, t.intervened) for t in other
    ]
    for a, b in zip(one, other, strict=True):
        assert (a.next_frame.state == b.next_frame.state).all()
        assert all(
            (a.next_frame.images[name] == b.next_frame.images[name]).all() for name in b.next_frame.images
        )


def test_the_buffer_of_a_live_run_gives_its_transitions_and_reports(before):
    assert read_header(before / 'live' / 'online').observation.hash == small_spec().hash
    *steps, report = [entry.output for entry in read_buffer(before / 'live' / 'online')]
    same(steps, make_episode(small_spec(), 1, 3, terminated=True))
    assert (report.outcome, report.transitions) == (Outcome.SUCCESS, 3)


def test_the_checkpoint_of_a_live_run_says_what_it_said(before):
    saved = Checkpoints(before / 'live' / 'checkpoints').load()
    assert (saved.metadata.updates, saved.metadata.env_steps, saved.metadata.version) == (2, 3, 7)
    assert saved.metadata.positions == (BufferPosition(part='live', segment=0, offset=900),)
    assert json.loads(saved.metadata.config) == {'utd': 1.0, 'gamma': 0.97}
    assert int(saved.tensors['trainer.steps']) == 3


def test_a_run_in_the_simulation_gives_its_transitions_and_its_best_score(before):
    run = RunDirectory(before / 'run', small_spec(), ACTION)
    same(list(run.recorded('demo')), make_episode(small_spec(), 1, 3, terminated=True))
    same(list(run.recorded('online')), make_episode(small_spec(), 1, 4, truncated=True, intervened=(1,)))
    best = Checkpoints(before / 'run' / 'checkpoints').load_best()
    assert EvalScore(**json.loads(best.metadata.notes)) == EvalScore(18, 20, 12.5, 4)


def test_the_settings_of_a_run_in_the_simulation_are_those_of_today(before):
    settings = Settings.with_options({'width': '16', 'num_critics': '2', 'steps': '30'}, demos='1')
    run = RunDirectory(before / 'run', small_spec(), ACTION)
    run.require_same(settings.plain(), FREE_ON_RESUME)
    other = Settings.with_options({'width': '16', 'num_critics': '2'}, demos='1', seed=3)
    with pytest.raises(ValueError, match='seed: 0 before, 3 now'):
        run.require_same(other.plain(), FREE_ON_RESUME)


def test_what_is_written_now_has_the_names_of_today(before):
    old = before / 'live' / 'checkpoints' / '000000' / MANIFEST
    manifest = CheckpointManifest.from_json(old.read_text())
    assert 'facts' in json.loads(old.read_text())
    assert set(manifest.to_dict()) == {'metadata', 'files', 'sha256'}
    assert CheckpointManifest.from_json(manifest.to_json()) == manifest


def test_a_part_is_read_on_from_where_a_learner_before_had_read_it(before):
    reader = PartReader(before / 'live' / 'online' / 'live', small_spec())
    assert sum(isinstance(entry.output, Transition) for entry in reader.poll()) == 3
    assert reader.damaged == []
