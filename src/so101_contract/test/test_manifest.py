# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from so101_contract.action import ActionSpec
from so101_contract.errors import ManifestError
from so101_contract.manifest import (
    Golden,
    golden_observation,
    LiveConfig,
    PolicyManifest,
    StepUnit,
    Workspace,
)
from so101_contract.observation_spec import CameraSpec, ObservationSpec, robobase_spec

MANIFEST = PolicyManifest(
    name='pick101-v19',
    version=0,
    observation=robobase_spec(),
    action=ActionSpec(),
    control_rate_hz=50.0,
    ik_profile='pick101',
    reset_pose=(0.0, -0.4, 0.3, 1.57, 1.57, 0.4),
    workspace=Workspace(low=(0.1, -0.3, 0.01), high=(0.5, 0.3, 0.4)),
    std_schedule='linear(1.0,0.1,500000)',
    std_unit=StepUnit.ITERATIONS,
    calibration_id=None,
    golden=Golden(pattern=0, action=(0.1, 0.2, 0.3, -0.4)),
    tensors_sha256='0' * 64,
    source_sha256=None,
)
LIVE = LiveConfig(
    observation=MANIFEST.observation,
    action=MANIFEST.action,
    control_rate_hz=50.0,
    ik_profile='pick101',
    reset_pose=MANIFEST.reset_pose,
    workspace=MANIFEST.workspace,
    calibration_id='arm-7',
)


def test_L8_L14_the_manifest_says_normalisation_and_the_unit_of_the_schedule():
    text = MANIFEST.to_json()
    assert '"mode": "none"' in text
    assert '"std_unit": "iterations"' in text
    assert PolicyManifest.from_json(text) == MANIFEST


def test_a_policy_agrees_with_what_it_was_trained_in():
    for other in (LIVE, MANIFEST, LiveConfig(), replace(MANIFEST, version=9, name='other')):
        assert MANIFEST.check_compatible(other) == []
        assert MANIFEST.check_recommended(other) == []


@pytest.mark.parametrize(
    ('change', 'line'),
    [
        ({'control_rate_hz': 10.0}, 'control_rate_hz: 50.0 policy, 10.0 running'),
        ({'ik_profile': 'setpoint'}, 'ik_profile: pick101 policy, setpoint running'),
        (
            {'action': ActionSpec(translation_scale_m=0.05)},
            'action.translation_scale_m[2]: 0.02 policy, 0.05 running',
        ),
        (
            {'observation': replace(robobase_spec(), tcp='so101')},
            'observation.tcp: "pick101" policy, "so101" running',
        ),
        (
            {'observation': replace(robobase_spec(), camera_preset='nexus')},
            'observation.camera_preset: "pick101" policy, "nexus" running',
        ),
    ],
    ids=['rate', 'ik', 'scale', 'tcp', 'camera'],
)
def test_F8_A4_what_would_change_the_behaviour_is_refused(change, line):
    assert line in MANIFEST.check_compatible(replace(LIVE, **change))
    assert line.replace('running', 'checkpoint') in MANIFEST.check_compatible(
        replace(MANIFEST, **change), 'checkpoint'
    )
    assert MANIFEST.check_recommended(replace(LIVE, **change)) == []


def test_A7_another_reset_pose_or_workspace_is_reported_but_not_refused():
    other = replace(
        LIVE,
        reset_pose=(0.0, -0.4, 0.3, 1.57, -1.57, 0.4),
        workspace=Workspace(low=(0.1, -0.3, 0.01), high=(0.35, 0.3, 0.4)),
    )
    assert MANIFEST.check_compatible(other) == []
    lines = MANIFEST.check_recommended(other)
    assert [line.split(':')[0] for line in lines] == ['reset_pose', 'workspace.high[0]']


def test_A7_a_difference_that_nobody_notices_is_not_reported():
    pose = tuple(np.array(MANIFEST.reset_pose) + 0.01)
    box = Workspace(low=(0.101, -0.3, 0.01), high=(0.5, 0.3, 0.4))
    assert MANIFEST.check_recommended(replace(LIVE, reset_pose=pose, workspace=box)) == []


def test_a_calibration_is_compared_only_where_the_policy_learned_on_an_arm():
    assert MANIFEST.check_recommended(LIVE) == []
    lines = replace(MANIFEST, calibration_id='arm-3').check_recommended(LIVE)
    assert lines == ['calibration_id: arm-3 policy, arm-7 running']


@pytest.mark.parametrize(
    'change',
    [
        {'version': -1},
        {'control_rate_hz': 0.0},
        {'reset_pose': (0.0,) * 5},
        {'name': ''},
        {'std_schedule': ''},
        {'tensors_sha256': 'abc'},
        {'source_sha256': 'Z' * 64},
        {'std_unit': 'steps'},
        {'observation': None},
        {'version': '1'},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_manifest_that_makes_no_sense_is_refused(change):
    with pytest.raises(ManifestError):
        replace(MANIFEST, **change)


def test_parts_that_make_no_sense_are_refused():
    with pytest.raises(ManifestError):
        Workspace(low=(0.0, 0.0, 0.0), high=(0.1, 0.0, 0.1))
    with pytest.raises(ManifestError):
        Golden(pattern=0, action=(0.1,))


def test_P23_the_golden_action_tells_other_weights():
    MANIFEST.golden.check([0.1, 0.2, 0.3, -0.4])
    MANIFEST.golden.check(np.array([0.1, 0.2, 0.3, -0.4], np.float32))
    for wrong in ([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3], [np.nan] * 4):
        with pytest.raises(ManifestError, match='weights'):
            MANIFEST.golden.check(wrong)


def views(observation):
    return np.stack(list(observation.images.values()))


def test_the_golden_observation_fits_the_spec_and_never_changes():
    spec = ObservationSpec(cameras=(CameraSpec('wrist', 64), CameraSpec('above', 64)))
    observation = golden_observation(spec, 5)
    assert observation.state.shape == (3, 18)
    assert list(observation.images) == ['wrist', 'above']
    assert views(observation).shape == (2, 3, 3, 64, 64)
    assert np.abs(observation.state).max() <= 1.0
    assert np.ptp(views(observation)) == 255
    again = golden_observation(spec, 5)
    np.testing.assert_array_equal(again.state, observation.state)
    np.testing.assert_array_equal(views(again), views(observation))
    flat = views(observation).reshape(18, -1)
    assert len({row.tobytes() for row in flat}) == 18
    assert not np.array_equal(views(golden_observation(spec, 6)), views(observation))
    assert not np.array_equal(golden_observation(spec, 6).state, observation.state)
    assert int(views(observation).sum(dtype=np.int64)) == 9388668
