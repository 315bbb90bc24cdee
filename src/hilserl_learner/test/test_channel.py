# SPDX-License-Identifier: Apache-2.0
import threading

import pytest

from hilserl_learner.live.process import Channel, ChannelClosedError


@pytest.fixture
def ends():
    mine, other = Channel.pair()
    theirs = Channel(other)
    yield mine, theirs
    mine.close()
    theirs.close()


def test_headers_and_bytes_arrive_in_order_whatever_their_size(ends):
    one, two = ends
    sent = [({'n': n}, bytes([n]) * size) for n, size in enumerate((0, 1, 5_000_000, 70_000, 0))]
    thread = threading.Thread(target=lambda: [one.send(header, payload) for header, payload in sent])
    thread.start()
    got = []
    while len(got) < len(sent):
        got += two.receive(5.0)
    thread.join()
    assert [(message.header, message.payload) for message in got] == sent


def test_waiting_ends_after_the_time_that_was_given(ends):
    assert ends[0].receive(0.01) == []


def test_what_was_sent_before_the_end_still_arrives_and_then_the_end_is_noticed(ends):
    one, two = ends
    one.send({'last': 1})
    one.close()
    assert two.receive(1.0)[0].header == {'last': 1}
    with pytest.raises(ChannelClosedError, match='ended'):
        two.receive(1.0)


def test_sending_to_nobody_is_an_error(ends):
    one, two = ends
    two.close()
    with pytest.raises(ChannelClosedError):
        one.send({'hello': 1}, bytes(10_000_000))


def test_a_message_that_is_cut_off_by_the_end_of_its_sender_is_no_message(ends):
    one, two = ends
    one._end.send_bytes(b'{"half": 1}')  # its bytes never follow
    one.close()
    with pytest.raises(ChannelClosedError, match='ended'):
        two.receive(1.0)


def test_a_thread_that_waits_wakes_up_when_its_own_end_is_closed(ends):
    woken = []

    def wait():
        try:
            ends[0].receive(None)
        except ChannelClosedError as error:
            woken.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    ends[0].close()
    thread.join(10.0)
    assert woken


def test_what_is_received_is_read_as_json_and_never_unpickled(ends):
    one, two = ends
    one._end.send({'command': 'stop'})  # a pickle
    one._end.send_bytes(b'')
    with pytest.raises(UnicodeDecodeError):
        two.receive(1.0)
