# SPDX-License-Identifier: Apache-2.0
"""What a policy needs around it, as its manifest says: the stack gives it that, so that nobody has to know."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from so101_bringup.options import OptionError

MANIFEST = 'manifest.json'


@dataclass(frozen=True)
class Surroundings:
    """What session, controller, policy and learner must agree on.

    Attributes:
        observation: name of what is observed.
        tcp: TCP preset.
        camera_preset: where the wrist camera sits.
        rate_hz: steps per second [Hz].
        profile: the controller's profile.
        action_scale_m: displacement for 1.0 [m].
    """

    observation: str
    tcp: str
    camera_preset: str = 'nexus'
    rate_hz: float = 10.0
    profile: str = 'setpoint'
    action_scale_m: float = 0.02


def surroundings(checkpoint: str, observation: str, tcp: str) -> Surroundings:
    """Return what to run a policy in.

    Args:
        checkpoint: folder of the policy; anything else has no wishes.
        observation: name of the observation where the policy has no wishes.
        tcp: TCP preset where it has none.

    Raises:
        OptionError: its manifest cannot be read, or asks for what has no name.
    """
    folder = Path(checkpoint).expanduser()
    if checkpoint in ('none', 'default', '') or not (folder / MANIFEST).exists():
        return Surroundings(observation, tcp)
    # Here and not above: the options must be readable where nothing is installed yet.
    from so101_contract.errors import ContractError
    from so101_contract.manifest import PolicyManifest
    from so101_contract.presets import get_observation, OBSERVATIONS

    try:
        manifest = PolicyManifest.from_json((folder / MANIFEST).read_text())
    except (OSError, ContractError) as error:
        raise OptionError(f'checkpoint:={checkpoint} cannot be read: {error}') from error
    wanted = manifest.observation
    named: Mapping[str, object] = {
        name: replace(
            get_observation(name, tcp=wanted.tcp, camera_preset=wanted.camera_preset),
            normalization=wanted.normalization,
        )
        for name in OBSERVATIONS
    }
    # With another TCP two names may mean the same; the one that means it by itself goes first.
    names = [name for name, spec in named.items() if spec == wanted]
    names.sort(key=lambda name: get_observation(name).tcp != wanted.tcp)
    if not names:
        raise OptionError(
            f'checkpoint:={checkpoint} was trained with an observation that has no name here: '
            f'{wanted.state_size} numbers, {wanted.image_size} px, {wanted.frame_stack} frames of '
            f'{list(wanted.camera_names)}; add it to so101_contract/presets.py.'
        )
    return Surroundings(
        names[0],
        wanted.tcp,
        wanted.camera_preset,
        manifest.control_rate_hz,
        manifest.ik_profile,
        manifest.action.translation_scale_m[0],
    )
