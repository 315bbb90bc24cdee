# SPDX-License-Identifier: Apache-2.0
"""A run knows what it was made with: the same goes on with it, anything else gets a run of its own."""

from dataclasses import replace
import os
from pathlib import Path
import shutil

import pytest

from drqv2_policy_node.store import find_policy
from hilserl_learner.data.store import BufferHeader, BufferWriter, Entry, Part, write_header
from hilserl_learner.errors import CheckpointError
from hilserl_learner.live.identity import (
    AUTO,
    begin_or_go_on,
    choose_run,
    FEED_LOCK,
    IDENTITY,
    outlook,
    read_identity,
    RunIdentity,
    steps_of,
)
from hilserl_learner.live.process import DirectoryLock
from so101_contract.action import ActionSpec
from so101_contract.observation_spec import get_observation

from .experience import make_episode

BEFORE = Path(__file__).parent / 'data' / 'before' / 'live'
TOLD = {
    'scene': 'simulated arm, lift, easy',
    'observation': 'compact',
    'tcp': 'so101',
    'camera': 'nexus',
    'action_scale_m': 0.02,
    'policy': 'default',
}
REAL = 'real arm 0123456789ab'
OTHERS = {
    'scene': [
        'simulated arm, lift, gap',
        'simulated arm, place, easy',
        'simulated arm, lift, easy, left',
        REAL,
    ],
    'observation': ['full'],
    'tcp': ['menagerie'],
    'action_scale_m': [0.01],
    'policy': ['none', str(find_policy('default', 'compact'))],
    'agent': ['sac'],
}


def identity(**changes):
    return RunIdentity.of(TOLD | changes)


def lived(run, steps=4, **changes):
    """A run in which something was lived through."""
    begin_or_go_on(run, identity(**changes))
    spec = get_observation('compact')
    header = BufferHeader(observation=spec, action=ActionSpec(), parts=(Part(name='live'),))
    write_header(run / 'online', header)
    writer = BufferWriter(run / 'online' / 'live')
    for transition in make_episode(spec, 1, steps, terminated=True):
        writer.append(Entry('/', transition))
        writer.append(Entry('/', replace(transition, revision=1)))  # a late label is no further step
    writer.close()
    return run


def choose(folder, asked=AUTO, origin='', **changes):
    return choose_run(str(asked), str(origin), identity(**changes), folder, 'lift-easy')


def test_the_same_combination_goes_on_and_says_with_how_much(tmp_path):
    run = lived(tmp_path / 'lift-easy-1')
    assert choose(tmp_path) == run
    assert outlook(run) == f'goes on with {run}, 4 steps'
    assert begin_or_go_on(run, identity()) == outlook(run)


@pytest.mark.parametrize(
    ('name', 'value'), [(name, value) for name, values in OTHERS.items() for value in values]
)
def test_another_combination_gets_a_run_of_its_own_named_and_dated(tmp_path, name, value):
    run = lived(tmp_path / 'lift-easy-1')
    chosen = choose(tmp_path, **{name: value})
    assert chosen != run
    assert chosen.name.startswith('lift-easy-20')
    assert outlook(chosen) == f'begins a new run in {chosen}'
    with pytest.raises(CheckpointError, match=r'another one \(.* there, .* now.*say from:='):
        choose(tmp_path, run, **{name: value})
    with pytest.raises(CheckpointError, match='another one'):
        begin_or_go_on(run, identity(**{name: value}))


def test_of_several_runs_the_one_that_was_learned_in_last_goes_on(tmp_path):
    old, new = lived(tmp_path / 'b'), lived(tmp_path / 'a')
    for second, run in enumerate((old, new)):
        os.utime(run / IDENTITY, (second, second))
    assert choose(tmp_path) == new
    (old / 'weights_version').write_text('7')
    assert choose(tmp_path) == old


def test_a_run_that_is_named_begins_there_and_goes_on_there(tmp_path):
    mine = tmp_path / 'elsewhere' / 'mine'
    assert choose(tmp_path, mine) == mine
    lived(mine)
    assert choose(tmp_path, mine) == mine
    assert read_identity(mine) == identity()


def test_a_run_in_use_is_refused(tmp_path):
    run = lived(tmp_path / 'run')
    lock = DirectoryLock(run / FEED_LOCK)
    with pytest.raises(CheckpointError, match='got another learner'):
        choose(tmp_path)
    lock.close()
    assert choose(tmp_path) == run


def test_a_run_of_before_goes_on_where_it_is_named_but_never_for_a_real_arm(tmp_path):
    old = shutil.copytree(BEFORE, tmp_path / 'live')
    assert choose(tmp_path) != old
    assert choose(tmp_path, old) == old
    assert outlook(old) == f'goes on with {old}, 3 steps'
    for ask in (lambda: choose(tmp_path, old, scene=REAL), lambda: begin_or_go_on(old, identity(scene=REAL))):
        with pytest.raises(CheckpointError, match=r'does not say what it was made with; .* from:='):
            ask()


def test_a_damaged_identity_is_told_where_it_is_named_and_passed_over_where_not(tmp_path):
    run = lived(tmp_path / 'run')
    (run / IDENTITY).write_text('{')
    assert choose(tmp_path) != run
    with pytest.raises(CheckpointError, match='restore the file'):
        choose(tmp_path, run)


def test_from_begins_a_run_with_the_weights_and_the_experience_of_another(tmp_path):
    source = lived(tmp_path / 'simulated')
    shutil.copytree(BEFORE / 'checkpoints', source / 'checkpoints')
    (source / 'weights_version').write_text('41')
    chosen = choose(tmp_path, origin=source, scene=REAL)
    said = begin_or_go_on(chosen, identity(scene=REAL), str(source))
    assert said == f'begins a new run in {chosen} with the weights and the 4 steps of {source}'
    assert read_identity(chosen).origin == str(source)
    assert steps_of(chosen) == 4
    assert (chosen / 'weights_version').read_text() == '41'
    assert sorted(p.name for p in (chosen / 'checkpoints').iterdir()) == ['000000']
    assert not list(chosen.glob('.*'))
    # The node that is started again goes on with it, and so does the next session without from:=.
    assert begin_or_go_on(chosen, identity(scene=REAL), str(source)) == f'goes on with {chosen}, 4 steps'
    assert choose(tmp_path, scene=REAL) == chosen
    assert choose(tmp_path) == source
    assert choose(tmp_path, origin=source, scene=REAL) not in (chosen, source)


def test_from_refuses_what_cannot_be_gone_on_with(tmp_path):
    source = lived(tmp_path / 'simulated')
    for changes in ({'observation': 'full'}, {'action_scale_m': 0.01}, {'agent': 'sac'}):
        with pytest.raises(CheckpointError, match='means nothing here'):
            choose(tmp_path, origin=source, **changes)
    with pytest.raises(CheckpointError, match='holds none; a policy is named by checkpoint:='):
        choose(tmp_path, origin=tmp_path)
    with pytest.raises(CheckpointError, match='expected no run at'):
        choose(tmp_path, lived(tmp_path / 'other'), source)
