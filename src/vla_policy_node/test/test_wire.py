# SPDX-License-Identifier: Apache-2.0
"""Messages of genuine servers decode and encode again; what is hostile is refused before it is built."""

from contextlib import suppress
import io
import pickle
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
import msgpack
import numpy as np
import pytest
import recorded

from vla_policy_node.wire import decode, encode, Encoding, encoding_of, npy_bytes, PickleError, WireError

EXCHANGES = [
    pytest.param(version, request, reply, id=f'{version}-{k}-{endpoint}')
    for version in recorded.ENCODINGS
    for k, (endpoint, request, reply) in enumerate(recorded.frames(version))
]


def same(one, two):
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and one.shape == two.shape and np.array_equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


@pytest.mark.parametrize(('version', 'request_frame', 'reply'), EXCHANGES)
def test_a_recorded_message_decodes_and_encodes_to_the_same_content(version, request_frame, reply):
    for frame in (request_frame, reply):
        again = encode(decode(frame), recorded.ENCODINGS[version])
        assert same(decode(again), decode(frame))
        assert msgpack.unpackb(again, strict_map_key=False) == msgpack.unpackb(frame, strict_map_key=False)


@pytest.mark.parametrize('version', recorded.ENCODINGS)
def test_the_configuration_tells_the_encoding(version):
    configuration = decode(recorded.reply_to(version, 'get_modality_config'))
    assert encoding_of(configuration) is recorded.ENCODINGS[version]


def test_what_is_no_configuration_tells_none():
    for said in (None, {}, {'video': {}}, {'status': 'ok'}):
        with pytest.raises(WireError, match='is another program there'):
            encoding_of(said)


@pytest.mark.parametrize('version', recorded.PICKLES)
def test_the_answers_of_pickle_servers_are_refused(version):
    for _, _, reply in recorded.frames(version):
        with pytest.raises(PickleError, match='speaks pickle'):
            decode(reply)


class Bomb:
    ran = False

    def __reduce__(self):
        return exec, ('import test_wire; test_wire.Bomb.ran = True',)


@pytest.mark.parametrize('protocol', range(2, 6))
def test_of_a_pickle_no_byte_is_loaded(protocol):
    with pytest.raises(PickleError):
        decode(pickle.dumps(Bomb(), protocol))
    assert not Bomb.ran


def raw(descr='<f4', shape=(2,), data=bytes(8), **more):
    return {
        b'nd': True,
        b'type': descr,
        b'kind': b'',
        b'shape': list(shape),
        b'data': data,
    } | {key.encode(): value for key, value in more.items()}


def npy(array, **how):
    file = io.BytesIO()
    np.save(file, array, **how)
    return {'__ndarray_class__': True, 'as_npy': file.getvalue()}


def header(text, body=b''):
    return {
        '__ndarray_class__': True,
        'as_npy': b'\x93NUMPY\x01\x00' + len(text).to_bytes(2, 'little') + text.encode() + body,
    }


HOSTILE = {
    'object array': npy(np.array([Bomb()], dtype=object), allow_pickle=True),
    'object array of msgpack-numpy': raw('|O', data=pickle.dumps(Bomb()), kind=b'O'),
    'kind O with a plain type': raw(kind=b'O'),
    'records': npy(np.zeros(2, dtype=[('a', 'f4'), ('b', 'O')]), allow_pickle=True),
    'records of msgpack-numpy': raw([['a', '<f4']], kind=b'V'),
    'text array': npy(np.array(['abc'])),
    'dates': npy(np.zeros(2, 'M8[s]')),
    'complex': raw('<c8'),
    'long double': raw('<f16', data=bytes(32)),
    'giant shape': raw(shape=(1 << 40, 1 << 40)),
    'giant shape of a file': header(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,), }\n"
    ),
    'product that wraps': raw(shape=(1 << 32, 1 << 32), data=b''),
    'negative shape': raw(shape=(-2, -1)),
    'shape of texts': raw(shape=('2',)),
    'boolean shape': raw(shape=(True, 2)),
    'many axes': raw(shape=(1,) * 40, data=bytes(4)),
    'short data': raw(data=bytes(7)),
    'data as a text': raw(data='12345678'),
    'no file': {'__ndarray_class__': True, 'as_npy': b'junk'},
    'file without bytes': {'__ndarray_class__': True},
    'code in the header': header("{'descr': __import__('os').system('true'), 'shape': (1,), }\n", bytes(4)),
    'file of version 3': {'__ndarray_class__': True, 'as_npy': b'\x93NUMPY\x03\x00' + bytes(64)},
    'zip instead of a file': {'__ndarray_class__': True, 'as_npy': b'PK\x03\x04' + bytes(64)},
    'configuration of numbers': {'__ModalityConfig_class__': True, 'as_json': 7},
    'configuration of broken JSON': {'__ModalityConfig_class__': True, 'as_json': '[' * 5000},
    'configuration with huge times': {
        '__ModalityConfig__': True,
        'as_json': {'modality_keys': ['a'], 'delta_indices': [1 << 60]},
    },
    'numbers as keys': {1: 2},
    'deep': [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]],
    'extension': msgpack.ExtType(5, b'abc'),
    'date': msgpack.Timestamp(1),
}


