# SPDX-License-Identifier: Apache-2.0
from collections import OrderedDict
from contextlib import suppress
import copyreg
import io
import os
import pickle
import sys
import zipfile

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
import torch

from drqv2_policy_node.robobase.snapshot import read_snapshot, SnapshotError
from drqv2_policy_node.robobase.unpickle import Inert, MAX_BYTES, read_pickle, UnpickleError

from .snapshots import agent_state, CONFIG, COUNTERS, fake_omegaconf, write


class Runs:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Builds:
    """Pickles as an object with a state."""

    def __reduce__(self):
        return os.system, ('false',), {'x': 1}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(), inner)
        | st.tuples(inner)
        | st.tuples(inner, inner, inner, inner)
    ),
    max_leaves=20,
)


@given(value=PLAIN, protocol=st.integers(2, 5))
def test_plain_values_come_out_as_they_went_in(value, protocol):
    assert read_pickle(pickle.dumps(value, protocol)) == value


EVIL = {
    'system': lambda path: Runs(os.system, f'touch {path}'),
    'eval': lambda path: Runs(eval, f'open({path!r}, "w")'),
    'exec': lambda path: Runs(exec, f'open({path!r}, "w")'),
    'import': lambda path: Runs(__import__, 'os'),
    'getattr': lambda path: Runs(getattr, 'x', 'upper'),
    'open': lambda path: Runs(open, path, 'w'),
    'numpy': lambda path: Runs(np.save, path, 1),
    'torch': lambda path: Runs(torch.save, 1, path),
    'state': lambda path: Builds(),
}


@pytest.mark.parametrize('evil', EVIL)
@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_L10_a_pickle_that_would_run_code_is_refused_and_nothing_runs(tmp_path, evil, protocol):
    marker = tmp_path / 'ran'
    stream = pickle.dumps([EVIL[evil](str(marker)), 1], protocol)
    with pytest.raises(UnpickleError, match=r'could run code|opcode'):
        read_pickle(stream)
    assert not marker.exists()


@pytest.mark.parametrize('where', ['agent', 'cfg', 'extra'])
def test_L10_code_anywhere_in_a_snapshot_is_refused_by_name_and_does_not_run(tmp_path, where):
    marker = tmp_path / 'ran'
    evil = Runs(os.system, f'touch {marker}')
    state = agent_state()
    if where == 'agent':
        state['evil'] = evil
    path = write(
        tmp_path / 's.pt',
        state,
        config={'x': evil} if where == 'cfg' else CONFIG,
        **{'zzz': evil} if where == 'extra' else {},
    )
    with pytest.raises(UnpickleError, match=r'posix\.system'):
        read_snapshot(path)
    assert not marker.exists()
    with fake_omegaconf():
        torch.load(path, map_location='cpu', weights_only=False)  # the usual way of loading it runs it
    assert marker.exists()


@pytest.mark.parametrize(
    'name', ['omegaconf.x\nos.system', 'builtins\neval', 'torch\nload', 'typing_evil\nx', 'os\nsystem']
)
def test_L10_names_off_the_list_are_refused_even_if_nothing_calls_them(name):
    module, attribute = name.split('\n')
    with pytest.raises(UnpickleError):
        read_pickle(f'c{module}\n{attribute}\n.'.encode())


def test_L10_the_reader_imports_nothing_that_a_stream_names():
    before = set(sys.modules)
    read_pickle(b'comegaconf.evil\nThing\n.')
    assert not {name for name in set(sys.modules) - before if 'omegaconf' in name}


def short(text):
    return b'\x8c' + bytes([len(text)]) + text.encode()


GLOBAL_INERT = b'comegaconf.nodes\nAnyNode\n'
GLOBAL_DICT = b'ccollections\nOrderedDict\n'


