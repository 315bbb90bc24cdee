# SPDX-License-Identifier: Apache-2.0
"""What is looked at before the first node starts: what the options name, and which run the learner goes on with.

A node that finds out by itself fails after it was started, and again each time that it is started anew. So whatever the
options name is looked for here, and refused with one sentence while nothing has moved yet.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
import os
from pathlib import Path
import re
import shutil
import socket
import tempfile
from typing import Any

from so101_bringup.options import OptionError, Options
from so101_bringup.parameter_files import check_files, read_sections
from so101_bringup.programs import NodeSpec
from so101_interfaces_py.files import MOST_BYTES, read_file

RUNS = Path('runs')
"""Where runs lie that were not given a folder of their own."""

Told = Mapping[str, Any]


def prepare(
    nodes: Sequence[NodeSpec], options: Options, config: Path, say: Callable[[str], None]
) -> list[NodeSpec]:
    """Return the nodes of a stack, ready to start.

    Args:
        nodes: as the stack says; the learner's run may still be `auto`.
        options: what was chosen.
        config: folder of the parameter files.
        say: takes a line for the terminal: which run goes on, or begins.

    Raises:
        OptionError: something that they are told does not exist, is taken, or cannot be written.
    """
    check_files(nodes, config)
    _check_namespace(str(options['namespace']))
    for node in nodes:
        if node.name in _CHECKS:
            _CHECKS[node.name](_told(node, config))
    return [_with_run(node, _told(node, config), options, say) for node in nodes]


def _told(node: NodeSpec, config: Path) -> dict[str, Any]:
    """Return what a node is told by its file and by the stack."""
    told: dict[str, Any] = {}
    for section in read_sections(config / node.config) if node.config else ():
        told |= section.values if section.node == node.name else {}
    return told | dict(node.parameters)


def _refuse(option: str, value: object, expected: str, got: str, remedy: str) -> OptionError:
    return OptionError(f'{option}:={value}: expected {expected}, got {got}; {remedy}.')


def _check_namespace(namespace: str) -> None:
    if not re.fullmatch(r'(/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*/?)?', namespace):
        raise _refuse('namespace', namespace, 'letters, digits and _', 'something else', 'name it left, say')


def _check_arm(told: Told) -> None:
    if told['enable_at_start']:
        return  # the virtual arm brings its port and its calibration along
    from so101_driver.calibration.calibration import CalibrationError
    from so101_driver.calibration.files import find_calibration

    _check_device('port', str(told['port']))
    try:
        find_calibration(str(told['calibration']))
    except CalibrationError as error:
        raise OptionError(f'calibration:={told["calibration"]}: {error}') from error


def _check_device(option: str, name: str) -> None:
    path = Path(name)
    if not name or not path.exists():
        remedy = 'plug it in and switch it on, or see ./so101 doctor for the names of what is there'
        raise _refuse(option, name, 'a device', 'nothing', remedy)
    if not path.is_char_device():
        raise _refuse(option, name, 'a device', 'something else', 'name one such as /dev/ttyACM0')
    if not os.access(path, os.R_OK | os.W_OK):
        remedy = 'add yourself to the group of the device (dialout), then log in again'
        raise _refuse(option, name, 'the permission to read and write it', 'none', remedy)


def _check_teleop(told: Told) -> None:
    if told['device'] == 'leader':
        _check_device('leader', str(told['leader_port']))


def _check_camera(told: Told) -> None:
    for word in filter(None, told.get('sources', ())):
        _check_source('cameras', word.partition('=')[2])
    if not any(told.get('sources', ())):
        _check_source('camera', str(told['source']))


def _check_source(option: str, source: str) -> None:
    from so101_driver.camera.source import source_kind, SourceKind

    kind = source_kind(source)
    path = Path(f'/dev/video{source}' if source.isdigit() else source)
    if kind is SourceKind.URL:
        if not re.fullmatch(r'[a-z0-9+.-]+://[^/\s]+\S*', source):
            raise _refuse(option, source, 'a URL with a host', 'another text', 'write http://HOST:PORT/PATH')
    elif '%' not in path.name and not path.exists():
        remedy = 'plug it in, or name what is there; ./so101 doctor lists cameras'
        raise _refuse(option, source, 'a device or file', 'nothing', remedy)


def _check_policy(told: Told) -> None:
    """Look at what `contract_config` has not: whether there is a policy at all, and whether its tensors are whole."""
    word = str(told['policy'])
    if word in ('', 'none', 'default'):
        return
    import hashlib

    from so101_contract.errors import ContractError
    from so101_contract.manifest import PolicyManifest

    folder = Path(word).expanduser()
    try:
        manifest = PolicyManifest.from_json(read_file(folder / 'manifest.json'))
        digest = hashlib.sha256(read_file(folder / 'policy.safetensors', MOST_BYTES)).hexdigest()
    except OSError as error:
        remedy = 'name one such as runs/NAME/best, or default, or none'
        got = f'{error.strerror} at {error.filename}'
        raise _refuse('checkpoint', word, 'the folder of a policy', got, remedy) from error
    except ContractError as error:
        raise OptionError(f'checkpoint:={word}: {error}') from error
    from so101_contract.task.files import told_task
    from so101_contract.task.spec import require_same_task

    try:
        require_same_task(told_task(str(told.get('task', ''))), manifest.task, ('the stack', 'the policy'))
    except ContractError as error:
        raise OptionError(f'checkpoint:={word}: {error}') from error
    if digest != manifest.tensors_sha256:
        raise _refuse('checkpoint', word, 'whole tensors', 'damaged ones', 'get the policy again')


def _check_server(told: Told) -> None:
    from so101_contract.errors import ContractError
    from vla_policy_node.zmtp import Address

    try:
        Address.parse(str(told['server']))
    except ContractError as error:
        raise OptionError(f'server:={told["server"]}: {error}') from error


def _check_learner(told: Told) -> None:
    from hilserl_learner.data.store import read_header
    from hilserl_learner.errors import LearnerError
    from hilserl_learner.live.identity import observation_of
    from so101_contract.errors import ContractError
    from so101_contract.task.files import told_task
    from so101_contract.task.spec import require_same_task

    _check_policy(told)
    if told['demos'] in ('', 'none'):
        return
    try:
        theirs, names = (
            read_header(Path(str(told['demos'])).expanduser()),
            ('the stack', 'the demonstrations'),
        )
        observation_of(told).require_same(theirs.observation, names)
        require_same_task(told_task(str(told['task'])), theirs.task, names)
    except (LearnerError, ContractError) as error:
        raise OptionError(f'demos:={told["demos"]}: {error}') from error


def _check_recorder(told: Told) -> None:
    folder = _writable('record', str(told['out']))
    free_mb, wanted_mb = shutil.disk_usage(folder).free / 1e6, float(told.get('min_free_mb', 500.0))
    if free_mb < wanted_mb:
        expected, got = f'at least {wanted_mb:.0f} MB free', f'{free_mb:.0f} MB'
        raise _refuse('record', told['out'], expected, got, 'free the disk or record elsewhere')


def _writable(option: str, name: str) -> Path:
    """Return the folder, or the one above it that exists already, where something may be written."""
    path = Path(name).expanduser().absolute()
    present = next(folder for folder in (path, *path.parents) if folder.exists())
    if not present.is_dir():
        raise _refuse(option, name, 'a folder', f'the file {present}', 'name another one')
    try:
        with tempfile.TemporaryFile(
            dir=present
        ):  # rights alone do not tell: the disk may be read-only, or none
            return present
    except OSError as error:
        got = f'"{error.strerror}" in {present}'
        raise _refuse(option, name, 'a folder that can be written', got, 'name another one') from error


def _check_console(told: Told) -> None:
    from so101_console.access import Access, AccessError, TOKEN_VARIABLE

    host, port = str(told.get('host', '127.0.0.1')), int(told['port'])
    try:
        Access(host, str(told.get('token', '')) or os.environ.get(TOKEN_VARIABLE, ''))
    except AccessError as error:
        raise OptionError(f'the console: {error}') from error
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
            trial.listen()
        except OSError as error:
            remedy = 'end the other stack, or say console_port:=0 for a free one'
            got = error.strerror or str(error)
            raise _refuse('console_port', port, f'a free port on {host}', got, remedy) from error


def _check_scene(told: Told) -> None:
    from so101_contract.errors import ContractError
    from so101_sim.errors import PresetError
    from so101_sim.scene.presets import get_scene_preset

    try:
        get_scene_preset(str(told['preset']), str(told['task']))
    except (ContractError, PresetError) as error:
        raise OptionError(f'preset:={told["preset"]}: {error}') from error


def _check_trial(told: Told) -> None:
    from hilserl_learner.errors import LearnerError
    from hilserl_learner.trial.protocol import Plan

    try:
        policies = Plan.read(Path(str(told['plan'])).expanduser()).policies
    except LearnerError as error:
        raise OptionError(f'trial:={told["plan"]}: {error}') from error
    for policy in policies:
        _check_policy({'policy': policy})


def _check_classifier(told: Told) -> None:
    from hilserl_learner.classifier.model import folder_of, load_classifier, MANIFEST
    from hilserl_learner.errors import LearnerError
    from so101_contract.errors import ContractError
    from so101_contract.task.files import observed, told_task

    folder = Path(str(told['directory'])).expanduser()
    _writable('classifier', str(folder))
    if not (folder_of(folder) / MANIFEST).exists():
        return  # it is to be trained from what a human will say
    cameras = tuple(map(str, told['cameras']))
    try:
        task = told_task(str(told['task']), cameras)
        _, manifest = load_classifier(folder)
        spec = observed(task, str(told['observation']), cameras=cameras)
        manifest.require_observation(spec, None if task is None else task.name)
    except (LearnerError, ContractError) as error:
        raise OptionError(f'classifier:={folder}: {error}') from error


_CHECKS: Mapping[str, Callable[[Told], None]] = {
    'arm_node': _check_arm,
    'camera_node': _check_camera,
    'classifier_node': _check_classifier,
    'console_node': _check_console,
    'learner_node': _check_learner,
    'policy_node': _check_policy,
    'recorder_node': _check_recorder,
    'teleop_node': _check_teleop,
    'trial_node': _check_trial,
    'twin_node': _check_scene,
    'vla_policy_node': _check_server,
}


def _with_run(node: NodeSpec, told: Told, options: Options, say: Callable[[str], None]) -> NodeSpec:
    """Return the learner with the folder of the run that goes on, or begins."""
    if node.name != 'learner_node':
        return node
    from hilserl_learner.errors import LearnerError
    from hilserl_learner.live.identity import choose_run, outlook, RunIdentity
    from so101_contract.errors import ContractError

    real = f'arm-{str(told["scene"]).split()[-1][:8]}'
    name = f'{Path(str(options["task"])).stem}-{options["preset"]}' if options['sim'] else real
    try:
        identity = RunIdentity.of(told)
        run = choose_run(str(told['directory']), str(told['origin']), identity, RUNS, name)
    except (LearnerError, ContractError) as error:
        raise OptionError(str(error)) from error
    _writable('run', str(run))
    say(f'the learner {outlook(run, str(told["origin"]))}')
    return replace(node, parameters={**node.parameters, 'directory': str(run)})