@pytest.mark.parametrize('what', HOSTILE)
def test_what_is_hostile_is_refused_with_a_sentence(what):
    with pytest.raises(WireError, match='expected') as error:
        decode(msgpack.packb({'single_arm': HOSTILE[what]}))
    assert len(str(error.value)) < 400
    assert not Bomb.ran


@pytest.mark.parametrize(
    'frame',
    [
        pytest.param(b'\xdd\xff\xff\xff\xff', id='list of 4 billion'),
        pytest.param(b'\xdf\xff\xff\xff\xff', id='map of 4 billion'),
        pytest.param(b'\xc6\xff\xff\xff\xff', id='4 GB of bytes'),
        pytest.param(b'\x91' * 500_000 + b'\xc0', id='half a million lists in each other'),
        pytest.param(b'\xdc\x03\xff' * 300_000, id='wide and deep'),
        pytest.param(b'\xdc\x04\x00' + b'\x80' * 1024, id='maps'),
        pytest.param(msgpack.packb([[{}] * 1000] * 900), id='a million maps'),
        pytest.param(b'\xc1', id='no type'),
        pytest.param(b'', id='nothing'),
        pytest.param(b'\xc0\xc0', id='more than a message'),
        pytest.param(b'HTTP/1.1 400 Bad Request\r\n', id='http'),
        pytest.param(bytes(2 << 20), id='two megabytes'),
    ],
)
def test_a_frame_that_wants_much_memory_gets_little(frame):
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match='expected'):
            decode(frame)
        assert tracemalloc.get_traced_memory()[1] < 32e6
    finally:
        tracemalloc.stop()


@given(st.sampled_from(EXCHANGES), st.data())
def test_a_changed_byte_gives_a_value_or_a_sentence(exchange, data):
    frame = bytearray(exchange.values[2])
    place = data.draw(st.integers(0, len(frame) - 1))
    frame[place] = data.draw(st.integers(0, 255))
    with suppress(WireError):
        decode(bytes(frame))


@given(st.data())
def test_arrays_of_numbers_go_there_and_back(data):
    dtype = np.dtype(data.draw(st.sampled_from(['|u1', '<f4', '<f8', '>f8', '<i8', '|b1', '<u2'])))
    shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=5)))
    array = np.random.default_rng(1).integers(0, 2, shape).astype(dtype)
    for encoding in Encoding:
        assert same(decode(encode({'a': array}, encoding)), {'a': array})
        assert same(decode(encode({'a': np.asarray(array, order='F')}, encoding)), {'a': array})


@given(st.lists(st.integers(0, 4), max_size=5))
def test_a_file_is_what_numpy_writes_and_reads(shape):
    array = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)
    assert npy_bytes(array) == npy(array)['as_npy']
    assert same(np.load(io.BytesIO(npy_bytes(array))), array)


def test_an_array_in_fortran_order_keeps_its_content():
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert same(decode(msgpack.packb(npy(array))), np.arange(6.0).reshape(2, 3))
