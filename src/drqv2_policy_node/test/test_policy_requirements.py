# SPDX-License-Identifier: Apache-2.0
"""Which policies may act here, how they are named, and how much they explore."""

from dataclasses import replace
import hashlib
import json
import struct
import threading

import numpy as np
import pytest

pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time
from random_policies import BOX, random_policy

from drqv2_policy_node.acting import exploration_std
from drqv2_policy_node.config import PolicyNodeConfig
from drqv2_policy_node.policy_requirements import (
    live_config,
    MismatchError,
    require_compatible,
    session_mismatch,
    start_remark,
)
from drqv2_policy_node.robobase.schedule import parse_schedule
from drqv2_policy_node.store import find_policy, load_policy, pack
from drqv2_policy_node.weights import examine, to_messages, WeightsLoader
from so101_contract.action import ActionSpec
from so101_contract.manifest import StepUnit, Workspace
from so101_contract.observation_spec import (
    CameraSpec,
    get_observation,
    Normalization,
    NormalizationMode,
    OBSERVATIONS,
)
from so101_interfaces_py.params import ParameterError

LIVE = live_config(PolicyNodeConfig())
MANIFEST = random_policy().manifest


@pytest.mark.parametrize(
    ('change', 'line'),
    [
        ({'tcp': 'pick101'}, 'observation.tcp: "pick101" policy, "so101" running'),
        ({'camera_preset': 'pick101'}, 'observation.camera_preset: "pick101" policy, "nexus" running'),
        ({'frame_stack': 2}, 'observation.frame_stack: 2 policy, 3 running'),
        ({'cameras': (CameraSpec('gripper_cam', 84),)}, 'observation.cameras[0].size: 84 policy, 64 running'),
    ],
    ids=['tcp', 'camera', 'stack', 'size'],
)
def test_F8_F11_a_policy_that_saw_something_else_is_refused_with_the_difference(change, line):
    manifest = replace(MANIFEST, observation=replace(MANIFEST.observation, **change))
    with pytest.raises(MismatchError) as caught:
        require_compatible(manifest, LIVE)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ('change', 'line'),
    [
        ({'control_rate_hz': 50.0}, 'control_rate_hz: 50.0 policy, 10.0 running'),
        ({'ik_profile': 'pick101'}, 'ik_profile: pick101 policy, setpoint running'),
        (
            {'action': ActionSpec(translation_scale_m=0.01)},
            'action.translation_scale_m[0]: 0.01 policy, 0.02',
        ),
    ],
    ids=['rate', 'profile', 'scale'],
)
def test_a_policy_that_acted_otherwise_is_refused_with_the_difference(change, line):
    with pytest.raises(MismatchError) as caught:
        require_compatible(replace(MANIFEST, **change), LIVE)
    assert line in str(caught.value)


def test_L8_F16_normalisation_inside_the_networks_forbids_nothing():
    size = MANIFEST.observation.state_size
    affine = Normalization(mode=NormalizationMode.AFFINE, offset=(0.0,) * size, scale=(1.0,) * size)
    manifest = replace(MANIFEST, observation=replace(MANIFEST.observation, normalization=affine))
    assert require_compatible(manifest, LIVE) == []


def test_A7_another_workspace_or_calibration_is_a_remark():
    live = replace(LIVE, calibration_id='arm-7')
    manifest = replace(
        MANIFEST, workspace=Workspace(low=(0.0, -0.3, 0.0), high=BOX.high), calibration_id='arm-6'
    )
    assert [line.split(':')[0].split('.')[0] for line in require_compatible(manifest, live)] == [
        'workspace',
        'workspace',
        'workspace',
        'calibration_id',
    ]


def test_A7_an_episode_that_begins_elsewhere_is_remarked():
    assert start_remark(MANIFEST, np.array(MANIFEST.reset_pose) + 0.3) == ''
    far = np.array(MANIFEST.reset_pose)
    far[4] += 1.57
    assert 'wrist_roll 1.57 instead of 0.00 rad' in start_remark(MANIFEST, far)


