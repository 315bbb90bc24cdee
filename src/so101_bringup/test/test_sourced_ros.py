# SPDX-License-Identifier: Apache-2.0
"""The set-up where a ROS 2 is sourced, on an emulated one: folders as apt makes them, with what is looked at in them."""

import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

from so101_bringup import workspace
from so101_bringup.workspace import PrerequisiteError, Workspace

ROOT = Path(__file__).parents[3]
OURS = f'python3.{sys.version_info.minor}'


@pytest.fixture
def ros(tmp_path):
    """A ROS 2 for this Python."""
    prefix = tmp_path / 'opt' / 'ros' / 'jazzy'
    (prefix / 'lib' / OURS / 'site-packages' / 'rclpy').mkdir(parents=True)
    return prefix


@pytest.fixture
def checkout(tmp_path):
    """A checkout with its locks, its script and a build that knows the ROS below it, as colcon's does."""
    root = tmp_path / 'so101'
    for name in ('requirements', 'src', 'compat', 'launch', 'config', 'log', 'install'):
        (root / name).mkdir(parents=True)
    shutil.copytree(ROOT / 'requirements', root / 'requirements', dirs_exist_ok=True)
    shutil.copy(ROOT / 'so101', root / 'so101')
    setup = 'export AMENT_PREFIX_PATH="$PWD/install:$SO101_ROS_PREFIX"; export PYTHONPATH="$PWD/install/py:$PYTHONPATH"'
    (root / 'install' / 'setup.sh').write_text(setup)
    return root


def fingerprint(root, prefixes):
    words = ['sh', str(root / 'so101'), '--fingerprint']
    environment = {**os.environ, 'AMENT_PREFIX_PATH': prefixes}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout


def test_a_sourced_ros_is_seen_and_our_own_builds_are_not(checkout, ros, tmp_path):
    ours = tmp_path / 'other' / 'install'
    (ours / 'share' / 'so101_bringup').mkdir(parents=True)
    without = fingerprint(checkout, '')
    assert fingerprint(checkout, str(ours)) == without
    assert fingerprint(checkout, f'{ours}:{ros}') == fingerprint(checkout, str(ros)) != without


def test_its_environment_sees_the_packages_of_the_system_and_brings_no_wheels_of_ros(
    checkout, ros, monkeypatch
):
    monkeypatch.setenv('SO101_ROS_PREFIX', f'{ros}:')
    monkeypatch.setattr(workspace, 'missing_packages', lambda has_ros: [])
    made = Workspace(checkout, has_ros=True)
    made._make_venv()
    assert 'include-system-site-packages = true' in (made.venv / 'pyvenv.cfg').read_text()
    wanted = workspace.requirement_names(made._requirements())
    assert {'mujoco', 'rosbags', 'starlette', 'colcon-core'} <= set(wanted)
    assert not {'numpy', 'opencv-python-headless', 'pyyaml', 'ros-rclpy'} & set(wanted)
    assert not [name for name in wanted if name.startswith('ros_')]


def test_what_is_sourced_afterwards_is_ros_and_the_build_over_it(checkout, ros, monkeypatch):
    monkeypatch.setenv('SO101_ROS_PREFIX', str(ros))
    monkeypatch.setenv('PYTHONPATH', f'{ros}/lib/{OURS}/site-packages')
    file = checkout / 'so101.env'
    file.write_text(workspace.environment_file(checkout, checkout / '.venv', has_ros=True))
    shell = subprocess.run(
        ['sh', '-c', f'. {file} && echo "$AMENT_PREFIX_PATH|$PYTHONPATH|$VIRTUAL_ENV|$PATH|$_ROS_WHEELS_BOOTSTRAP_COMPLETE"'],
        env={'PATH': os.environ['PATH']}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    prefixes, python, venv, path, wheels = shell.stdout.strip().split('|')
    assert prefixes == f'{checkout}/install:{ros}'
    assert f'{ros}/lib/{OURS}/site-packages' in python
    assert venv == f'{checkout}/.venv'
    assert path.startswith(f'{checkout}/.venv/bin:')
    assert wheels == ''


def test_a_ros_for_another_python_is_refused_with_the_one_that_fits(ros):
    workspace.require_its_python(f'{ros}:')
    (ros / 'lib' / OURS).rename(ros / 'lib' / 'python3.8')
    with pytest.raises(PrerequisiteError, match=r'set SO101_PYTHON to python3\.8'):
        workspace.require_its_python(str(ros))
    with pytest.raises(PrerequisiteError, match='install ros-jazzy-rclpy'):
        workspace.require_its_python('/nowhere')


def test_what_must_come_from_the_system_beside_ros_is_named(monkeypatch):
    monkeypatch.setattr(workspace, 'BESIDE_ROS', {'no_such_module': 'python3-none', 'sys': 'python3-sys'})
    assert 'python3-none' in workspace.missing_packages(has_ros=True)
    assert 'python3-sys' not in workspace.missing_packages(has_ros=True)
    assert 'python3-none' not in workspace.missing_packages()
