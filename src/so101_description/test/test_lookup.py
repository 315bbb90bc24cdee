# SPDX-License-Identifier: Apache-2.0
import mujoco
import numpy as np
import pytest

from so101_description.errors import ModelError
from so101_description.model import arm_index, build_spec, load_model


@pytest.fixture(scope='module')
def model():
    return load_model(visuals='none', collision=False)


def test_an_arm_alone_starts_at_zero(model):
    arm = arm_index(model)
    for indices in (arm.qpos, arm.qvel, arm.ctrl):
        np.testing.assert_array_equal(indices, np.arange(6))
    assert model.site(arm.tcp_site).name == 'tcp'
    assert model.cam(arm.camera).name == 'gripper_cam'
    assert model.body(arm.gripper_body).name == 'gripper'


def test_indices_cannot_be_changed(model):
    with pytest.raises(ValueError, match='read-only'):
        arm_index(model).qpos[0] = 3


@pytest.mark.parametrize(
    ('kind', 'name'), [('joint', 'elbow_flex'), ('site', 'tcp'), ('camera', 'gripper_cam')]
)
def test_what_is_missing_is_named(kind, name):
    spec = build_spec(visuals='none', collision=False)
    if kind == 'joint':
        for actuator in spec.actuators:
            spec.delete(actuator)
    spec.delete(getattr(spec, kind)(name))
    with pytest.raises(ModelError, match=f"the {kind} '{name}'"):
        arm_index(spec.compile())


def test_a_missing_actuator_is_named():
    spec = build_spec(visuals='none', collision=False)
    spec.delete(spec.actuator('gripper'))
    with pytest.raises(ModelError, match="the actuator 'gripper'"):
        arm_index(spec.compile())


def test_a_wrong_prefix_is_answered_with_the_full_name(model):
    with pytest.raises(ModelError, match=r'left/shoulder_pan.*prefix'):
        arm_index(model, 'left/')


def test_a_model_of_something_else_is_refused():
    with pytest.raises(ModelError, match='shoulder_pan'):
        arm_index(mujoco.MjSpec().compile())