@pytest.mark.parametrize(
    ('module', 'name'),
    [
        ('os', 'system'),
        ('builtins', 'eval'),
        ('builtins', 'getattr'),
        ('builtins', 'dict.fromkeys'),
        ('collections', 'OrderedDict.__init__.__globals__'),
        ('omegaconf.nodes', 'os.system'),
        ('omegaconf.nodes', 'AnyNode.__init__.__builtins__'),
        ('typing', 'sys.modules'),
        ('pathlib', 'os.system'),
        ('torch', 'FloatStorage.__class__'),
        ('torch', 'load'),
        ('copyreg', '_reconstructor'),
        ('copy_reg', '_reconstructor'),
        ('copyreg', 'add_extension'),
        ('functools', 'partial'),
        ('pickle', 'loads'),
    ],
)
@pytest.mark.parametrize('by', ['stack', 'text'])
def test_L10_dotted_names_and_ways_around_the_list_are_refused(module, name, by):
    parts = {
        'stack': b'\x80\x04' + short(module) + short(name) + b'\x93.',
        'text': f'c{module}\n{name}\n.'.encode(),
    }
    with pytest.raises(UnpickleError, match='could run code'):
        read_pickle(parts[by])


@pytest.mark.parametrize(
    'stream',
    [b'\x82\x01.', b'\x83\x01\x00.', b'\x84\x01\x00\x00\x00.'],
    ids=['EXT1', 'EXT2', 'EXT4'],
)
def test_L10_extension_codes_are_refused_even_where_one_is_registered_and_cached(stream):
    copyreg.add_extension('os', 'getpid', 1)
    copyreg._extension_cache[1] = os.getpid
    try:
        assert pickle.loads(stream) is os.getpid
        with pytest.raises(UnpickleError, match='the opcode EXT'):
            read_pickle(stream)
    finally:
        copyreg._extension_cache.pop(1, None)
        copyreg.remove_extension('os', 'getpid', 1)


@pytest.mark.parametrize(
    ('stream', 'opcode'),
    [
        (b'(ios\ngetpid\n.', 'INST'),
        (b'(' + GLOBAL_INERT + b'o.', 'OBJ'),
        (b'\x80\x04' + GLOBAL_INERT + b')}\x92.', 'NEWOBJ_EX'),
        (b'Pname\n.', 'PERSID'),
        (b'\x80\x05\x97.', 'NEXT_BUFFER'),
        (b'\x80\x05\x96' + bytes(8) + b'.', 'BYTEARRAY8'),
    ],
)
def test_L10_opcodes_that_data_do_not_need_are_refused(stream, opcode):
    with pytest.raises(UnpickleError, match=f'the opcode {opcode}'):
        read_pickle(stream)


STATE = b'}' + short('__class__') + b'K\x01s'
SLOTS = b'(N}' + short('_make') + b'K\x01st'


@pytest.mark.parametrize('state', [STATE, SLOTS], ids=['dict', 'slots'])
@pytest.mark.parametrize(
    'target',
    {
        'class': GLOBAL_INERT,
        'function': GLOBAL_DICT,
        'rebuild': b'ctorch._utils\n_rebuild_tensor_v2\n',
        'storage type': b'ctorch\nFloatStorage\n',
        'storage': b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000NK\x01tQ',
        'list': b']',
        'text': short('x'),
    }.items(),
    ids=lambda item: item[0],
)
def test_L10_no_state_changes_what_stands_for_a_class_or_a_function(target, state):
    with pytest.raises(UnpickleError, match='damaged'):
        read_pickle(target[1] + state + b'b.')
    assert read_pickle(pickle.dumps(OrderedDict(a=1), 2)) == {'a': 1}
    assert not hasattr(read_pickle(GLOBAL_INERT + b')\x81.'), '_make')


def test_L10_a_state_of_an_object_is_noted_and_does_nothing(tmp_path):
    state = b'}' + b''.join(
        short(name) + short('x') + b's' for name in ('__setstate__', '__class__', '__reduce__', '__dict__')
    )
    inert = read_pickle(b'\x80\x02' + GLOBAL_INERT + b')\x81' + state + b'b.')
    assert isinstance(inert, Inert)
    assert type(inert).kind == 'omegaconf.nodes.AnyNode'
    assert set(inert.state) == {'__setstate__', '__class__', '__reduce__', '__dict__'}
    assert not hasattr(inert, '__dict__')


