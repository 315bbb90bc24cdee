# SPDX-License-Identifier: Apache-2.0
"""Keys and permissions, judged by openssl; and what happens where DDS has no security."""

import os
from pathlib import Path
import re
import stat
import subprocess
import sys
import xml.etree.ElementTree as Xml

import pytest

pytest.importorskip('rclpy')

from package_readmes import read_modules, wires

from so101_bringup import security
from so101_bringup.options import OptionError
from so101_bringup.programs import NodeSpec
from so101_bringup.security import check_keystore, main, RIGHTS
from so101_bringup.stack import NODES

ARM = NodeSpec('arm_node', 'so101_driver', 'arm_node')


def openssl(*words):
    return subprocess.run(['openssl', *map(str, words)], capture_output=True, text=True, check=False)


@pytest.fixture(scope='module')
def keystore(tmp_path_factory):
    if not security.shutil.which('openssl'):
        pytest.skip('openssl makes the keys')
    folder = tmp_path_factory.mktemp('keys') / 'left'
    assert main(['new', str(folder), '--namespace', 'left', '--domain', '7']) == 0
    return folder


def enclave(keystore, node):
    return keystore / 'enclaves' / 'so101' / 'left' / node


def test_every_node_has_a_certificate_of_the_authority_with_the_name_of_its_enclave(keystore):
    for node in RIGHTS:
        folder = enclave(keystore, node)
        checked = openssl('verify', '-CAfile', folder / 'identity_ca.cert.pem', folder / 'cert.pem')
        assert checked.returncode == 0, checked.stderr
        said = openssl('x509', '-in', folder / 'cert.pem', '-noout', '-subject', '-nameopt', 'RFC2253').stdout
        assert said.strip() == f'subject=CN=/so101/left/{node}'
        assert stat.S_IMODE((folder / 'key.pem').stat().st_mode) == 0o600
    assert stat.S_IMODE(keystore.stat().st_mode) == 0o700


def test_documents_are_signed_and_a_changed_one_is_refused(keystore, tmp_path):
    folder = enclave(keystore, 'arm_node')
    for name in ('governance.p7s', 'permissions.p7s'):
        words = ['smime', '-verify', '-text', '-CAfile', folder / 'permissions_ca.cert.pem', '-in']
        checked = openssl(*words, folder / name)
        assert checked.returncode == 0, checked.stderr
        Xml.fromstring(checked.stdout.strip())
        other = tmp_path / name
        other.write_text((folder / name).read_text().replace('<id>7</id>', '<id>8</id>'))
        assert openssl(*words, other).returncode != 0


def may(keystore, node, what):
    rules = Xml.parse(enclave(keystore, node) / 'permissions.xml').getroot()
    assert rules.findtext('.//default') == 'DENY'
    assert rules.findtext('.//subject_name') == f'CN=/so101/left/{node}'
    assert [one.text for one in rules.iterfind('.//domains/id')] == ['7']
    return {one.text for one in rules.iterfind(f'.//{what}/topics/topic')}


def test_a_node_may_do_what_it_does_and_nothing_else(keystore):
    speakers = {node for node in RIGHTS if 'rt/left/joint_command' in may(keystore, node, 'publish')}
    assert speakers == {'kinematics_node', 'session_node', 'operator_node', 'lerobot_node'}
    callers = {node for node in RIGHTS if 'rq/left/arm/clear_faultRequest' in may(keystore, node, 'publish')}
    assert callers == {'console_node', 'operator_node', 'teleop_node'}
    assert 'rt/left/joint_command' in may(keystore, 'arm_node', 'subscribe')
    assert 'rr/left/arm/clear_faultReply' in may(keystore, 'arm_node', 'publish')
    assert 'rt/tf' in may(keystore, 'kinematics_node', 'publish')


MODULES = read_modules()
KINDS = ('publishes', 'hears', 'serves', 'calls')
AT_RUN_TIME = {
    ('camera_node', 'publishes'),  # of each camera
    ('classifier_node', 'hears'),
    ('twin_node', 'publishes'),
    ('console_node', 'calls'),  # one for each button
    ('console_node', 'hears'),  # of each camera
    ('learner_node', 'hears'),
    ('learner_node', 'serves'),
    ('operator_node', 'publishes'),
    ('policy_node', 'hears'),
    ('session_node', 'hears'),
    ('vla_policy_node', 'hears'),
}
"""Where the code makes some of the names while it runs, so that reading it does not find them."""


@pytest.mark.parametrize('node', sorted(set(NODES) - {'recorder_node'}))
def test_the_rights_of_a_node_are_what_its_code_speaks_and_hears(node):
    start = f"super().__init__('{node}'"
    (home,) = (name for name, module in MODULES.items() if any(start in line for line in module.lines))
    rows = wires(node, home, MODULES)
    for kind in KINDS:
        rights = set(getattr(RIGHTS[node], kind))
        found = {
            match[1]
            for what, name, *_ in rows
            if what == kind and (match := re.fullmatch('`([^`*]+)`', name))
        }
        assert found <= rights
        assert rights == found or (node, kind) in AT_RUN_TIME


def test_keys_are_never_replaced(keystore, capsys):
    before = (enclave(keystore, 'arm_node') / 'key.pem').read_bytes()
    assert main(['new', str(keystore)]) == 1
    assert 'is there already, and keys are not replaced' in capsys.readouterr().err
    assert (enclave(keystore, 'arm_node') / 'key.pem').read_bytes() == before


def test_a_node_without_keys_is_named_before_anything_starts(keystore, tmp_path):
    with pytest.raises(OptionError, match='has no keys for /so101/right/arm_node'):
        check_keystore(str(keystore), [ARM], 'right')
    with pytest.raises(OptionError, match='has no keys for /so101/arm_node'):
        check_keystore(str(tmp_path), [ARM], '')


def test_where_dds_has_no_security_nothing_starts_that_was_asked_to_be_secure(keystore):
    words = [sys.executable, '-m', 'so101_bringup.cli', 'up', '--stack', 'driver', 'namespace:=left']
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [*words, f'security:={keystore}'],
        env={**os.environ, 'PYTHONPATH': path, 'ROS_DOMAIN_ID': '7'},
        capture_output=True,
        text=True,
        timeout=600.0,
        check=False,
    )
    assert done.returncode != 0
    if 'ros_fastrtps' in ' '.join(
        map(str, Path(sys.prefix).glob('lib/python3*/site-packages/ros_fastrtps*'))
    ):
        assert 'the Fast DDS that is installed was built without security' in done.stderr
    assert 'arm_node |' not in done.stdout
