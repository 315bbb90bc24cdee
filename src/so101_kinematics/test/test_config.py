# SPDX-License-Identifier: Apache-2.0
import math

import pytest

from so101_interfaces_py.params import describe, from_mapping, ParameterError
from so101_kinematics.config import KinematicsConfig, PICK101_WORKSPACE


def test_every_field_is_a_parameter_with_a_description():
    info = describe(KinematicsConfig)
    assert set(info) == set(KinematicsConfig.__dataclass_fields__)
    assert all(entry.doc for entry in info.values())


def test_a_configuration_comes_from_plain_values():
    config = from_mapping(
        KinematicsConfig, {'leash_m': 0.03, 'workspace_min': [0.12, -0.2, 0.02], 'locked_joints': ['']}
    )
    assert config.leash_m == 0.03
    assert config.workspace.lower == (0.12, -0.2, 0.02)
    assert config.locks() == {}


def test_locked_joints_have_a_position_or_keep_their_own():
    config = KinematicsConfig(locked_joints=('wrist_roll=1.5708', 'wrist_flex', ''))
    assert config.locks() == {'wrist_roll': 1.5708, 'wrist_flex': None}


@pytest.mark.parametrize(
    ('values', 'name'),
    [
        ({'leash_m': 1.0}, 'leash_m'),
        ({'leash_m': math.nan}, 'leash_m'),
        ({'rate_hz': 0.0}, 'rate_hz'),
        ({'profile': 'fast'}, 'profile'),
        ({'tcp': 'mine'}, 'tcp'),
        ({'workspace_min': (0.4, -0.25, 0.01)}, 'workspace_min'),
        ({'locked_joints': ('elbow',)}, 'locked_joints'),
        ({'locked_joints': ('gripper',)}, 'locked_joints'),
        ({'locked_joints': ('wrist_roll=9',)}, 'locked_joints'),
        ({'locked_joints': ('wrist_roll=half',)}, 'locked_joints'),
        ({'profile': 'pick101'}, 'profile'),
        ({'profile': 'pick101', 'tcp': 'pick101', 'rate_hz': 100.0}, 'profile'),
    ],
    ids=str,
)
def test_a_value_that_makes_no_sense_is_refused_by_name(values, name):
    with pytest.raises(ParameterError, match=name):
        KinematicsConfig(**values)


def test_pick101_brings_the_workspace_of_training():
    config = KinematicsConfig(profile='pick101', tcp='pick101')
    assert config.workspace == PICK101_WORKSPACE
    assert PICK101_WORKSPACE.lower == (0.10, -0.30, 0.01)
    assert PICK101_WORKSPACE.upper == (0.50, 0.30, 0.40)