@pytest.mark.parametrize(
    'stream',
    [
        GLOBAL_INERT + b')R)R.',  # a call of what a call gave
        short('x') + b')R.',
        b'K\x01)\x81.',
        GLOBAL_DICT + b')\x81.',  # an object of a function
        b'(lK\x00K\x01sb.',
    ],
)
def test_L10_calls_of_what_is_no_name_are_refused(stream):
    with pytest.raises(UnpickleError, match='damaged'):
        read_pickle(stream)


def test_L10_what_a_stream_names_is_never_what_is_installed():
    for name in (
        'builtins\nint',
        'builtins\ntype',
        'pathlib\nPosixPath',
        'typing\nAny',
        'torch\nFloatStorage',
    ):
        found = read_pickle(f'c{name}\n.'.encode())
        assert issubclass(found, Inert)
    assert isinstance(read_pickle(b'cbuiltins\ntype\n(K\x01tR.'), Inert)


def deep(levels):
    return b')' + b'\x85' * levels + b'.'


def doubling(times):
    """A tuple that names the one before it twice, and so on; as a key of a dict it would be hashed."""
    return b'}K\x01\x85q\x00' + b''.join(b'0h%ch%c\x86q%c' % (i, i, i + 1) for i in range(times)) + b'K\x01s.'


@pytest.mark.parametrize(
    ('stream', 'match'),
    [
        (deep(200_000), 'levels'),
        (b'}' + deep(200_000)[:-1] + b'K\x01s.', 'levels'),
        (doubling(100), 'values'),
        (b'r\xff\xff\xff\x7f.', 'damaged'),
        (b'Nr\xff\xff\xff\x7f.', 'damaged'),
        (b'Np2000000000\n.', 'damaged'),
        (b'\x80\x04\x95' + b'\xff' * 7 + b'\x7fN.', 'damaged'),
        (b'\x80\x04\x8e' + b'\xff' * 7 + b'\x7fx.', 'damaged'),
        (b'\x80\x04\x8d' + b'\xff' * 7 + b'\x7fx.', 'damaged'),
        (b'\x8a\xff' + b'\x7f' * 255 + b'.', 'bits'),
        (b'I' + b'9' * 5000 + b'\n.', 'damaged'),
        (b'N0' * 600_000 + b'N.', 'opcodes'),
    ],
    ids=[
        *('deep', 'deep key', 'doubling', 'memo 1', 'memo 2', 'memo 3', 'frame', 'bytes', 'text'),
        *('bits', 'digits', 'opcodes'),
    ],
)
def test_L10_a_stream_cannot_take_the_memory_the_stack_or_the_time(stream, match):
    with pytest.raises(UnpickleError, match=match):
        read_pickle(stream)


def test_L10_more_bytes_than_a_snapshot_needs_are_refused():
    with pytest.raises(UnpickleError, match='bytes'):
        read_pickle(b'B' + (MAX_BYTES + 1).to_bytes(4, 'little') + bytes(MAX_BYTES + 1) + b'.')


@pytest.mark.parametrize(
    ('offset', 'shape', 'stride'),
    [
        (0, (1 << 60,), (0,)),
        (0, (1,) * 100, (1,) * 100),
        (-1, (1,), (1,)),
        (0, (True,), (1,)),
        (0, (2,), (1, 1)),
    ],
)
def test_L10_a_tensor_of_senseless_sizes_is_refused(offset, shape, stride):
    stream = (
        b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n'
        b'X\x01\x00\x00\x000NK\x01tQ'
    )
    parts = b''.join(
        pickle.dumps(part, 2)[2:-1] for part in (offset, shape, stride)
    )  # without PROTO and STOP
    with pytest.raises(UnpickleError, match='damaged'):
        read_pickle(stream + parts + b'tR.')


def test_names_that_come_twice_are_refused():
    stream = b'\x80\x02' + GLOBAL_DICT + b')R(' + (short('a') + b'K\x01') * 2 + b'u.'
    with pytest.raises(UnpickleError, match='twice'):
        read_pickle(stream)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    path = write(tmp_path / 's.pt')
    out = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
    path.write_bytes(out.getvalue())
    with pytest.raises(SnapshotError, match='nothing compressed'):
        read_snapshot(path)


@given(data=st.binary(max_size=200))
def test_noise_is_refused_and_never_anything_else(data):
    with suppress(UnpickleError):
        read_pickle(data)


