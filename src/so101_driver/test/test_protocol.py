# SPDX-License-Identifier: Apache-2.0
from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from so101_driver.bus import protocol
from so101_driver.bus.errors import ChecksumError, CorruptAnswer
from so101_driver.bus.protocol import build, Frame, FrameStream, Instruction, MAX_PAYLOAD, parse

frames = st.builds(Frame, st.integers(0, 254), st.integers(0, 255), st.binary(max_size=40))
answers = st.builds(Frame, st.integers(0, 253), st.integers(0, 127), st.binary(max_size=40))
bus_settings = settings(max_examples=150, deadline=None)


def as_bytes(text):
    return bytes.fromhex(text)


@pytest.mark.parametrize(
    ('built', 'expected'),
    [
        (protocol.ping(1), 'FF FF 01 02 01 FB'),
        (protocol.read(1, 56, 2), 'FF FF 01 04 02 38 02 BE'),
        (build(1, 0, bytes((0, 8))), 'FF FF 01 04 00 00 08 F2'),
        (protocol.sync_read(56, 2, (1, 2, 3, 4, 5, 6)), 'FF FF FE 0A 82 38 02 01 02 03 04 05 06 26'),
        (protocol.write(2, 40, b'\x01'), 'FF FF 02 04 03 28 01 CD'),
        (
            protocol.sync_write(42, {1: b'\x00\x08', 2: b'\xff\x0f'}),
            'FF FF FE 0A 83 2A 02 01 00 08 02 FF 0F 2F',
        ),
        (protocol.action(), 'FF FF FE 02 05 FA'),
    ],
    ids=['ping', 'read', 'answer', 'sync read', 'write', 'sync write', 'action'],
)
def test_frames_have_the_bytes_of_the_vendors_manual(built, expected):
    assert built == as_bytes(expected)


def test_instructions_are_those_of_the_sdk():
    assert {one.name: int(one) for one in Instruction} == {
        'PING': 1,
        'READ': 2,
        'WRITE': 3,
        'REG_WRITE': 4,
        'ACTION': 5,
        'SYNC_READ': 0x82,
        'SYNC_WRITE': 0x83,
    }


@bus_settings
@given(frames)
def test_parse_is_the_inverse_of_build(frame):
    assert parse(build(*frame)) == frame


@bus_settings
@given(frames, st.data())
def test_one_changed_byte_is_never_taken_for_an_answer(frame, data):
    damaged = bytearray(build(*frame))
    place = data.draw(st.integers(0, len(damaged) - 1))
    damaged[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CorruptAnswer):
        parse(bytes(damaged))


@bus_settings
@given(frames, st.data())
def test_a_cut_frame_is_never_taken_for_an_answer(frame, data):
    whole = build(*frame)
    with pytest.raises(CorruptAnswer):
        parse(whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_a_wrong_checksum_says_which_one_was_expected():
    with pytest.raises(ChecksumError, match='servo 1: the checksum should be 0xFB and is 0xFA'):
        parse(as_bytes('FF FF 01 02 01 FA'))


@pytest.mark.parametrize(
    'call',
    [
        lambda: build(255, 1),
        lambda: build(1, 256),
        lambda: build(1, 1, bytes(MAX_PAYLOAD + 1)),
        lambda: protocol.sync_read(56, 2, ()),
        lambda: protocol.sync_read(56, 2, (1, 1)),
        lambda: protocol.sync_write(42, {}),
        lambda: protocol.sync_write(42, {1: b'\x00\x08', 2: b'\x00'}),
        lambda: protocol.sync_write(42, {1: b''}),
    ],
    ids=['id', 'code', 'too long', 'nobody', 'twice', 'no rows', 'short row', 'empty row'],
)
def test_what_fits_no_frame_is_refused(call):
    with pytest.raises(ValueError, match='got'):
        call()


@bus_settings
@given(st.lists(frames, max_size=6), st.data())
def test_a_stream_in_any_pieces_gives_the_same_frames(sent, data):
    stream, received = FrameStream(), []
    rest = b''.join(build(*frame) for frame in sent)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        received += stream.feed(rest[:size])
        rest = rest[size:]
    assert received == sent
    assert stream.skipped == 0
    assert stream.pending == 0


@bus_settings
@given(st.binary(max_size=30), frames, frames)
def test_a_stream_finds_its_way_back_after_noise(noise, first, second):
    stream = FrameStream()
    # Noise may look like the beginning of a long frame; the silence that follows noise on a wire ends it.
    stream.feed(noise)
    stream.reset()
    assert stream.feed(build(*first) + build(*second)) == [first, second]


@bus_settings
@given(st.binary(max_size=30).filter(lambda noise: b'\xff' not in noise), answers, answers)
def test_noise_without_a_header_costs_nothing(noise, first, second):
    stream = FrameStream()
    found = stream.feed(build(*first) + noise + build(*second) + noise)
    assert found == [first, second]
    assert stream.skipped == 2 * len(noise)


def test_extra_ff_before_a_header_costs_nothing():
    stream = FrameStream()
    assert stream.feed(b'\xff' + protocol.ping(1)) == [Frame(1, 1, b'')]
    assert stream.feed(b'\xff\xff' + protocol.ping(2)) == [Frame(2, 1, b'')]
