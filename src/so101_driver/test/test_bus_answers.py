# SPDX-License-Identifier: Apache-2.0
from hypothesis import given, settings
from hypothesis import strategies as st

from so101_driver.bus.answers import AnswerCollector
from so101_driver.bus.protocol import build, frame_at

IDS = (1, 2, 3, 4, 5, 6)
SIZE = 15
bus_settings = settings(max_examples=150, deadline=None)
# what a servo can say: positions and speeds have no byte pair FF FF
payloads = st.lists(
    st.binary(min_size=SIZE, max_size=SIZE).filter(lambda data: b'\xff\xff' not in data and data[-1] != 0xFF),
    min_size=len(IDS),
    max_size=len(IDS),
)


def answers_of(rows):
    return [build(servo_id, 0, row) for servo_id, row in zip(IDS, rows, strict=True)]


def collect(data, ids=IDS, size=SIZE):
    collector = AnswerCollector(ids, size)
    return collector.feed(data), collector.result()


@bus_settings
@given(payloads, st.data())
def test_answers_in_any_pieces_are_all_found(rows, data):
    collector, rest, ended = AnswerCollector(IDS, SIZE), b''.join(answers_of(rows)), False
    while rest:
        assert not ended
        size = data.draw(st.integers(1, len(rest)))
        ended = collector.feed(rest[:size])
        rest = rest[size:]
    assert ended
    assert {servo_id: row for servo_id, (_, row) in collector.result().good.items()} == dict(
        zip(IDS, rows, strict=True)
    )


@bus_settings
@given(payloads, st.data())
def test_one_changed_byte_costs_one_answer_and_gives_no_wrong_value(rows, data):
    stream = bytearray(b''.join(answers_of(rows)))
    place = data.draw(st.integers(0, len(stream) - 1))
    stream[place] ^= data.draw(st.integers(1, 255))
    _, answers = collect(bytes(stream))
    hit = IDS[place // (SIZE + 6)]
    assert {servo_id: row for servo_id, (_, row) in answers.good.items()} == {
        servo_id: row for servo_id, row in zip(IDS, rows, strict=True) if servo_id != hit
    }
    assert answers.damaged == 1


@bus_settings
@given(payloads, st.data())
def test_missing_bytes_cost_at_most_two_answers_and_give_no_wrong_value(rows, data):
    parts = answers_of(rows)
    index = data.draw(st.integers(0, 5))
    cut = data.draw(st.integers(1, SIZE + 5))
    parts[index] = parts[index][:-cut]
    _, answers = collect(b''.join(parts))
    right = dict(zip(IDS, rows, strict=True))
    assert all(row == right[servo_id] for servo_id, (_, row) in answers.good.items())
    assert len(answers.good) >= 4
    assert IDS[index] not in answers.good


def test_an_answer_that_swallowed_the_next_header_is_not_trusted():
    # The answer of servo 1 lost a byte; the first FF of the next one fits as its checksum.
    for last in range(256):
        body = bytes((1, SIZE + 2, 0, *bytes(SIZE - 1), last))
        if ~sum(body) & 0xFF == 0xFF:
            break
    swallowed = b'\xff\xff' + body
    _, answers = collect(swallowed + b''.join(answers_of([bytes(SIZE)] * 6)[1:]))
    assert set(answers.good) == {2, 3, 4, 5, 6}


def test_an_answer_that_swallowed_the_beginning_of_the_next_is_not_trusted():
    # The answer of servo 1 lost three bytes, and the beginning of the next one fits as its end by chance.
    parts = answers_of([bytes(SIZE)] * 6)
    for fitting in range(256):
        body = bytes((1, SIZE + 2, 0, fitting, *bytes(SIZE - 3), 0xFF, 0xFF))
        if ~sum(body) & 0xFF == 2:  # the id of the next one as checksum
            break
    swallowed = b'\xff\xff' + body[:-2] + parts[1]
    assert frame_at(swallowed, 0) == (1, 0, body[3:])
    _, answers = collect(swallowed + b''.join(parts[2:]))
    assert set(answers.good) == {2, 3, 4, 5, 6}


def test_an_answer_that_swallowed_a_late_one_is_not_trusted():
    late = build(2, 0, bytes(SIZE + 3))
    for fitting in range(256):
        body = bytes((6, SIZE + 2, 0, fitting)) + late[: SIZE - 1]
        if ~sum(body) & 0xFF == late[SIZE - 1]:
            break
    swallowed = b'\xff\xff' + body[:4] + late
    assert frame_at(swallowed, 0) == (6, 0, body[3:])
    collector = AnswerCollector((6,), SIZE, known_ids=IDS)
    assert not collector.feed(swallowed)
    assert collector.result().good == {}


def test_a_servo_whose_answer_came_cut_is_known_to_have_answered():
    parts = answers_of([bytes(SIZE)] * 6)
    _, answers = collect(parts[0] + parts[1][:9] + b''.join(parts[2:5]))
    assert answers.broken == {2}  # and servo 6 may still answer


def test_a_silent_servo_does_not_cost_the_others_their_answers():
    parts = answers_of([bytes(SIZE)] * 6)
    ended, answers = collect(b''.join(parts[:2] + parts[3:]))
    assert ended  # the last one has answered, so nothing more is due
    assert set(answers.good) == {1, 2, 4, 5, 6}
    assert answers.damaged == 0


def test_late_answers_of_another_size_are_counted_and_not_taken():
    late = build(3, 0, bytes(SIZE + 1))
    parts = answers_of([bytes(SIZE)] * 6)
    _, answers = collect(late + b''.join(parts))
    assert len(answers.good) == 6
    assert answers.late == 1


def test_of_two_answers_of_one_servo_the_later_one_counts():
    parts = answers_of([bytes((value,) * SIZE) for value in range(6)])
    _, answers = collect(build(4, 0, bytes((99,) * SIZE)) + b''.join(parts))
    assert answers.good[4] == (0, bytes((3,) * SIZE))
    assert answers.late == 1


def test_answers_of_servos_that_were_not_asked_are_not_taken():
    ended, answers = collect(build(9, 0, bytes(SIZE)) + build(1, 0, bytes(SIZE)), ids=(1,))
    assert ended
    assert set(answers.good) == {1}
    assert answers.late == 1


@bus_settings
@given(st.binary(max_size=40), payloads, st.binary(max_size=40))
def test_noise_around_answers_gives_no_wrong_value(before, rows, after):
    _, answers = collect(before + b''.join(answers_of(rows)) + after)
    right = dict(zip(IDS, rows, strict=True))
    assert all(row == right[servo_id] for servo_id, (_, row) in answers.good.items())
    assert len(answers.good) >= 5


@bus_settings
@given(st.binary(max_size=400))
def test_pure_noise_never_raises(noise):
    collector = AnswerCollector(IDS, SIZE)
    collector.feed(noise)
    assert set(collector.result().good) <= set(IDS)