def test_B16_a_session_with_the_same_contract_is_no_mismatch():
    assert session_mismatch(LIVE, LIVE.observation.hash, LIVE.action.hash) == ''
    assert session_mismatch(LIVE, '', '') == ''


@pytest.mark.parametrize(
    ('observation', 'action', 'word'),
    [('0' * 64, '', 'observation'), ('', '0' * 64, 'action'), ('0' * 64, '1' * 64, 'observation and action')],
)
def test_B16_a_session_with_another_contract_is_told(observation, action, word):
    assert f'with the {word} of this node' in session_mismatch(LIVE, observation, action)


@pytest.mark.parametrize('name', OBSERVATIONS)
def test_the_node_and_a_session_of_the_same_name_observe_the_same(name):
    spec = live_config(PolicyNodeConfig(observation=name, tcp='so101')).observation
    assert spec.hash == get_observation(name, tcp='so101').hash


@pytest.mark.parametrize('values', [{'mode': 'dance'}, {'control_rate_hz': 0.0}, {'observation': 'all'}])
def test_values_that_make_no_sense_are_refused(values):
    with pytest.raises(ParameterError):
        PolicyNodeConfig(**values)


def test_the_policy_that_is_shipped_acts_in_the_default_stack():
    folder = find_policy('default', 'compact')
    if folder is None:
        pytest.skip('none is shipped')
    loaded = examine(load_policy(folder), LIVE)
    assert loaded.version == 0


def test_no_policy_is_meant_by_none_or_by_a_default_that_is_not_shipped():
    assert find_policy('none', 'compact') is None
    assert find_policy('', 'compact') is None
    assert find_policy('default', 'no-such-observation') is None


@pytest.mark.parametrize(
    ('unit', 'std'), [(StepUnit.UPDATES, 0.18), (StepUnit.ENV_STEPS, 0.15), (StepUnit.ITERATIONS, 0.15)]
)
def test_L13_L14_the_noise_follows_the_counters_of_the_learner_in_their_unit(unit, std):
    schedule = parse_schedule('linear(0.2,0.1,1000)')
    assert exploration_std(schedule, unit, updates=200, env_steps=500, limit=1.0) == pytest.approx(std)


def test_L12_the_noise_of_a_schedule_that_starts_at_1_is_limited_by_default():
    schedule, limit = parse_schedule('linear(1.0,0.1,500000)'), PolicyNodeConfig().max_std
    assert exploration_std(schedule, StepUnit.ITERATIONS, updates=0, env_steps=0, limit=limit) <= 0.2


class Loads:
    """A loader, and what came of it."""

    def __init__(self, live=LIVE):
        self.loaded, self.came = [], threading.Semaphore(0)
        self.loader = WeightsLoader(lambda: live, self._on_loaded)

    def _on_loaded(self, loaded):
        self.loaded.append(loaded)
        self.came.release()

    def send(self, messages):
        for message in messages:
            self.loader.put(message)


def test_B10_B11_loaded_weights_act_bit_exactly_as_those_of_the_learner():
    loads, policy = Loads(), random_policy(4)
    loads.send(to_messages(*pack(policy), 7, 70))
    assert loads.came.acquire(timeout=200.0)
    loads.loader.close()
    (loaded,) = loads.loaded
    assert (loaded.version, loaded.step) == (7, 70)
    for pattern in range(3):
        np.testing.assert_array_equal(loaded.policy.golden_action(pattern), policy.golden_action(pattern))


def test_B11_weights_that_do_not_belong_to_their_manifest_are_refused(caplog):
    loads = Loads()
    manifest, _ = pack(random_policy(4))
    _, payload = pack(random_policy(5))
    loads.send(to_messages(manifest, payload, 1, 0))
    loads.loader.close()
    assert (loads.loaded, loads.loader.refused) == ([], 1)
    assert 'weights 1 refused (1 so far), the present policy stays' in caplog.text


