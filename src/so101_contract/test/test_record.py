# SPDX-License-Identifier: Apache-2.0
"""Round trips, hashes and differences of everything that is stored: specs and manifests."""

import copy
import dataclasses
from enum import Enum
import json
import os
import subprocess
import sys
import types
from typing import get_args, get_type_hints

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_contract.action import ActionSpec, GripperConvention
from so101_contract.errors import ContractError
from so101_contract.manifest import Golden, LiveConfig, PolicyManifest, StepUnit, Workspace
from so101_contract.observation_spec import (
    CameraSpec,
    Crop,
    Normalization,
    ObservationSpec,
    robobase_spec,
    StateBlock,
)
from so101_contract.record import Record

OBSERVATION = ObservationSpec(
    state=(StateBlock.named('joint_pos'), StateBlock('force', 1), StateBlock('block_angle', 1, True)),
    cameras=(CameraSpec('wrist', 64, Crop(1, 2, 3, 4)), CameraSpec('above', 64)),
    normalization=Normalization.from_range(-np.ones(8), np.full(8, 0.1)),
)
ACTION = ActionSpec(translation_scale_m=(0.01, 0.02, 0.03), gripper=GripperConvention.PERCENT)
WORKSPACE = Workspace(low=(0.1, -0.2, 0.0), high=(0.4, 0.2, 0.3))
MANIFEST = PolicyManifest(
    name='lift',
    version=3,
    observation=OBSERVATION,
    action=ACTION,
    control_rate_hz=10.0,
    ik_profile='setpoint',
    reset_pose=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
    workspace=WORKSPACE,
    std_schedule='linear(0.2,0.1,10000)',
    std_unit=StepUnit.UPDATES,
    calibration_id=None,
    golden=Golden(pattern=1, action=(0.1, -0.2, 0.3, 0.4)),
    tensors_sha256='ab' * 32,
    source_sha256='cd' * 32,
)
LIVE = LiveConfig(observation=OBSERVATION, workspace=WORKSPACE, reset_pose=(0.0,) * 6)
RECORDS = [ACTION, OBSERVATION, ObservationSpec(), MANIFEST, LIVE]


def examples(hint):
    """A value other than None for an optional field."""
    known = {
        float: 1.5,
        int: 3,
        str: 'x',
        Crop: Crop(1, 1, 2, 2),
        ObservationSpec: robobase_spec(),
        ActionSpec: ACTION,
        Workspace: WORKSPACE,
    }
    return known.get(hint, (1.0, 2.0))


def changed(record, name, value):
    """The record with another value in a field, whether or not that is a valid one."""
    other = copy.copy(record)
    object.__setattr__(other, name, value)
    return other


def mutants(value, hint):
    """Other values of the same type, each with the path to what differs; covers whatever fields there are."""
    if type(None) in get_args(hint):
        (inner,) = (arg for arg in get_args(hint) if arg is not type(None))
        if value is None:
            return [('', examples(inner))]
        return [('', None), *mutants(value, inner)]
    if isinstance(value, Record):
        return [
            (f'.{field.name}{path}', changed(value, field.name, other))
            for field in dataclasses.fields(value)
            for path, other in mutants(getattr(value, field.name), get_type_hints(type(value))[field.name])
        ]
    if isinstance(value, tuple):
        inner = get_args(hint)[0]
        if not value:
            return [('', (examples(inner),))]
        return [('', value[:-1]), ('', value + value[-1:])] + [
            (f'[{i}]{path}', (*value[:i], other, *value[i + 1 :]))
            for i, item in enumerate(value)
            for path, other in mutants(item, inner)
        ]
    if isinstance(value, Enum):
        return [('', other) for other in type(value) if other is not value]
    if isinstance(value, bool):
        return [('', not value)]
    if isinstance(value, int):
        return [('', value + 1)]
    if isinstance(value, float):
        return [('', np.nextafter(value, 9.0).item()), ('', value + 1.0)]
    return [('', value + 'x'), ('', value.upper() + '.')]


@pytest.mark.parametrize('record', RECORDS, ids=lambda record: type(record).__name__)
def test_L9_B13_B16_B26_records_that_differ_in_any_field_hash_differently_and_say_which(record):
    hashes = {record.hash: record}
    touched = set()
    for dotted, other in mutants(record, type(record)):
        path = dotted.removeprefix('.')
        touched.add(path.split('.')[0].split('[')[0])
        assert hashes.setdefault(other.hash, other) == other, path
        assert other.hash != record.hash, path
        lines = record.diff(other, ('mine', 'yours'))
        assert lines, path
        assert all(line.startswith(path) for line in lines), (path, lines)
        assert all(' mine, ' in line and line.endswith(' yours') for line in lines)
        assert len(lines) == 1 or path in {'', 'observation', 'action', 'workspace'}, (path, lines)
    assert touched == {field.name for field in dataclasses.fields(record)}


