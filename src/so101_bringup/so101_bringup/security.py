# SPDX-License-Identifier: Apache-2.0
"""`./so101 security new`: keys and permissions for each node, as SROS2 has them; security:= runs with them.

A node may publish, hear, serve and call what `RIGHTS` says and nothing else. The files are those of DDS Security: an
authority, a certificate for each node with the name of its enclave, and two signed documents. `openssl` makes them.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, UTC
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
from xml.sax.saxutils import escape

from so101_bringup.options import OptionError
from so101_bringup.programs import NodeSpec
from so101_interfaces_py import graph
from so101_interfaces_py import topics as t

KEYSTORE = 'security'
"""Folder that is made where none is named."""
VALID = timedelta(days=3650)
PARAMETER_SERVICES = (
    *('describe_parameters', 'get_parameter_types', 'get_parameters', 'get_type_description'),
    *('list_parameters', 'set_parameters', 'set_parameters_atomically'),
)
ASKED = ('get_parameters', 'list_parameters')


@dataclass(frozen=True)
class Rights:
    """What one node does, in the names of `topics`; absolute ones stay as they are in a namespace."""

    publishes: tuple[str, ...] = ()
    hears: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()


_ARM = (t.ARM_ENABLE_SERVICE, t.ARM_E_STOP_SERVICE, t.ARM_CLEAR_FAULT_SERVICE, t.ARM_PARK_SERVICE)
_SESSION = (
    *(t.START_EPISODE_SERVICE, t.END_EPISODE_SERVICE, t.INTERVENE_SERVICE, t.RESET_SERVICE, t.PAUSE_SERVICE),
    *(t.SUCCESS_NOW_SERVICE, t.NOT_YET_SERVICE),
)
_LEARNER = (t.LEARNER_SAVE_SERVICE, t.LEARNER_PAUSE_SERVICE, t.LEARNER_ROLLBACK_SERVICE)
_CLASSIFIER = (t.CLASSIFIER_TRAIN_SERVICE, t.CLASSIFIER_ANSWER_SERVICE)
_SIM = (t.SIM_RESET_SERVICE, t.SIM_GO_ON_SERVICE, t.SIM_POWER_SERVICE, 'sim/unplug', 'sim/bad_packets')
_FREEZE = ('sim/freeze_camera', 'sim/freeze_front_camera')
_CAMERA = (t.IMAGE, t.IMAGE_COMPRESSED, t.CAMERA_INFO)
_FRONT_CAMERA = (t.FRONT_IMAGE, t.FRONT_IMAGE_COMPRESSED, t.FRONT_CAMERA_INFO)
_FRAMES = (t.TF, t.TF_STATIC, t.ROBOT_DESCRIPTION)
RIGHTS = {
    'arm_node': Rights((t.JOINT_STATES, t.ARM_STATUS, t.DIAGNOSTICS), (t.JOINT_COMMAND,), _ARM),
    'camera_node': Rights((*_CAMERA, *_FRONT_CAMERA, t.DIAGNOSTICS)),
    'classifier_node': Rights(
        (t.SUCCESS_OPINION, t.CLASSIFIER_STATUS, t.CLASSIFIER_DOUBT),
        (t.STEP, t.EPISODE_EVENT, t.IMAGE, t.FRONT_IMAGE),
        _CLASSIFIER,
    ),
    'console_node': Rights(
        (t.TELEOP_EE_DELTA, t.POLICY_INSTRUCTION),
        (
            *(t.IMAGE, t.FRONT_IMAGE, t.JOINT_STATES, t.TCP_POSE, t.MARKERS, t.ARM_STATUS, t.STEP),
            *(t.CAMERA_INFO, t.FRONT_CAMERA_INFO, t.TF_STATIC, t.SIM_TASK, t.SUCCESS_OPINION),
            *(t.EE_DELTA_CMD, t.POLICY_EE_DELTA, t.TELEOP_EE_DELTA),
            *(t.EPISODE_EVENT, t.SESSION_STATUS, t.POLICY_STATUS, t.LEARNER_STATUS, t.DIAGNOSTICS),
            *(t.RECORDER_STATUS, t.TELEOP_DEVICE, t.CLASSIFIER_STATUS, t.CLASSIFIER_DOUBT, t.POLICY_CHUNKS),
        ),
        calls=(*_ARM, *_SESSION, *_LEARNER, *_CLASSIFIER),
    ),
    'kinematics_node': Rights(
        (t.JOINT_COMMAND, t.TCP_POSE, t.MARKERS, *_FRAMES),
        (t.JOINT_STATES, t.EE_DELTA_CMD, t.ARM_STATUS),
        (t.FK_SERVICE, t.IK_SERVICE, t.RESEED_SERVICE, t.HOLD_SERVICE),
    ),
    'learner_node': Rights(
        (t.WEIGHTS, t.LEARNER_STATUS),
        (t.STEP, t.EPISODE_EVENT, t.EE_DELTA_CMD, t.POLICY_BASE, t.JOINT_STATES, t.IMAGE, t.FRONT_IMAGE),
        _LEARNER,
    ),
    'lerobot_node': Rights((t.JOINT_COMMAND,), (t.JOINT_STATES, t.ARM_STATUS, t.JOINT_COMMAND, t.IMAGE)),
    'operator_node': Rights(
        (t.TELEOP_EE_DELTA, t.EE_DELTA_CMD, t.JOINT_COMMAND),
        (t.SIM_TASK, t.STEP, t.EPISODE_EVENT, t.JOINT_STATES, t.ARM_STATUS, t.SESSION_STATUS),
        calls=(
            *(t.START_EPISODE_SERVICE, t.END_EPISODE_SERVICE, t.INTERVENE_SERVICE),
            *(t.SIM_RESET_SERVICE, t.SIM_POWER_SERVICE),
            *(t.ARM_CLEAR_FAULT_SERVICE, t.ARM_ENABLE_SERVICE),
        ),
    ),
    'policy_node': Rights(
        (t.POLICY_EE_DELTA, t.POLICY_STATUS, t.POLICY_OBSERVED, t.POLICY_BASE),
        (
            *(t.JOINT_STATES, t.IMAGE, t.FRONT_IMAGE, t.STEP, t.EPISODE_EVENT, t.LEARNER_STATUS, t.WEIGHTS),
            t.BASE_EE_DELTA,
        ),
    ),
    'policy_server': Rights(hears=(t.SIM_TASK,)),
    'robot_state_publisher': Rights(_FRAMES, (t.JOINT_STATES,)),
    'session_node': Rights(
        (t.STEP, t.EPISODE_EVENT, t.EE_DELTA_CMD, t.JOINT_COMMAND, t.SESSION_STATUS),
        (
            *(t.JOINT_STATES, t.TCP_POSE, t.CAMERA_INFO, t.IMAGE, t.ARM_STATUS, t.SIM_TASK, t.SIM_CLOCK),
            *(t.FRONT_CAMERA_INFO, t.FRONT_IMAGE),
            *(t.POLICY_STATUS, t.POLICY_EE_DELTA, t.TELEOP_EE_DELTA, t.SUCCESS_OPINION),
        ),
        _SESSION,
        (t.RESEED_SERVICE, t.HOLD_SERVICE, t.SIM_RESET_SERVICE, t.SIM_GO_ON_SERVICE),
    ),
    'teleop_node': Rights(
        (t.TELEOP_EE_DELTA, t.TELEOP_DEVICE),
        (t.JOINT_STATES, t.EE_DELTA_CMD, t.STEP, t.EPISODE_EVENT, t.SESSION_STATUS, t.ARM_STATUS, 'joy'),
        calls=(*_SESSION, t.ARM_E_STOP_SERVICE, t.ARM_CLEAR_FAULT_SERVICE, t.ARM_ENABLE_SERVICE),
    ),
    'terminal_node': Rights(hears=(t.ARM_STATUS, t.LEARNER_STATUS, t.SESSION_STATUS)),
    'trial_node': Rights(
        (t.WEIGHTS,),
        (t.EPISODE_EVENT, t.SESSION_STATUS, t.POLICY_STATUS),
        calls=(t.START_EPISODE_SERVICE,),
    ),
    'vla_policy_node': Rights(
        (t.POLICY_EE_DELTA, t.POLICY_STATUS, t.POLICY_CHUNKS, t.BASE_EE_DELTA, t.BASE_STATUS),
        (
            t.JOINT_STATES,
            t.IMAGE,
            t.FRONT_IMAGE,
            t.STEP,
            t.EPISODE_EVENT,
            t.EE_DELTA_CMD,
            t.POLICY_INSTRUCTION,
        ),
    ),
    'twin_node': Rights(
        (
            *(t.SIM_TASK, t.SIM_CLOCK, t.DIAGNOSTICS),
            *(t.IMAGE, t.CAMERA_INFO, t.FRONT_IMAGE, t.FRONT_CAMERA_INFO, t.TF_STATIC),
        ),
        (),
        (*_SIM, *_FREEZE),
    ),
}
_EVERYTHING = tuple(sorted({topic for rights in RIGHTS.values() for topic in rights.publishes}))
RIGHTS |= {
    'recorder_node': Rights(
        (t.RECORDER_STATUS,),
        _EVERYTHING,
        calls=(t.PAUSE_SERVICE, *(f'{node}/{service}' for node in RIGHTS for service in ASKED)),
    ),
    'rviz2': Rights(hears=_EVERYTHING),
}
"""Node -> its rights; a test compares them with what the nodes do in a graph."""


def enclave(namespace: str, node: str) -> str:
    """Return the enclave of a node: by this name it is known to the keystore."""
    return '/'.join(('', 'so101', *filter(None, namespace.split('/')), node))


def dds_names(node: str, rights: Rights, namespace: str) -> tuple[list[str], list[str]]:
    """Return the DDS topics that a node may publish, and those that it may hear."""
    place = ''.join(f'/{part}' for part in namespace.split('/') if part)

    def whole(prefix: str, names: Iterable[str], suffix: str = '') -> Iterator[str]:
        for name in names:
            yield prefix + (name if name.startswith('/') else f'{place}/{name}') + suffix

    serves = (*rights.serves, *(f'{node}/{service}' for service in PARAMETER_SERVICES))
    both = ['ros_discovery_info', 'rt/parameter_events']
    publishes = [*both, 'rt/rosout', *whole('rt', rights.publishes)]
    publishes += [*whole('rr', serves, 'Reply'), *whole('rq', rights.calls, 'Request')]
    hears = [*both, 'rt/clock', *whole('rt', rights.hears)]
    hears += [*whole('rq', serves, 'Request'), *whole('rr', rights.calls, 'Reply')]
    return sorted(publishes), sorted(hears)


# --- documents ---


def _element(name: str, *content: str) -> str:
    return f'<{name}>{"".join(content)}</{name}>\n'


def _document(kind: str, content: str) -> str:
    schema = f'http://www.omg.org/spec/DDS-SECURITY/20170901/omg_shared_ca_{kind}.xsd'
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<dds xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="{schema}">\n'
        f'{content}</dds>\n'
    )


def governance(domain: int) -> str:
    """Return the rules of a domain: nobody without a certificate, everything signed and encrypted."""
    topic = {
        'topic_expression': '*',
        **dict.fromkeys(('enable_discovery_protection', 'enable_liveliness_protection'), 'true'),
        **dict.fromkeys(('enable_read_access_control', 'enable_write_access_control'), 'true'),
        'metadata_protection_kind': 'ENCRYPT',
        'data_protection_kind': 'ENCRYPT',
    }
    rule = {
        'domains': _element('id', str(domain)),
        'allow_unauthenticated_participants': 'false',
        'enable_join_access_control': 'true',
        'discovery_protection_kind': 'ENCRYPT',
        'liveliness_protection_kind': 'ENCRYPT',
        'rtps_protection_kind': 'SIGN',
        'topic_access_rules': _element('topic_rule', *(_element(*item) for item in topic.items())),
    }
    rules = _element('domain_rule', *(_element(*item) for item in rule.items()))
    return _document('governance', _element('domain_access_rules', rules))


def permissions(node: str, namespace: str, domain: int, now: datetime) -> str:
    """Return what one node may do; whatever it does not say is denied."""
    publishes, hears = dds_names(node, RIGHTS[node], namespace)
    name = enclave(namespace, node)

    def topics(names: Sequence[str]) -> str:
        return _element('topics', *(_element('topic', escape(name)) for name in names))

    grant = (
        _element('subject_name', f'CN={name}')
        + _element(
            'validity',
            _element('not_before', f'{now - timedelta(days=1):%Y-%m-%dT%H:%M:%S}'),
            _element('not_after', f'{now + VALID:%Y-%m-%dT%H:%M:%S}'),
        )
        + _element(
            'allow_rule',
            _element('domains', _element('id', str(domain))),
            _element('publish', topics(publishes)),
            _element('subscribe', topics(hears)),
        )
        + _element('default', 'DENY')
    )
    granted = f'<grant name="{name}">\n{grant}</grant>\n'
    return _document('permissions', _element('permissions', granted))


# --- keys ---


class Authority:
    """Signs certificates and documents; its key stays in `private`, which no robot needs."""

    def __init__(self, keystore: Path) -> None:
        self.key, self.certificate = keystore / 'private' / 'ca.key.pem', keystore / 'public' / 'ca.cert.pem'
        for path in (self.key, self.certificate):
            path.parent.mkdir(parents=True)
        make_key(self.key)
        days = ('-days', str(VALID.days))
        openssl(
            'req', '-x509', '-new', '-key', self.key, '-subj', '/CN=so101CA', *days, '-out', self.certificate
        )

    def certify(self, key: Path, name: str, out: Path) -> None:
        """Write a certificate that says who has a key."""
        serial = ('-CAcreateserial', '-CAserial', self.key.with_suffix('.srl'))
        signer = ('-CA', self.certificate, '-CAkey', self.key, *serial)
        with tempfile.NamedTemporaryFile() as request:
            subject = '/CN=' + name.replace('/', '\\/')
            openssl('req', '-new', '-key', key, '-subj', subject, '-out', request.name)
            openssl('x509', '-req', '-in', request.name, *signer, '-days', VALID.days, '-out', out)

    def sign(self, text: str, out: Path) -> None:
        """Write a document and, beside it, the same with a signature."""
        out.write_text(text, encoding='utf-8')
        signer = ('-signer', self.certificate, '-inkey', self.key)
        openssl('smime', '-sign', '-text', '-in', out, '-out', out.with_suffix('.p7s'), *signer)


def make_key(path: Path) -> None:
    """Write a new private key, for its owner's eyes only."""
    path.touch(mode=0o600)
    openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', path)