SAID = random_policy(6).manifest.to_json()
SENSELESS = {
    'empty': '',
    'open': '{',
    'nothing': '{}',
    'null': 'null',
    'list': '[]',
    'text': '"a"',
    'number as name': '{"name": 3}',
    'deep': '[' * 100_000,
    '400 digits': SAID.replace('"control_rate_hz": 10.0', f'"control_rate_hz": {"1" * 400}'),
    '5000 digits': SAID.replace('"version": 0', f'"version": {"1" * 5000}'),
    'no number': SAID.replace('"version": 0', '"version": NaN'),
    'giant pictures': SAID.replace('"size": 64', '"size": 2048'),
}


@pytest.mark.parametrize('manifest', SENSELESS.values(), ids=SENSELESS)
def test_a_manifest_that_is_none_ends_nothing(manifest):
    assert manifest != SAID
    loads = Loads()
    loads.send(to_messages(manifest, b'x' * 10, 1, 0))
    loads.send(to_messages(*pack(random_policy(6)), 2, 0))
    assert loads.came.acquire(timeout=200.0)
    loads.loader.close()
    assert ([loaded.version for loaded in loads.loaded], loads.loader.refused) == ([2], 1)


@pytest.mark.parametrize('cut', [0, 1, 7, 8, 100, 5000])
def test_a_payload_that_is_no_policy_ends_nothing(cut):
    policy = random_policy(6)
    payload = pack(policy)[1][: -cut or None] if cut > 8 else b'\xff' * max(cut, 1)
    said = replace(policy.manifest, tensors_sha256=hashlib.sha256(payload).hexdigest())
    loads = Loads()
    loads.send(to_messages(said.to_json(), payload, 1, 0))
    loads.loader.close()
    assert (loads.loaded, loads.loader.refused) == ([], 1)


@pytest.mark.parametrize('change', [{'bottleneck': 2**40}, {'mlp': [10**30]}], ids=['too large', 'no number'])
def test_networks_of_senseless_size_end_nothing(change):
    policy = random_policy(6)
    payload = pack(policy)[1]
    (length,) = struct.unpack_from('<Q', payload)
    header = json.loads(payload[8 : 8 + length])
    header['__metadata__']['network'] = json.dumps(
        {**json.loads(header['__metadata__']['network']), **change}
    )
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    made_up = struct.pack('<Q', len(text)) + text + payload[8 + length :]
    said = replace(policy.manifest, tensors_sha256=hashlib.sha256(made_up).hexdigest())
    loads = Loads()
    loads.send(to_messages(said.to_json(), made_up, 1, 0))
    loads.send(to_messages(*pack(policy), 2, 0))
    assert loads.came.acquire(timeout=200.0)
    loads.loader.close()
    assert ([loaded.version for loaded in loads.loaded], loads.loader.refused) == ([2], 1)


def test_a_refused_version_from_the_future_keeps_no_other_out():
    loads, (manifest, payload) = Loads(), pack(random_policy(6))
    loads.send(to_messages(manifest, b'x' * 10, 2**64 - 1, 0, stamp=Time(sec=2**31 - 1), sender='a'))
    loads.send(to_messages(manifest, payload, 1, 0, sender='a'))
    assert loads.came.acquire(timeout=200.0)
    loads.loader.close()
    assert ([loaded.version for loaded in loads.loaded], loads.loader.refused) == ([1], 1)


def test_the_loader_outlives_whatever_goes_wrong_in_it():
    def fail(_):
        fail.calls += 1
        if fail.calls == 1:
            raise KeyError('anything')

    fail.calls = 0
    loads = Loads()
    loads.loader._on_loaded = fail
    for version in (1, 2):
        loads.send(to_messages(*pack(random_policy(6)), version, 0))
    loads.loader.close()
    assert (fail.calls, loads.loader.refused) == (2, 1)


def test_a_schedule_that_is_none_is_refused():
    loads = Loads()
    loads.send(to_messages(*pack(random_policy(6, std_schedule='cosine(1,2)')), 1, 0))
    loads.loader.close()
    assert (loads.loaded, loads.loader.refused) == ([], 1)
