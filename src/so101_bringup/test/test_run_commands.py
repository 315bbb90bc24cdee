# SPDX-License-Identifier: Apache-2.0
"""The command that the page shows to go on with a run is one that does so."""

import shlex

import pytest

from hilserl_learner.live.identity import choose_run, IDENTITY, ONLINE, RunIdentity
from so101_bringup.options import parse_options
from so101_bringup.stack import hilserl
from so101_console.archive.runs import commands


def identity_of(options):
    """What the stack tells the learner, as the identity of its run."""
    learner = next(node for node in hilserl(options) if node.name == 'learner_node')
    told = {
        'observation': 'compact',
        'agent': 'hil',
        **learner.parameters,
    }
    return RunIdentity.of(told), told


@pytest.mark.parametrize(
    'words',
    [[], ['preset:=gap'], ['task:=place'], ['checkpoint:=none'], ['namespace:=left', 'preset:=wide'], ['observation:=full', 'checkpoint:=none']],
    ids=str,
)  # fmt: skip
def test_going_on_by_the_command_of_the_page_is_the_same_run(words, tmp_path):
    made, _ = identity_of(parse_options(words))
    run = tmp_path / 'runs' / 'mine'
    (run / ONLINE).mkdir(parents=True)
    (run / IDENTITY).write_text(made.to_json())
    said = shlex.split(commands(run, made, None)['go on'])
    assert said[:2] == ['./so101', 'up']
    again, told = identity_of(parse_options(said[2:]))
    assert not again.differences(made)
    assert told['directory'] == str(run)
    assert choose_run(str(run), '', again, tmp_path / 'runs', 'new') == run
