# SPDX-License-Identifier: Apache-2.0
from contextlib import suppress
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
from drqv2_policy_node.robobase.unpickle import read_pickle, UnpickleError

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