def openssl(*words: object) -> None:
    """Run openssl.

    Raises:
        OptionError: it is not there, or it fails.
    """
    if shutil.which('openssl') is None:
        raise OptionError(
            'expected the program openssl, which makes the keys; install it: sudo apt install openssl'
        )
    done = subprocess.run(['openssl', *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OptionError(f'openssl {words[0]} failed: {done.stderr.strip()}')


def make_keystore(keystore: Path, namespace: str, domain: int) -> None:
    """Make the keys of every node of a namespace in a domain.

    Raises:
        OptionError: the folder is there already, or openssl is not.
    """
    if keystore.exists():
        raise OptionError(f'{keystore} is there already, and keys are not replaced; name another folder.')
    keystore.mkdir(parents=True, mode=0o700)
    authority, now = Authority(keystore), datetime.now(UTC)
    for name in ('identity_ca', 'permissions_ca'):
        (keystore / 'public' / f'{name}.cert.pem').symlink_to('ca.cert.pem')
    enclaves = keystore / 'enclaves'
    enclaves.mkdir()
    authority.sign(governance(domain), enclaves / 'governance.xml')
    for node in RIGHTS:
        folder = enclaves / enclave(namespace, node).lstrip('/')
        folder.mkdir(parents=True)
        for path in (
            'public/identity_ca.cert.pem',
            'public/permissions_ca.cert.pem',
            'enclaves/governance.p7s',
        ):
            (folder / Path(path).name).symlink_to(os.path.relpath(keystore / path, folder))
        make_key(folder / 'key.pem')
        authority.certify(folder / 'key.pem', enclave(namespace, node), folder / 'cert.pem')
        authority.sign(permissions(node, namespace, domain, now), folder / 'permissions.xml')


# --- running with them ---

TRIAL = (
    "import rclpy, sys; rclpy.init(args=['--ros-args', '-e', sys.argv[1]]); rclpy.create_node('so101_look')"
)
LACKING = "doesn't have the security libraries"


def variables(keystore: str) -> dict[str, str]:
    """Return the variables with which ROS takes its keys from a keystore, and does not start without them."""
    words = {'KEYSTORE': str(Path(keystore).expanduser().resolve()), 'ENABLE': 'true', 'STRATEGY': 'Enforce'}
    return {f'ROS_SECURITY_{name}': value for name, value in words.items()} if keystore else {}


def check_keystore(keystore: str, nodes: Sequence[NodeSpec], namespace: str) -> None:
    """See whether every node has its keys, and whether the middleware uses them; call it before anything starts.

    Raises:
        OptionError: a key is missing, or DDS has no security here: nothing runs open that was asked to run closed.
    """
    folder = Path(keystore).expanduser() / 'enclaves'
    names = [enclave(namespace, node.name) for node in nodes if node.is_ros]
    missing = [name for name in names if not (folder / name.lstrip('/') / 'permissions.p7s').exists()]
    if missing:
        raise OptionError(
            f'security:={keystore} has no keys for {", ".join(missing)}; expected a folder that ./so101 security new '
            'has made, for this namespace.'
        )
    words = [sys.executable, '-c', TRIAL, names[0]]
    environment = {**os.environ, **variables(keystore)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if LACKING in done.stderr:
        raise OptionError(
            f'security:={keystore} cannot be had: the Fast DDS that is installed was built without security, as the '
            'wheels from PyPI are; ROS 2 from apt has it. Nothing is started; without security:=, network:=loopback '
            'keeps other machines out.'
        )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ['no reason'])[-1]
        raise OptionError(f'security:={keystore}: a node with these keys could not be made: {said}')


def main(argv: Sequence[str]) -> int:
    """Make a keystore."""
    parser = argparse.ArgumentParser(
        prog='so101 security',
        description='Make keys and the least permissions for each node; ./so101 up security:=DIR runs with them.',
    )
    parser.add_argument('what', choices=('new',), help='new: make a keystore')
    parser.add_argument(
        'dir', nargs='?', type=Path, default=Path(KEYSTORE), help='folder (default: %(default)s)'
    )
    parser.add_argument('--namespace', default='', help='of the nodes, as in namespace:=')
    parser.add_argument(
        '--domain', type=int, default=graph.domain_of(), help='ROS domain (default: %(default)s)'
    )
    asked = parser.parse_args(argv)
    try:
        make_keystore(asked.dir.expanduser(), asked.namespace, asked.domain)
    except (OptionError, OSError) as error:
        sys.stderr.write(f'so101 security: {error}\n')
        return 1
    folder = asked.dir
    sys.stdout.write(
        f'Keys for {len(RIGHTS)} nodes in ROS domain {asked.domain} are in {folder}: ./so101 up security:={folder}\n'
        f'{folder}/private signs more of them: keep it where no robot is.\n'
    )
    return 0
