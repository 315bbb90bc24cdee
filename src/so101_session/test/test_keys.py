# SPDX-License-Identifier: Apache-2.0
"""The bytes of terminals."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from so101_session.teleop.devices.keys import Code, CTRL_C, KeyDecoder, Kind


def codes(data, now=0.0):
    return KeyDecoder().feed(data, now)


@pytest.mark.parametrize(
    ('data', 'key'),
    [
        (b'w', 'w'),
        (b'W', 'w'),
        (b' ', 'space'),
        (b'\r', 'enter'),
        (b'\x7f', 'backspace'),
        (b'\x1b[A', 'up'),
        (b'\x1bOB', 'down'),
        (b'\x1b[5~', 'page_up'),
        (b'\x1b[1;2C', 'right'),
        (b'\x03', CTRL_C),
        ('ä'.encode(), 'ä'),
    ],
)
def test_plain_terminals(data, key):
    assert codes(data) == [Code(Kind.HIT, key)]


@pytest.mark.parametrize(
    ('data', 'code'),
    [
        (b'\x1b[119u', Code(Kind.PRESS, 'w')),
        (b'\x1b[119;1:1u', Code(Kind.PRESS, 'w')),
        (b'\x1b[119;1:2u', Code(Kind.REPEAT, 'w')),
        (b'\x1b[119;1:3u', Code(Kind.RELEASE, 'w')),
        (b'\x1b[119:87;2;87u', Code(Kind.PRESS, 'w')),
        (b'\x1b[119;129:3u', Code(Kind.RELEASE, 'w')),
        (b'\x1b[1;1:3A', Code(Kind.RELEASE, 'up')),
        (b'\x1b[5;1:3~', Code(Kind.RELEASE, 'page_up')),
        (b'\x1b[99;5u', Code(Kind.PRESS, CTRL_C)),
        (b'\x1b[32;1:1u', Code(Kind.PRESS, 'space')),
        (b'\x1b[?11u', Code(Kind.KITTY, '11')),
        (b'\x1b[?62;22c', Code(Kind.ALIVE)),
        (b'\x1b[0n', Code(Kind.ALIVE)),
        (b'\x1b[O', Code(Kind.FOCUS_OUT)),
    ],
)
def test_the_kitty_protocol_and_answers(data, code):
    assert codes(data) == [code]


def test_modifier_keys_and_mouse_codes_mean_nothing():
    assert codes(b'\x1b[57441;2u\x1b[<0;10;10M\x1b[I') == []


def test_a_sequence_may_come_in_pieces():
    decoder = KeyDecoder()
    assert decoder.feed(b'\x1b', 0.0) == []
    assert decoder.feed(b'[', 0.01) == []
    assert decoder.feed(b'Aw', 0.02) == [Code(Kind.HIT, 'up'), Code(Kind.HIT, 'w')]


def test_escape_alone_is_the_key_after_a_while():
    decoder = KeyDecoder()
    decoder.feed(b'\x1b', 0.0)
    assert decoder.feed(b'', 0.1) == [Code(Kind.HIT, 'escape')]


@given(st.binary(max_size=200))
def test_no_bytes_raise_or_stay(data):
    decoder = KeyDecoder()
    decoder.feed(data, 0.0)
    for tick in range(40):
        decoder.feed(b'', 1.0 + tick)
    assert decoder.feed(b'w', 100.0)[-1] == Code(Kind.HIT, 'w')
