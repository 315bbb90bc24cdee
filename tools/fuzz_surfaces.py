# SPDX-License-Identifier: Apache-2.0
"""What `fuzz.py` damages: for every kind of file, how a good one is made, and which commands of a user read it."""

from collections.abc import Callable
from dataclasses import dataclass
import hashlib
import json
from pathlib import Path
import shutil
import sys
import tempfile
from typing import Any
import zipfile
import zlib

ROOT = Path(__file__).resolve().parents[1]
GENUINE = ROOT / 'src' / 'so101_bags' / 'test' / 'data' / 'genuine'
BEFORE = ROOT / 'src' / 'so101_testing' / 'test' / 'data' / 'before'
LEROBOT = ROOT / 'src' / 'hilserl_learner' / 'test' / 'data' / 'lerobot'

Attempt = Callable[[Path], Any]


@dataclass(frozen=True)
class Surface:
    """Something that is read.

    Attributes:
        make: writes a good one into an empty folder.
        attempt: reads what is in the folder, as the commands of a user do; returns what was understood, as text, where
            damage can be told by checksums. Another text than that of the good one, and no warning, is silent damage.
        refusals: exceptions whose message is the sentence.
        target: which of the files are damaged, as a pattern.
        seal: makes the checksums of a damaged one right, so that what lies behind them is tried.
    """

    make: Callable[[Path], None]
    attempt: Attempt
    refusals: tuple[type[Exception], ...] = ()
    target: str = '*'
    seal: Callable[[Path], None] | None = None


class RefusedError(ValueError):
    """A command has said a sentence and ended with an exit code."""


def surfaces() -> dict[str, Surface]:
    """Return what can be tried, by name."""
    refused = (ValueError,)  # every error of this project is one
    said = (RefusedError,)
    bags, learn = _bag_commands, _ingest_dataset
    return {
        'bag': Surface(_our_bag, bags, said, target='*.mcap'),
        'bag-genuine': Surface(_genuine('mcap_plain'), bags, said, target='*.mcap'),
        'bag-zstd': Surface(_genuine('mcap_zstd_file'), bags, said, target='*.zstd'),
        'bag-zstd-messages': Surface(_packed_messages, bags, said, target='*.mcap'),
        'bag-sqlite': Surface(_genuine('sqlite3_plain'), bags, said, target='*.db3'),
        'metadata': Surface(_our_bag, bags, said, target='metadata.yaml'),
        'page': Surface(_our_bag, _browse, refused, target='*'),
        'dataset-v30': Surface(_dataset('v30/image'), learn, said, target='*.*'),
        'dataset-v30-video': Surface(_dataset('v30/video'), learn, said, target='*.*'),
        'dataset-v21': Surface(_dataset('v21/video'), learn, said, target='*.*'),
        'buffer': Surface(_buffer, _read_buffer, refused, target='*.*'),
        'buffer-inside': Surface(_buffer, _read_buffer, refused, target='*.seg', seal=_seal_buffer),
        'checkpoint': Surface(_checkpoint, _read_checkpoint, refused),
        'checkpoint-inside': Surface(_checkpoint, _read_checkpoint, refused, seal=_seal_checkpoint),
        'policy': Surface(_policy, _read_policy, refused),
        'policy-inside': Surface(_policy, _read_policy, refused, target='*.*', seal=_seal_policy),
        'snapshot': Surface(_snapshot, _convert, said, target='*.pt'),
        'snapshot-inside': Surface(_members, _convert, said, target='data*', seal=_pack),
        'run': Surface(_run, _read_run, refused, target='*.*'),
        'calibration': Surface(_calibration, _read_calibration, refused),
        'camera-calibration': Surface(_lens, _read_lens, refused),
        'parameters': Surface(_parameters, _read_parameters, refused),
        'task': Surface(_task, _read_task, refused, target='*.yaml'),
    }


# ---- bags --------------------------------------------------------------------------------------------------


def _bag_commands(folder: Path) -> None:
    """Check, repair and ingest."""
    from hilserl_learner.ingest.cli import main as ingest
    from so101_bags.cli import check_main, fix_main

    bag = folder / 'bag'
    _run_commands(
        (check_main, [str(bag)]),
        (fix_main, [str(bag), '--out', _out('fixed')]),
        (ingest, [str(bag), '--out', _out('buffer')]),
    )


def _run_commands(*commands: tuple[Callable[[list[str]], int], list[str]]) -> None:
    """Run commands, and throw away what they wrote.

    Raises:
        RefusedError: one of them has refused with a sentence of its own.
    """
    try:
        codes = [command(words) for command, words in commands]
    finally:
        shutil.rmtree(Path(_out('')), ignore_errors=True)
    if any(codes):
        raise RefusedError(f'exit codes {codes}')


def _out(name: str) -> str:
    return str(Path(tempfile.gettempdir(), 'out', name))


def _our_bag(folder: Path) -> None:
    sys.path.insert(0, str(ROOT / 'src' / 'so101_bags' / 'test'))
    from bag_maker import Session, write

    write(folder / 'bag', Session(episodes=2, steps=4).messages())


