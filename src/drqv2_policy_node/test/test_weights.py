# SPDX-License-Identifier: Apache-2.0
"""Policies cut into messages and put together again. The messages are real ones; no graph is needed."""

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

pytest.importorskip('rclpy')

from rclpy.serialization import deserialize_message, serialize_message
from so101_interfaces.msg import PolicyWeights

from drqv2_policy_node.weights import CHUNK_BYTES, MAX_CHUNKS, to_messages, WeightsError, WeightsReceiver
from so101_interfaces_py import qos
from so101_interfaces_py.conversions import ns_to_stamp

PAYLOAD = np.random.default_rng(0).bytes(3 * CHUNK_BYTES + 17)


def messages_of(payload=PAYLOAD, version=1, at_ns=None, manifest='{"name": "a"}', sender='one'):
    stamp = ns_to_stamp(at_ns or version * 1_000_000_000)
    return to_messages(manifest, payload, version, 10 * version, stamp=stamp, sender=sender)


def received(receiver, messages):
    return [out for message in messages if (out := receiver.push(message)) is not None]


def test_a_policy_comes_out_as_it_went_in():
    wire = [deserialize_message(serialize_message(message), PolicyWeights) for message in messages_of()]
    (out,) = received(WeightsReceiver(), wire)
    assert (out.payload, out.manifest, out.version, out.step) == (PAYLOAD, '{"name": "a"}', 1, 10)
    assert out.stamp_ns == 1_000_000_000


def test_B11_the_checksum_of_all_tensors_comes_with_each_piece():
    for message in messages_of():
        assert message.sha256 == hashlib.sha256(PAYLOAD).hexdigest()


def test_B11_one_flipped_bit_is_refused():
    messages = messages_of()
    messages[2].data[5] ^= 1
    receiver = WeightsReceiver()
    with pytest.raises(WeightsError, match='hash'):
        received(receiver, messages)


def test_a_refused_version_does_not_keep_the_next_one_out():
    receiver, broken = WeightsReceiver(), messages_of()
    broken[0].data[0] ^= 1
    with pytest.raises(WeightsError):
        received(receiver, broken)
    assert [out.version for out in received(receiver, messages_of(version=2))] == [2]


def test_a_version_with_a_missing_piece_gives_nothing_and_the_next_one_takes_its_place():
    receiver = WeightsReceiver()
    assert received(receiver, messages_of()[1:]) == []
    assert [out.version for out in received(receiver, messages_of(version=2))] == [2]


@given(order=st.permutations(range(4)), twice=st.sets(st.integers(0, 3)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_pieces_and_copies_of_them_do_not_matter(order, twice):
    messages = messages_of()
    sent = [messages[i] for i in order for _ in range(2 if i in twice else 1)]
    outs = received(WeightsReceiver(), sent)
    assert [out.payload for out in outs] == [PAYLOAD]


def accepted(receiver, messages):
    """The versions that come out, each of them accepted."""
    versions = []
    for message in messages:
        if (out := receiver.push(message)) is not None:
            receiver.accept(out)
            versions.append(out.version)
    return versions


def test_pieces_of_an_older_version_do_not_disturb_a_newer_one():
    old, new = messages_of(version=1), messages_of(version=2)
    mixed = [message for pair in zip(new, old, strict=True) for message in pair]
    assert accepted(WeightsReceiver(), mixed) == [2]


def test_a_learner_that_starts_over_counts_although_its_versions_are_lower():
    receiver = WeightsReceiver()
    assert accepted(receiver, messages_of(version=50)) == [50]
    assert accepted(receiver, messages_of(version=1, sender='two')) == [1]


FAR_FUTURE_NS = 2_000_000_000 * 1_000_000_000


@pytest.mark.parametrize('whole', [True, False], ids=['whole', 'a piece'])
def test_a_stamp_in_the_future_keeps_no_later_version_out(whole):
    receiver = WeightsReceiver()
    early = messages_of(version=1, at_ns=FAR_FUTURE_NS)
    assert accepted(receiver, early if whole else early[:1]) == ([1] if whole else [])
    assert accepted(receiver, messages_of(version=2)) == [2]


def test_a_version_that_is_refused_keeps_none_out_however_high_its_number():
    receiver = WeightsReceiver()
    (refused,) = received(receiver, messages_of(b'no policy', version=2**64 - 1))
    assert refused.version == 2**64 - 1
    assert accepted(receiver, messages_of(version=2)) == [2]


def test_versions_that_are_never_whole_take_no_memory_for_good():
    receiver = WeightsReceiver()
    for version in range(1, 200):
        receiver.push(messages_of(version=version, sender=f'{version}')[0])
    assert len(receiver._open) <= 4
    for sender in range(200):
        accepted(receiver, messages_of(b'x', sender=f'{sender}'))
    assert len(receiver._accepted) <= 16


def test_a_version_is_given_out_once():
    receiver = WeightsReceiver()
    assert len(received(receiver, messages_of() + messages_of())) == 1


@pytest.mark.parametrize('size', [1, CHUNK_BYTES, CHUNK_BYTES + 1, 70 * CHUNK_BYTES])
def test_a_whole_version_fits_into_what_the_topic_keeps_for_late_joiners(size):
    messages = messages_of(bytes(size))
    assert len(messages) <= MAX_CHUNKS < qos.WEIGHTS.depth
    assert received(WeightsReceiver(), messages)[0].payload == bytes(size)


@pytest.mark.parametrize(
    'change',
    [{'sha256': '0' * 64}, {'total_bytes': 2**20}, {'chunks': 7}, {'step': 11}, {'manifest': '{}'}],
    ids=lambda change: next(iter(change)),
)
def test_a_piece_that_contradicts_the_others_is_not_taken_for_one_of_them(change):
    receiver, foreign = WeightsReceiver(), messages_of()[0]
    for name, value in change.items():
        setattr(foreign, name, value)
    assert [out.version for out in received(receiver, [foreign, *messages_of()])] == [1]


@pytest.mark.parametrize(
    'change',
    [{'chunk': 9}, {'chunks': 2**31}, {'total_bytes': 2**40}, {'manifest': 'x' * 2**20}, {'version': 0}],
    ids=lambda change: next(iter(change)),
)
def test_a_piece_that_contradicts_itself_is_refused_before_it_fills_the_memory(change):
    message = messages_of()[1]
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(WeightsError, match='repair the sender'):
        WeightsReceiver().push(message)


def test_more_bytes_than_announced_are_refused():
    first, *_ = messages_of()
    first.total_bytes = 100
    with pytest.raises(WeightsError, match='100 B'):
        WeightsReceiver().push(first)


@pytest.mark.parametrize(('version', 'payload'), [(0, b'x'), (1, b'')])
def test_B10_nothing_is_sent_as_version_zero_or_empty(version, payload):
    with pytest.raises(WeightsError):
        to_messages('{}', payload, version, 0)


def test_B21_no_pickle_is_on_this_wire():
    import drqv2_policy_node.weights as wire

    assert not {'pickle', 'marshal', 'dill'} & set(vars(wire))
