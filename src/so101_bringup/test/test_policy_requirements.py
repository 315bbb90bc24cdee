# SPDX-License-Identifier: Apache-2.0
"""A policy gets what its manifest requires."""

from dataclasses import replace

import pytest

from drqv2_policy_node.store import find_policy
from so101_bringup import stack
from so101_bringup.options import OptionError, parse_options
from so101_bringup.task_options import contract_config
from so101_contract.manifest import PolicyManifest
from so101_contract.observation_spec import get_observation


@pytest.fixture
def manifest():
    return PolicyManifest.from_json((find_policy('default', 'compact') / 'manifest.json').read_text())


def written(folder, manifest):
    (folder / 'manifest.json').write_text(manifest.to_json())
    return str(folder)


def test_what_is_shipped_fits_the_defaults(manifest):
    assert manifest.observation == get_observation('compact')
    assert contract_config('default', 'compact', 'so101').control_rate_hz == manifest.control_rate_hz


def test_every_node_gets_what_a_converted_policy_asks_for(tmp_path, manifest):
    asked = replace(
        manifest, observation=get_observation('robobase'), control_rate_hz=50.0, ik_profile='pick101'
    )
    words = [f'checkpoint:={written(tmp_path, asked)}', 'learn:=true', 'record:=true', 'tf:=own']
    nodes = {node.name: node.parameters for node in stack.hilserl(parse_options(words))}
    assert nodes['session_node']['rate_hz'] == nodes['policy_node']['control_rate_hz'] == 50.0
    assert nodes['kinematics_node']['profile'] == nodes['learner_node']['ik_profile'] == 'pick101'
    assert {
        nodes[name]['observation']
        for name in ('session_node', 'policy_node', 'learner_node', 'recorder_node')
    } == {'robobase'}
    assert nodes['kinematics_node']['tcp'] == nodes['session_node']['tcp'] == 'pick101'
    assert nodes['twin_node']['preset'] == 'pick101'


def test_a_manifest_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / 'manifest.json').write_text('{')
    with pytest.raises(OptionError, match='cannot be read'):
        contract_config(str(tmp_path), 'compact', 'so101')


def test_a_policy_that_moves_joints_is_refused(tmp_path, manifest):
    other = replace(
        manifest,
        action=replace(manifest.action, joint_scale_rad=(0.1,) * 6),
        golden=replace(manifest.golden, action=(0.0,) * 7),
    )
    with pytest.raises(OptionError, match='one that moves 6 joints'):
        contract_config(written(tmp_path, other), 'compact', 'so101')


def test_an_observation_without_a_name_is_refused_with_what_it_is(tmp_path, manifest):
    odd = replace(manifest, observation=replace(manifest.observation, frame_stack=2))
    with pytest.raises(OptionError, match='2 frames'):
        contract_config(written(tmp_path, odd), 'compact', 'so101')