def _packed_messages(folder: Path) -> None:
    """Make what `ros2 bag record --compression-mode message --compression-format zstd` writes."""
    from backports import zstd

    from so101_bags.storage import RawMessage

    sys.path.insert(0, str(ROOT / 'src' / 'so101_bags' / 'test'))
    from bag_maker import Session, write

    messages = Session(episodes=2, steps=4).messages()
    packed = [RawMessage(m.topic, m.msgtype, m.log_ns, zstd.compress(bytes(m.data))) for m in messages]
    metadata = write(folder / 'bag', packed) / 'metadata.yaml'
    text = metadata.read_text().replace("compression_mode: ''", 'compression_mode: MESSAGE')
    metadata.write_text(text.replace("compression_format: ''", 'compression_format: zstd'))


def _genuine(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.copytree(GENUINE / name, folder / 'bag') and None


def _browse(folder: Path) -> None:
    """Do what the page's list of episodes does."""
    from so101_console.archive.browser import EpisodeBrowser

    browser = EpisodeBrowser(str(folder))
    for row in browser.episodes():
        json.dumps(browser.episode(row['key']), allow_nan=False)
        browser.frame(row['key'], 1)


# ---- datasets ----------------------------------------------------------------------------------------------


def _dataset(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.copytree(LEROBOT / name, folder / 'dataset') and None


def _ingest_dataset(folder: Path) -> None:
    from hilserl_learner.ingest.cli import main as ingest

    options = ['--units', 'degrees', '--camera', 'gripper_cam=wrist']
    _run_commands((ingest, [str(folder / 'dataset'), '--out', _out('buffer'), *options]))


# ---- what learning keeps -----------------------------------------------------------------------------------


def _buffer(folder: Path) -> None:
    from hilserl_learner.ingest.cli import main as ingest

    with tempfile.TemporaryDirectory() as scratch:
        _our_bag(Path(scratch))
        ingest([str(Path(scratch, 'bag')), '--out', str(folder / 'buffer')])


def _read_buffer(folder: Path) -> str:
    from hilserl_learner.data.store import read_buffer

    digest = hashlib.sha256()
    for entry in read_buffer(folder / 'buffer'):
        output = entry.output
        said = output.action.translation if hasattr(output, 'action') else output.outcome
        digest.update(repr((output.episode, said)).encode())
    return digest.hexdigest()


def _seal_buffer(folder: Path) -> None:
    """Make the CRC of every record right (the form is in `hilserl_learner.data.segments`)."""
    for path in filter(Path.is_file, folder.rglob('*.seg')):
        data = bytearray(path.read_bytes())
        at = 8
        while at + 9 <= len(data):
            end = at + 9 + int.from_bytes(data[at : at + 4], 'little')
            if end > len(data):
                break
            crc = zlib.crc32(data[at + 9 : end], zlib.crc32(data[at + 4 : at + 5]))
            data[at + 5 : at + 9] = crc.to_bytes(4, 'little')
            at = end
        path.write_bytes(data)


def _checkpoint(folder: Path) -> None:
    import torch

    from hilserl_learner.training.checkpoint import Checkpoints, Metadata

    Checkpoints(folder / 'points').save({'a': torch.zeros(100)}, Metadata(updates=3, env_steps=4))


def _read_checkpoint(folder: Path) -> str:
    from hilserl_learner.training.checkpoint import Checkpoints

    saved = Checkpoints(folder / 'points').load()
    return '' if saved is None else repr((saved.metadata, {k: v.tolist() for k, v in saved.tensors.items()}))


def _seal_checkpoint(folder: Path) -> None:
    for path in folder.rglob('manifest.json'):
        said = _json(path)
        if isinstance(said, dict) and isinstance(said.get('files'), list):
            for entry in said['files']:
                file = path.parent / str(entry.get('name', ''))[:99] if isinstance(entry, dict) else path
                if isinstance(entry, dict) and file.is_file():
                    entry['sha256'] = _sha256(file)
            said['sha256'] = ''
            path.write_text(json.dumps(said))


def _policy(folder: Path) -> None:
    from drqv2_policy_node.store import find_policy

    shutil.copytree(str(find_policy('default', 'compact')), folder / 'policy')


def _read_policy(folder: Path) -> str:
    from drqv2_policy_node.store import load_critics, load_policy

    policy = load_policy(folder / 'policy')
    load_critics(folder / 'policy')
    return policy.manifest.to_json()


def _seal_policy(folder: Path) -> None:
    policy = folder / 'policy'
    manifest = policy / 'manifest.json'
    said = _json(manifest)
    if isinstance(said, dict) and (policy / 'policy.safetensors').is_file():
        said['tensors_sha256'] = _sha256(policy / 'policy.safetensors')
        manifest.write_text(json.dumps(said))
    files = sorted(path for path in policy.iterdir() if path.is_file() and path.name != 'SHA256SUMS')
    (policy / 'SHA256SUMS').unlink(missing_ok=True)
    (policy / 'SHA256SUMS').write_text(''.join(f'{_sha256(path)}  {path.name}\n' for path in files))


def _run(folder: Path) -> None:
    """Make the folder of a live run: what it was made with, its settings, and a buffer."""
    small = ROOT / 'src' / 'hilserl_learner' / 'test' / 'data' / 'before' / 'run'
    shutil.copytree(small, folder / 'run')
    for name in ('train.csv', 'evaluation.csv'):
        shutil.copyfile(BEFORE / 'run' / name, folder / 'run' / name)
    (folder / 'run' / 'run.json').write_text(_identity().to_json())


def _identity() -> Any:
    from hilserl_learner.live.identity import RunIdentity

    words = {
        'scene': 'simulated lift',
        'observation': 'compact',
        'action': 'a',
        'policy': 'none',
        'agent': 'hil',
    }
    return RunIdentity(**words)


def _read_run(folder: Path) -> None:
    from hilserl_learner.cli.plot import label_of, PANELS, read_curve
    from hilserl_learner.live.identity import choose_run, outlook
    from hilserl_learner.training.settings import read_config

    run = folder / 'run'
    read_config(run)
    choose_run('auto', '', _identity(), folder, 'new')
    outlook(run)
    label_of(run)
    for panel in PANELS:
        read_curve(run, panel)


# ---- snapshots ---------------------------------------------------------------------------------------------


def _snapshot(folder: Path) -> None:
    sys.path.insert(0, str(ROOT / 'src' / 'drqv2_policy_node' / 'test'))
    from snapshots import write

    write(folder / 'snapshot.pt')


def _convert(folder: Path) -> None:
    from drqv2_policy_node.robobase.cli import main as convert

    given = ['--tcp', 'so101', '--camera', 'nexus', '--control-rate', '10', '--name', 'mine']
    found = str(folder / 'snapshot.pt')
    _run_commands((convert, [found]), (convert, [found, _out('policy'), *given]))


def _members(folder: Path) -> None:
    """Make the files that are in a snapshot, to be damaged before they are packed."""
    with tempfile.TemporaryDirectory() as scratch:
        _snapshot(Path(scratch))
        with zipfile.ZipFile(Path(scratch, 'snapshot.pt')) as packed:
            packed.extractall(folder / 'inside')


def _pack(folder: Path) -> None:
    inside = folder / 'inside'
    with zipfile.ZipFile(folder / 'snapshot.pt', 'w') as packed:
        for path in sorted(path for path in inside.rglob('*') if path.is_file()):
            packed.write(path, path.relative_to(inside))


# ---- settings ----------------------------------------------------------------------------------------------


def _calibration(folder: Path) -> None:
    """Make a calibration with its sidecar, as `calibrate` writes them."""
    from dataclasses import replace

    from so101_driver.calibration.calibration import ArmCalibration
    from so101_driver.calibration.files import load, save

    plain = load(BEFORE / 'calibration' / 'virtual.json')
    joints = {name: replace(plain[name], offset_rad=0.01) for name in plain.joints}
    save(ArmCalibration(joints), folder / 'arm.json')


def _read_calibration(folder: Path) -> None:
    from so101_driver.calibration.files import load

    load(folder / 'arm.json')


def _lens(folder: Path) -> None:
    rows = {'camera_matrix': (3, 3), 'rectification_matrix': (3, 3), 'projection_matrix': (3, 4)}
    lines = ['image_width: 640', 'image_height: 480', 'camera_name: wrist', 'distortion_model: plumb_bob']
    lines += ['distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0.0, 0.0, 0.0]}']
    for name, (high, wide) in rows.items():
        data = ', '.join(f'{600.0 + n}' for n in range(high * wide))
        lines.append(f'{name}: {{rows: {high}, cols: {wide}, data: [{data}]}}')
    (folder / 'lens.yaml').write_text('\n'.join(lines) + '\n')


def _read_lens(folder: Path) -> None:
    from so101_driver.camera.config import Lens

    Lens.from_yaml(folder / 'lens.yaml')


def _parameters(folder: Path) -> None:
    (folder / 'session.yaml').write_text('/**/session_node:\n  ros__parameters:\n    time_limit_steps: 50\n')


def _read_parameters(folder: Path) -> None:
    from so101_bringup.options import parse_options, resolve
    from so101_bringup.parameter_files import check_files
    from so101_bringup.stack import hilserl

    check_files(hilserl(resolve(parse_options([]))), folder)


def _task(folder: Path) -> None:
    for name in ('push_can', 'place', 'lift'):
        shutil.copy(ROOT / 'config' / 'tasks' / f'{name}.yaml', folder)


def _read_task(folder: Path) -> None:
    """Read it as every node does: what is observed, what the scene is, and what differs from another one."""
    from so101_contract.task.files import get_task, told_task, yaml_of_task
    from so101_contract.task.spec import require_same_task
    from so101_driver.setup.task import main as task
    from so101_sim.scene.presets import get_preset

    for path in sorted(folder.glob('*.yaml')):
        told = told_task(str(path))
        assert told is not None
        told.observe('compact')
        require_same_task(told.meaning, get_task(str(path)).meaning, ('file', 'file'))
        yaml_of_task(told)
        get_preset('easy', str(path))
        if task(['check', str(path)]):
            raise RefusedError('it cannot be done')


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
