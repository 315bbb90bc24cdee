# SPDX-License-Identifier: Apache-2.0
"""A client that speaks to every version of the genuine servers, as recorded, and to servers that mean no good."""

import socket
import struct
import threading
import time
import tracemalloc

import numpy as np
import pytest
import recorded
from servers import after_request, GREETING, Policy, READY, shake_hands, TcpServer, ZmqServer

from so101_contract.errors import ContractError
from vla_policy_node.client import PolicyServer, RefusalError
from vla_policy_node.protocol import answer_of, Offer, request_of, Seen, seen_of, targets_of
from vla_policy_node.wire import decode, encode, Encoding, LARGEST_REQUEST, Modality
from vla_policy_node.zmtp import AbsentError, Address, Connection, LateError, ServerError

TARGETS = np.array([[(5 * t + j) / 10 for j in range(5)] + [20 + t] for t in range(16)])
PATIENT_S = 60.0


def seen(offer, text='Grab pens and place into pen holder.'):
    video = {
        name: np.full((len(offer.video_times), 4, 6, 3), k, np.uint8) for k, name in enumerate(offer.cameras)
    }
    return Seen(video, np.arange(6.0 * len(offer.state_times)).reshape(-1, 6), text)


class Recording:
    """A genuine server's answers, by the endpoint that is asked."""

    def __init__(self, version):
        self.version, self.said = version, []

    def __call__(self, request):
        said = decode(request, LARGEST_REQUEST)
        self.said.append(said)
        return recorded.reply_to(self.version, said['endpoint'])


@pytest.mark.parametrize('version', recorded.ENCODINGS)
def test_a_genuine_server_answers_with_targets(version):
    with ZmqServer(Recording(version)) as server:
        client = PolicyServer(server.address, timeout_s=PATIENT_S)
        offer = client.greet()
        assert (offer.cameras, offer.horizon, offer.video_times) == (('front', 'wrist'), 16, (0,))
        client.reset()
        np.testing.assert_allclose(client.targets(seen(offer)), TARGETS, atol=1e-5)
        client.close()
    sent = server.reply.said[-1]
    genuine = decode(next(request for name, request, _ in recorded.frames(version) if name == 'get_action'))
    assert shape_of(sent) == shape_of(genuine)