@pytest.mark.parametrize('record', RECORDS, ids=lambda record: type(record).__name__)
def test_records_survive_json_and_dicts_in_any_order(record):
    def backwards(data):
        if isinstance(data, dict):
            return {key: backwards(data[key]) for key in reversed(data)}
        return [backwards(item) for item in data] if isinstance(data, list) else data

    for again in (
        type(record).from_json(record.to_json()),
        type(record).from_json(record.to_json(indent=None)),
        type(record).from_dict(record.to_dict()),
        type(record).from_dict(backwards(record.to_dict())),
        type(record).from_json(json.dumps(backwards(json.loads(record.to_json())))),
        copy.deepcopy(record),
    ):
        assert again == record
        assert again.hash == record.hash
        assert again.diff(record) == []
    assert hash(record) == hash(copy.deepcopy(record))


@pytest.mark.parametrize('record', RECORDS, ids=lambda record: type(record).__name__)
def test_an_unknown_or_missing_key_is_refused_at_every_level(record):
    def levels(data):
        if isinstance(data, dict):
            yield data
        for item in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
            yield from levels(item)

    count = len(list(levels(record.to_dict())))
    for i in range(count):
        data = record.to_dict()
        list(levels(data))[i]['colour'] = 'red'
        with pytest.raises(ContractError, match=r"unknown \['colour'\]"):
            type(record).from_dict(data)
        for key in list(list(levels(record.to_dict()))[i]):
            data = record.to_dict()
            del list(levels(data))[i][key]
            with pytest.raises(ContractError, match=rf"missing \['{key}'\]"):
                type(record).from_dict(data)


def test_the_hash_does_not_depend_on_how_a_number_is_written():
    text = ActionSpec(translation_scale_m=(1, 2, 3)).to_json()
    for one, two in (('1.0', '1'), ('2.0', '2.00e0'), ('3.0', '0.3E1')):
        assert one in text
        text = text.replace(one, two)
    again = ActionSpec.from_json(text)
    assert again.hash == ActionSpec(translation_scale_m=np.array([1, 2, 3], np.float32)).hash
    assert again.hash == ActionSpec(translation_scale_m=[np.float64(1), np.int64(2), 3.0]).hash
    assert Normalization(mode='affine', offset=(-0.0,), scale=(1,)).hash == (
        Normalization(mode='affine', offset=(0.0,), scale=(1.0,)).hash
    )


def test_the_hash_is_the_same_in_another_process_and_pinned():
    code = (
        'from so101_contract.observation_spec import *; from so101_contract.action import *;'
        'print(ObservationSpec().hash, robobase_spec().hash, ActionSpec().hash)'
    )
    env = os.environ | {'PYTHONHASHSEED': '77', 'PYTHONPATH': os.pathsep.join(sys.path), 'LC_ALL': 'C'}
    run = subprocess.run(
        [sys.executable, '-c', code], env=env, capture_output=True, text=True, timeout=600, check=True
    )
    hashes = [ObservationSpec().hash, robobase_spec().hash, ActionSpec().hash]
    assert run.stdout.split() == hashes
    # Bags and checkpoints carry these: they change only together with the version in KIND or with a default.
    assert [value[:16] for value in hashes] == PINNED


PINNED = ['56a9f6ae628c0de9', '33f94d72dd2dd056', '6cd7e0af7cde04a4']


def test_specs_of_different_kinds_never_hash_the_same():
    kinds = {cls.KIND for cls in Record.__subclasses__()}
    assert len(kinds) == len(Record.__subclasses__())
    assert ActionSpec().diff(ObservationSpec()) == [
        'kind: so101_contract/action/1 here, so101_contract/observation/1 there'
    ]


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=1e-300))
@settings(max_examples=50)
def test_every_float_survives_json_exactly(number):
    spec = ActionSpec(translation_scale_m=number)
    assert ActionSpec.from_json(spec.to_json()).translation_scale_m == (number,) * 3


NONE = ['', '{', '[]', 'null', '{"name": 1, "name": 2}', b'\xff\xfe', '{"gripper": NaN}']
NONE += ['[' * 100_000, f'[{"1" * 5000}]', f'{{"translation_scale_m": [{"1" * 400}, 1, 1]}}']


@pytest.mark.parametrize('text', NONE, ids=range(len(NONE)))
def test_text_that_is_no_record_is_refused(text):
    for cls in (ActionSpec, ObservationSpec, PolicyManifest):
        with pytest.raises(cls.ERROR):
            cls.from_json(text)


def test_records_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ObservationSpec().frame_stack = 4


def test_unions_of_the_mutation_test_are_those_of_the_records():
    hint = get_type_hints(CameraSpec)['crop']
    assert isinstance(hint, types.UnionType)
