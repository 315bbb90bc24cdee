# SPDX-License-Identifier: Apache-2.0
"""The command `convert-checkpoint`: a RoboBase snapshot to a policy, or a policy back to RoboBase."""

import argparse
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
import json
import os
from pathlib import Path
import sys
from typing import Any

import torch
from torch import Tensor

from drqv2_policy_node.networks import Critic, CriticKind, EncoderPreset, NetworkSpec
from drqv2_policy_node.robobase.convert import (
    convert,
    ManifestFields,
    PRESETS,
    read_source,
    save_converted,
    Source,
)
from drqv2_policy_node.robobase.layout import RoboBaseError, state_dict
from drqv2_policy_node.robobase.snapshot import COUNTERS
from drqv2_policy_node.store import load_critics, load_policy, SOURCE
from so101_contract.errors import ContractError
from so101_contract.manifest import Workspace
from so101_contract.observation_spec import ObservationSpec, StateBlock
from so101_description.cameras import CAMERA_PRESETS
from so101_description.tcp import TCP_PRESETS
from so101_interfaces_py.files import read_file


def export_state_dict(
    directory: str | Path, *, envs: int, fresh_critics: bool = False
) -> 'OrderedDict[str, Tensor]':
    """Return the state dict that RoboBase loads from a stored policy.

    Args:
        directory: of the policy.
        envs: environments of the run that is to load it, the one for evaluation included.
        fresh_critics: whether a policy without critics such as RoboBase's gets new ones.

    Raises:
        RoboBaseError: the policy has no critics, or RoboBase has no such networks.
    """
    policy = load_policy(directory)
    stored = load_critics(directory)
    critics = None if stored is None or stored[0].spec.critic is not CriticKind.ROBOBASE else stored
    if policy.network.normalization.scale:
        raise RoboBaseError(
            f'expected a raw state, got the normalisation {policy.network.normalization.mode.value!r}; '
            f'RoboBase has no such networks'
        )
    if critics is None and not fresh_critics:
        found = 'none' if stored is None else f'those of the kind {stored[0].spec.critic.value!r}'
        raise RoboBaseError(
            f'expected critics of RoboBase next to the policy in {directory}, got {found}; RoboBase loads all or '
            f'nothing, pass --fresh-critics for new ones'
        )
    if critics is None:
        fresh = Critic(replace(policy.network, num_critics=2, critic=CriticKind.ROBOBASE))
        critics = fresh, fresh
    return state_dict(policy.encoder, policy.actor, *critics, envs=envs)


def settings(spec: NetworkSpec) -> list[str]:
    """Return the settings, beside the shapes, that RoboBase has to run with to build these networks."""
    halving = spec.strides.count(2)
    return [
        f'method.encoder_model.num_downsample_convs={halving}',
        f'method.encoder_model.num_post_downsample_convs={spec.convs - halving}',
    ]


def write_snapshot(path: str | Path, agent: 'OrderedDict[str, Tensor]', counters: dict[str, int]) -> None:
    """Write a state dict as a snapshot that RoboBase's `load_snapshot` takes; the file appears complete."""
    target = Path(path)
    if target.exists():
        raise RoboBaseError(f'expected no file at {target}, got one; name another')
    aside = target.with_name(f'.{target.name}.{os.getpid()}.partial')
    payload = {name: counters.get(name, 0) for name in COUNTERS} | {'agent': agent}
    try:
        torch.save(payload, aside)
        aside.rename(target)
    finally:
        aside.unlink(missing_ok=True)