@given(data=st.data())
def test_a_damaged_stream_is_read_or_refused_but_never_crashes(data):
    stream = bytearray(pickle.dumps({'a': [1, 2.5, 'x', None], 'b': (True, b'1')}, 2))
    at = data.draw(st.integers(0, len(stream) - 1))
    stream[at] = data.draw(st.integers(0, 255))
    with suppress(UnpickleError):
        read_pickle(bytes(stream))


def test_L10_a_genuine_container_is_read_without_omegaconf(tmp_path):
    state = agent_state()
    snapshot = read_snapshot(write(tmp_path / 's.pt', state, best_eval_reward=np.float64(1.5)))
    assert 'omegaconf' not in sys.modules
    assert list(snapshot.tensors) == list(state)
    assert all(torch.equal(snapshot.tensors[name], tensor) for name, tensor in state.items())
    assert snapshot.config == CONFIG
    assert snapshot.counters == COUNTERS
    assert snapshot.best == 1.5


def test_a_genuine_container_has_what_the_tests_claim_it_has(tmp_path):
    with zipfile.ZipFile(write(tmp_path / 's.pt')) as archive:
        stream = archive.read('archive/data.pkl')
    for part in (
        b'cuda:0',
        b'omegaconf.dictconfig',
        b'OrderedDict',
        b'defaultdict',
        b'hidden_state',
        b'FloatStorage',
    ):
        assert part in stream
    assert stream[1] == 2  # the protocol


def test_tensors_may_be_views_of_larger_storages(tmp_path):
    state = agent_state()
    name = 'encoder.convs_per_cam.0.3.weight'
    whole = torch.randn(2, *state[name].shape)
    state[name] = whole[1].transpose(0, 1)
    assert torch.equal(read_snapshot(write(tmp_path / 's.pt', state)).tensors[name], state[name])


def test_a_tensor_larger_than_its_storage_is_refused_before_it_takes_memory(tmp_path):
    state = agent_state()
    state['encoder.convs_per_cam.0.0.bias'] = torch.zeros(1).expand(10**6, 10**6)
    with pytest.raises(UnpickleError, match='beyond the 1 numbers'):
        read_snapshot(write(tmp_path / 's.pt', state))


@pytest.mark.parametrize('kept', [0, 10, 1000, 0.3, 0.9, -1])
def test_a_truncated_file_is_refused(tmp_path, kept):
    content = write(tmp_path / 's.pt').read_bytes()
    end = kept if isinstance(kept, int) else int(kept * len(content))
    (tmp_path / 't.pt').write_bytes(content[:end])
    with pytest.raises(SnapshotError, match='copy the file again'):
        read_snapshot(tmp_path / 't.pt')


def test_a_flipped_bit_in_a_tensor_is_refused(tmp_path):
    path = write(tmp_path / 's.pt')
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match='CRC'):
        read_snapshot(path)


@pytest.mark.parametrize(
    'payload',
    [{'model': torch.zeros(2)}, [1, 2], {'agent': [1]}, {'agent': {'a': 'text'}}],
    ids=['key', 'list', 'agent', 'text'],
)
def test_files_that_are_no_snapshots_are_refused(tmp_path, payload):
    torch.save(payload, tmp_path / 's.pt')
    with pytest.raises(SnapshotError):
        read_snapshot(tmp_path / 's.pt')


def test_a_storage_smaller_than_its_tensor_is_refused(tmp_path):
    path = write(tmp_path / 's.pt')
    out = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, 'w') as target:
        for info in source.infolist():
            content = source.read(info)
            target.writestr(info.filename, content[:-4] if info.filename == 'archive/data/3' else content)
    path.write_bytes(out.getvalue())
    with pytest.raises(SnapshotError, match='archive/data/3'):
        read_snapshot(path)


def test_settings_that_explode_are_refused(tmp_path):
    bomb: list = ['x'] * 10
    for _ in range(12):
        bomb = [bomb] * 10
    torch.save({'agent': {}, 'cfg': bomb}, tmp_path / 's.pt')
    with pytest.raises(SnapshotError, match='too many'):
        read_snapshot(tmp_path / 's.pt')


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(SnapshotError, match='No such file'):
        read_snapshot(tmp_path / 'none.pt')