def shape_of(value):
    """What a message is made of: keys, dtypes and shapes but for the pictures' size, and kinds."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape_of(item) for item in value]
    return (value.dtype, value.shape) if isinstance(value, np.ndarray) else type(value)


@pytest.mark.parametrize('version', recorded.PICKLES)
def test_a_pickle_server_is_refused(version):
    pickled = recorded.frames(version)[1][2]
    with ZmqServer(lambda _: pickled) as server, pytest.raises(ContractError, match='speaks pickle'):
        PolicyServer(server.address, timeout_s=PATIENT_S).greet()


def test_a_wrong_token_is_told_and_the_right_one_sent():
    def reply(request):
        if decode(request).get('api_token') != 'secret':
            return recorded.reply_to('n17', 'ping', 1)
        return recorded.reply_to('n17', 'get_modality_config')

    with ZmqServer(reply) as server:
        with pytest.raises(RefusalError, match=r'Unauthorized.*give it the token'):
            PolicyServer(server.address, token='guess', timeout_s=PATIENT_S).greet()
        assert PolicyServer(server.address, token='secret', timeout_s=PATIENT_S).greet().horizon == 16


def test_an_error_of_the_server_is_told_in_its_words_and_bounded():
    policy = Policy(None)
    policy.answer = lambda _: encode({'error': 'out of memory ' * 10_000}, Encoding.N16)
    with ZmqServer(policy) as server:
        client = PolicyServer(server.address, timeout_s=PATIENT_S)
        with pytest.raises(RefusalError, match='out of memory') as error:
            client.targets(seen(policy.offer))
        assert len(str(error.value)) < 500


def wrong(**arrays):
    """An answer of N1.6 with some arrays in the place of the right ones."""
    right = answer_of(TARGETS, Offer(Encoding.N16, ('front',), 16))
    return [{**right[0], **arrays}, {}]


NAN = np.full((1, 16, 5), np.nan, np.float32)
ANSWERS = {
    'NaN': (wrong(single_arm=NAN), 'finite targets'),
    'wrong horizon': (wrong(single_arm=np.zeros((1, 8, 5)), gripper=np.zeros((1, 8, 1))), '16 entries'),
    'six arm joints': (wrong(single_arm=np.zeros((1, 16, 6))), '16 entries of 5 and 1 joints'),
    'another robot': ([{'left_arm': np.zeros((1, 16, 7))}, {}], 'single_arm and gripper'),
    'lists': (wrong(single_arm=[[0.0] * 5] * 16), 'as arrays'),
    'nothing': (None, 'single_arm and gripper'),
    'a text': ('no', 'single_arm and gripper'),
    'flat keys': ([{'action.single_arm': np.zeros((1, 16, 5))}, {}], 'use-sim-policy-wrapper'),
}


@pytest.mark.parametrize('what', ANSWERS)
def test_an_answer_that_is_no_chunk_is_refused(what):
    answer, sentence = ANSWERS[what]
    policy = Policy(None)
    policy.answer = lambda _: encode(answer, Encoding.N16)
    with ZmqServer(policy) as server, pytest.raises(ServerError, match=sentence) as error:
        PolicyServer(server.address, timeout_s=PATIENT_S).targets(seen(policy.offer))
    assert str(error.value).startswith('expected')


@pytest.mark.parametrize('gripper', [(16,), (16, 1), (1, 16), (1, 16, 1)])
def test_the_gripper_comes_in_every_shape_that_there_was(gripper):
    for encoding in Encoding:
        offer = Offer(encoding, ('front',), 16)
        answer = answer_of(TARGETS, offer)
        group = answer if encoding.is_flat else answer[0]
        key = next(key for key in group if key.endswith('gripper'))
        group[key] = group[key].reshape(gripper)
        np.testing.assert_allclose(targets_of(answer, offer), TARGETS, atol=1e-5)


OFFERS = {
    'another robot': {'state': Modality(('left_arm', 'right_arm'), (0,))},
    'no camera': {'video': 7},
    'a horizon of thousands': {'action': Modality(('single_arm', 'gripper'), tuple(range(1000)))},
    'a horizon of nothing': {'action': Modality(('single_arm', 'gripper'), ())},
    'times to come': {'video': Modality(('front',), (0, 1))},
    'a past of hours': {'video': Modality(('front',), (-1000, 0))},
    'a hundred pictures': {'video': Modality(('front',), (0,) * 100)},
}


@pytest.mark.parametrize('what', OFFERS)
def test_a_server_for_something_else_is_refused(what):
    configuration = encode(Offer(Encoding.N16, ('front',), 16).to_value() | OFFERS[what], Encoding.N16)
    with ZmqServer(lambda _: configuration) as server, pytest.raises(ServerError, match='expected'):
        PolicyServer(server.address, timeout_s=PATIENT_S).greet()


@pytest.mark.parametrize('encoding', Encoding)
def test_what_is_asked_is_what_the_other_end_understands(encoding):
    offer = Offer(encoding, ('front', 'wrist'), 16, (-3, 0), (-4, -3, -1, 0))
    assert Offer.from_value(decode(encode(offer.to_value(), encoding))) == offer
    shown = seen(offer)
    read = seen_of(decode(encode(request_of(shown, offer), encoding), LARGEST_REQUEST), offer)
    assert read.instruction == shown.instruction
    np.testing.assert_allclose(read.state, shown.state)
    for name in offer.cameras:
        assert np.array_equal(read.video[name], shown.video[name])


# ---- below the messages -----------------------------------------------------------------------------------


def long_head(size, flags=2):
    return bytes([flags]) + struct.pack('>Q', size)


def endless(*first):
    """Send parts of an answer that never ends, until the client hangs up."""

    def behave(connection):
        shake_hands(connection)
        connection.recv(1 << 16)
        connection.sendall(b'\x01\x00')
        while True:
            connection.sendall(b''.join(first))

    return behave


def drip(connection):
    shake_hands(connection)
    connection.recv(1 << 16)
    connection.sendall(b'\x01\x00' + long_head(1000))
    while True:
        connection.sendall(b'x')
        time.sleep(0.05)


STRANGE = {
    'a frame of 1 GB': (after_request(b'\x01\x00', long_head(1 << 30)), ServerError, 'frame of 1073741824'),
    'a frame of 2**63': (after_request(b'\x01\x00', long_head((1 << 63) + 5)), ServerError, 'at most'),
    'endless parts': (endless(long_head(900_000, 3) + bytes(900_000)), ServerError, 'several parts'),
    'endless commands': (endless(b'\x04\x06\x04PINGx'), ServerError, 'commands and no answer'),
    'no delimiter': (after_request(b'\x00\x01\xc0'), ServerError, 'of one part'),
    'an address': (after_request(b'\x01\x05abcde\x00\x01\xc0'), ServerError, 'an address'),
    'odd flags': (after_request(b'\xf8\x00'), ServerError, 'flags 248'),
    'ssh': (lambda c: (c.sendall(b'SSH-2.0-OpenSSH_9.2\r\n'), c.recv(1)), ServerError, 'another program'),
    'encryption': (
        lambda c: (c.sendall(GREETING.replace(b'NULL', b'CURV')), c.recv(1 << 10), c.recv(1)),
        ServerError,
        'security',
    ),
    'a publisher': (
        lambda c: (c.sendall(GREETING + READY.replace(b'REP', b'PUB')), time.sleep(0.3)),
        ServerError,
        'type b.PUB',
    ),
    'a hang-up': (lambda c: None, AbsentError, 'hung up|reset'),
    'a hang-up in the answer': (
        lambda c: (shake_hands(c), c.recv(1 << 16), c.sendall(b'\x01\x00\x00\x09abc')),
        AbsentError,
        'hung up|reset',
    ),
    'drops': (drip, LateError, 'in time'),
    'silence': (after_request(), LateError, 'in time'),
    'silence from the start': (lambda c: c.recv(1 << 20) and c.recv(1), LateError, 'in time'),
}


@pytest.mark.parametrize('what', STRANGE)
def test_a_strange_server_costs_a_sentence_and_little_memory(what):
    behave, kind, sentence = STRANGE[what]
    timeout_s = 1.0 if kind is LateError else PATIENT_S
    with TcpServer(behave) as server:
        tracemalloc.start()
        try:
            with pytest.raises(kind, match=sentence) as error:
                PolicyServer(server.address, timeout_s=timeout_s).greet()
            assert tracemalloc.get_traced_memory()[1] < 16e6
        finally:
            tracemalloc.stop()
    assert str(error.value).startswith('expected')


def test_nobody_there_is_told_at_once():
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(AbsentError, match='refused'):
        PolicyServer(f'tcp://127.0.0.1:{port}', timeout_s=PATIENT_S).greet()


def test_an_answer_after_its_time_meets_nobody():
    gate = threading.Event()

    def reply(request):
        late = decode(request)['endpoint'] == 'ping'
        if late:
            gate.wait(60.0)
        return encode('late' if late else 'right', Encoding.N16)

    def ask(connection, endpoint, timeout_s):
        frame = encode({'endpoint': endpoint}, Encoding.N16)
        return decode(connection.ask(frame, timeout_s=timeout_s, largest=100))

    with ZmqServer(reply) as server:
        address = Address.parse(server.address)
        first = Connection(address, PATIENT_S)
        with pytest.raises(LateError):
            ask(first, 'ping', 0.2)
        gate.set()
        with pytest.raises(ServerError):
            ask(first, 'other', PATIENT_S)
        second = Connection(address, PATIENT_S)
        assert ask(second, 'other', PATIENT_S) == 'right'
        second.close()


def test_a_server_that_asks_for_a_sign_of_life_gets_one():
    heard = []

    def behave(connection):
        shake_hands(connection)
        connection.recv(1 << 16)
        connection.sendall(b'\x04\x0a\x04PING\x00\x0aabc')
        heard.append(connection.recv(64))
        connection.sendall(b'\x01\x00\x00\x02\xa1x')

    with TcpServer(behave) as server:
        connection = Connection(Address.parse(server.address), PATIENT_S)
        assert connection.ask(b'x', timeout_s=PATIENT_S, largest=10) == b'\xa1x'
    assert heard == [b'\x04\x08\x04PONGabc']


@pytest.mark.parametrize(
    'text', ['', 'localhost', 'tcp://host', 'tcp://h:0', 'tcp://h:99999', 'ipc://x', 'tcp://a b:1']
)
def test_an_address_is_refused_with_an_example(text):
    with pytest.raises(ServerError, match='tcp://HOST:PORT'):
        Address.parse(text)


def test_addresses_are_read_and_said():
    for text in ('tcp://127.0.0.1:5555', 'tcp://gpu-box.local:80', 'tcp://[::1]:5555'):
        assert str(Address.parse(text)) == text
