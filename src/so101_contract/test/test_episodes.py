# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
import re

import pytest

from so101_contract.session import EventKind, Outcome, Source

MESSAGES = Path(__file__).parents[2] / 'so101_interfaces' / 'msg'


def constants(message, prefix=''):
    text = (MESSAGES / message).read_text()
    return {
        name: int(value) for name, value in re.findall(rf'^uint8 {prefix}([A-Z_]+)=(\d+)', text, re.MULTILINE)
    }


@pytest.mark.skipif(
    not MESSAGES.is_dir(), reason='needs the sources of so101_interfaces next to this package'
)
def test_values_are_the_constants_of_the_messages():
    assert {source.name: source.value for source in Source} == constants('EeDelta.msg', 'SOURCE_')
    assert {kind.name: kind.value for kind in EventKind} == constants('EpisodeEvent.msg')


def test_outcomes_are_the_events_that_end_an_episode():
    for kind in EventKind:
        assert (kind.outcome is not None) == (kind.name in Outcome.__members__)
        assert kind.outcome is None or kind.outcome.name == kind.name


def test_B4_only_success_and_failure_are_terminal():
    assert [outcome for outcome in Outcome if outcome.terminal] == [Outcome.SUCCESS, Outcome.FAILURE]