EXAMPLES = """
A snapshot holds tensors and training settings. It does not say which point of the hand was the TCP, where the
camera sat, or how often the policy acted: supply these, or name a preset. Without OUT, only says what it finds.

examples:
  so101 convert-checkpoint best_snapshot.pt
  so101 convert-checkpoint best_snapshot.pt policies/lift --preset pick101
  so101 convert-checkpoint snapshot.pt policies/lift --tcp so101 --camera nexus --control-rate 10
  so101 convert-checkpoint --export policies/lift snapshot.pt --envs 9
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        'convert-checkpoint',
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument('source', type=Path, help='snapshot; with --export the directory of a policy')
    made.add_argument('out', type=Path, nargs='?', help='directory to make; with --export the file')
    made.add_argument('--name', help='name of the policy (default: that of OUT)')
    made.add_argument('--overwrite', action='store_true', help='replace a policy that is at OUT')
    given = made.add_argument_group('what the snapshot does not say')
    given.add_argument('--preset', choices=sorted(PRESETS), help='supplies all of these')
    given.add_argument('--tcp', choices=sorted(TCP_PRESETS), help='point of the hand that it saw and moved')
    given.add_argument('--camera', choices=sorted(CAMERA_PRESETS), help='where the wrist camera sat')
    given.add_argument('--control-rate', type=float, metavar='HZ', help='actions per second in training')
    given.add_argument('--ik-profile', choices=('setpoint', 'pick101'), help='controller of the training')
    given.add_argument('--action-scale', type=float, metavar='M', help='metres for an action of 1')
    given.add_argument('--reset-pose', type=float, nargs=6, metavar='RAD', help='joints at the start')
    given.add_argument(
        '--workspace', type=float, nargs=6, metavar='M', help='low x y z, high x y z of the TCP'
    )
    given.add_argument('--camera-names', nargs='+', metavar='NAME', help='in the order of training')
    given.add_argument('--state', nargs='+', metavar='BLOCK', help='state blocks; name:size for unknown ones')
    given.add_argument(
        '--image-size', type=int, metavar='PX', help='where the settings do not say (default: the even one)'
    )
    given.add_argument(
        '--encoder',
        choices=tuple(preset.value for preset in EncoderPreset),
        help='where the settings do not say: robobase (default, strides 2 1 1 1) or cpu (strides 2 2 2 1)',
    )
    given.add_argument(
        '--simulation-only', action='store_true', help='allow a state that only a simulator knows'
    )
    back = made.add_argument_group('back to RoboBase')
    back.add_argument('--export', action='store_true', help='write a snapshot from a policy')
    back.add_argument(
        '--envs', type=int, help='environments of the run that is to load it, evaluation included'
    )
    back.add_argument('--fresh-critics', action='store_true', help='new critics for a policy without any')
    return made


def manifest_fields(arguments: argparse.Namespace) -> ManifestFields:
    """Return what the user supplied, on top of the preset."""
    words: dict[str, Any] = {
        'tcp': arguments.tcp,
        'camera': arguments.camera,
        'control_rate_hz': arguments.control_rate,
        'ik_profile': arguments.ik_profile,
        'action_scale_m': arguments.action_scale,
        'reset_pose': arguments.reset_pose and tuple(arguments.reset_pose),
        'camera_names': arguments.camera_names and tuple(arguments.camera_names),
        'state': arguments.state and tuple(_block(text) for text in arguments.state),
        'simulation_only': arguments.simulation_only or None,
    }
    if arguments.workspace:
        low, high = arguments.workspace[:3], arguments.workspace[3:]
        words['workspace'] = Workspace(low=tuple(low), high=tuple(high))
    start = PRESETS.get(arguments.preset, ManifestFields())
    return replace(start, **{name: value for name, value in words.items() if value is not None})


def _block(text: str) -> StateBlock:
    name, _, size = text.partition(':')
    return StateBlock(name, int(size)) if size.isdigit() else StateBlock.named(name)


def run_convert(arguments: argparse.Namespace) -> int:
    """Read, say what was found, and write where there is an OUT."""
    given = manifest_fields(arguments)
    encoder = arguments.encoder and EncoderPreset(arguments.encoder)
    source = read_source(arguments.source, image_size=arguments.image_size, encoder=encoder)
    print(f'{arguments.source}: RoboBase DrQ-v2, complete')
    print('\n'.join(f'  {line}' for line in source.describe()))
    print('not in the snapshot:')
    print('\n'.join(f'  {line}' for line in assumptions(given, arguments)))
    if arguments.out is None:
        print('nothing was written: name a directory OUT to convert')
        return 0
    policy = convert(source, given, arguments.name or arguments.out.name)
    save_converted(arguments.out, source, policy, overwrite=arguments.overwrite)
    load_policy(arguments.out)  # once through the checks that every later use makes
    print(f'{arguments.out}: written and verified; spec {policy.manifest.observation.hash[:12]}')
    _warn(source, policy.manifest.observation)
    return 0


def assumptions(given: ManifestFields, arguments: argparse.Namespace) -> list[str]:
    """Return a line for each thing that only the user can know: its value, and where that comes from."""
    values = {
        '--tcp': (given.tcp, arguments.tcp),
        '--camera': (given.camera, arguments.camera),
        '--control-rate': (given.control_rate_hz, arguments.control_rate),
        '--ik-profile': (given.ik_profile, arguments.ik_profile),
        '--action-scale': (given.action_scale_m, arguments.action_scale),
        '--reset-pose': (' '.join(map(str, given.reset_pose)), arguments.reset_pose),
        '--workspace': (' '.join(map(str, given.workspace.low + given.workspace.high)), arguments.workspace),
        '--camera-names': (' '.join(given.camera_names), arguments.camera_names),
    }
    lines = []
    for name, (value, said) in values.items():
        origin = (
            'supplied'
            if said is not None
            else f'preset {arguments.preset}'
            if arguments.preset
            else 'assumed'
        )
        lines.append(f'{name:<15} {"MUST BE SUPPLIED" if value is None else f"{value} ({origin})"}')
    return lines


def _warn(source: Source, observation: ObservationSpec) -> None:
    if observation.privileged:
        print(f'only for simulation: it sees {list(observation.privileged)}')
    if (source.std_now or 0.0) > 0.2:
        print(
            f'its noise was still {source.std_now:.4g}: fine-tune with a schedule that starts at 0.2 or less, '
            f'more would hide what it can do'
        )


def _origin(path: Path) -> tuple[int, dict[str, int]]:
    """Return how many environments a converted policy was trained in, and how far its training was."""
    if not path.exists():
        return 2, {}
    try:
        said = json.loads(read_file(path))
        envs, counters = said.get('envs', 2), said.get('counters', {})
        if type(envs) is not int or envs < 1 or not all(type(number) is int for number in counters.values()):
            raise ValueError('no counts')
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise RoboBaseError(
            f'expected where a policy comes from in {path}, got {error}; convert the snapshot again'
        ) from error
    return envs, counters


def run_export(arguments: argparse.Namespace) -> int:
    """Write a snapshot from a policy."""
    envs, counters = _origin(arguments.source / SOURCE)
    envs = arguments.envs or envs
    agent = export_state_dict(arguments.source, envs=envs, fresh_critics=arguments.fresh_critics)
    write_snapshot(arguments.out, agent, counters)
    print(f'{arguments.out}: {len(agent)} tensors, hidden states for {envs} environments')
    print('RoboBase loads it with ' + ' '.join(settings(load_policy(arguments.source).network)))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    made = parser()
    arguments = made.parse_args(argv)
    if arguments.export and arguments.out is None:
        made.error('--export needs the file to write')
    try:
        return run_export(arguments) if arguments.export else run_convert(arguments)
    except ContractError as error:
        print(f'convert-checkpoint: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
