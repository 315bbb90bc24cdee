# SPDX-License-Identifier: Apache-2.0
"""What to press is said once: the documentation and every device draw it from there."""

from control_docs import PAGES, render
import pytest

from so101_session.teleop.devices.base import Event
from so101_session.teleop.devices.controls import DEADMAN, PAD, pad_lines, STANDARD
from so101_session.teleop.devices.keys import DEFAULT_KEYS, KeyMap
from so101_session.teleop.devices.pads import PADS


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_the_documentation_says_what_to_press(page):
    assert render(page.read_text()) == page.read_text(), 'run .venv/bin/python tools/control_docs.py'


def test_keys_and_pad_ask_for_everything_that_can_be_asked_for():
    on_keys_alone = {Event.RECOVER}  # motors are not switched on from a pocket
    assert {*PAD.values()} == {*Event, DEADMAN} - on_keys_alone
    assert {*KeyMap.parse(DEFAULT_KEYS).events.values()} == {*Event}


def test_every_pad_means_the_same_at_the_same_place():
    assert set(PAD) == set(STANDARD)
    for name, pad in PADS.items():
        assert sorted([*pad.buttons.values(), *pad.asked_by_cross]) == sorted(PAD.values()), name


def test_the_help_begins_with_what_has_to_be_held():
    assert pad_lines()[0] == ('right shoulder', 'hold it to move (deadman)')
