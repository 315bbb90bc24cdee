# SPDX-License-Identifier: Apache-2.0
"""What an installation holds, asked of setup.py itself."""

import os
from pathlib import Path
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from so101_description.model import decimated_directory
from so101_description.urdf import urdf_text

PACKAGE = Path(__file__).parents[1]
PREFIX = 'package://so101_description/'


def setup(*arguments):
    env = os.environ | {'_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1'}
    subprocess.run(
        [sys.executable, 'setup.py', '--quiet', *arguments],
        cwd=PACKAGE,
        env=env,
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope='module')
def share(tmp_path_factory):
    pytest.importorskip('setuptools')
    prefix = tmp_path_factory.mktemp('prefix')
    setup('install_data', '--install-dir', str(prefix))
    return prefix / 'share'


def test_every_package_uri_of_the_urdf_is_installed_in_share(share):
    uris = {mesh.get('filename') for mesh in ET.fromstring(urdf_text()).iter('mesh')}
    assert len(uris) == 13
    for uri in uris:
        installed = share / 'so101_description' / uri.removeprefix(PREFIX)
        assert installed.read_bytes() == (decimated_directory() / installed.name).read_bytes()


def test_marker_manifest_and_notice_are_installed_in_share(share):
    assert (share / 'ament_index/resource_index/packages/so101_description').is_file()
    assert (share / 'so101_description/package.xml').is_file()
    assert (share / 'so101_description/meshes/NOTICE.md').is_file()


def test_meshes_are_installed_next_to_the_modules(tmp_path):
    pytest.importorskip('setuptools')
    build = tmp_path / 'build'
    setup('egg_info', '--egg-base', str(tmp_path), 'build_py', '--build-lib', str(build))
    installed = build / 'so101_description'
    assert (installed / 'py.typed').is_file()
    assert (installed / 'assets/NOTICE.md').is_file()
    names = {path.name for path in (installed / 'assets/meshes').iterdir()}
    assert names == {path.name for path in decimated_directory().iterdir()}
    assert not (build / 'test').exists()


def test_manifest_and_setup_name_the_same_package():
    manifest = ET.parse(PACKAGE / 'package.xml').getroot()
    assert manifest.find('name').text == 'so101_description'
    result = subprocess.run(
        [sys.executable, 'setup.py', '--version'], cwd=PACKAGE, capture_output=True, text=True, check=True
    )
    assert result.stdout.split()[-1] == manifest.find('version').text
