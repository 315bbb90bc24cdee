# SPDX-License-Identifier: Apache-2.0
"""What every part must agree on, in one place: the contract configuration, and the numbers that several judge by.

A policy answers to an observation, at a rate, with displacements of one scale that one controller executes. Session,
controller, policy, learner, recorder and devices are told the same values; who starts them builds one of these, from
the policy's manifest where there is one. Of the thresholds at the end several parts have an opinion; what a single
part decides for itself is its parameter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from so101_contract.errors import ContractError
from so101_contract.manifest import PolicyManifest
from so101_contract.observation_spec import (
    camera_word,
    CONTROL_RATE_HZ,
    DEFAULT_OBSERVATION,
    get_observation,
    OBSERVATIONS,
)

_DEFAULT = get_observation(DEFAULT_OBSERVATION)


@dataclass(frozen=True, kw_only=True)
class ContractConfig:
    """Observation, TCP, camera, rate, controller, action scale and workspace.

    Attributes:
        observation: name of what is observed (`observation_spec.OBSERVATIONS`).
        task: what is to be done: name or file; empty: nobody says.
        cameras: that are observed; empty: those of the task, or else of the observation.
        tcp: TCP preset that actions move.
        camera_preset: where the wrist camera is mounted.
        control_rate_hz: steps per second [Hz].
        ik_profile: control law that executes the actions.
        action_scale_m: displacement for 1.0 along each axis [m].
        workspace_min: lower corner of the box that the TCP stays in [m].
        workspace_max: its upper corner [m].
    """

    observation: str = DEFAULT_OBSERVATION
    task: str = ''
    cameras: tuple[str, ...] = ('',)
    tcp: str = _DEFAULT.tcp
    camera_preset: str = _DEFAULT.camera_preset
    control_rate_hz: float = CONTROL_RATE_HZ
    ik_profile: str = 'setpoint'
    action_scale_m: float = 0.02
    workspace_min: tuple[float, float, float] = (0.10, -0.25, 0.01)
    workspace_max: tuple[float, float, float] = (0.40, 0.25, 0.30)

    @classmethod
    def from_manifest(cls, manifest: PolicyManifest, task: str = '') -> Self:
        """Return what a policy was trained with. Task and workspace stay those of the arm that it acts on.

        Raises:
            ContractError: it observes what has no name here, or moves joints.
        """
        if manifest.action.joint_scale_rad is not None:
            raise ContractError(
                f'expected a policy whose actions move the TCP, got one that moves {manifest.action.size - 1} joints; '
                f'this arm has no such controller'
            )
        return cls(
            observation=_name_of(manifest),
            task=task,
            cameras=tuple(camera_word(name) for name in manifest.observation.camera_names) if task else ('',),
            tcp=manifest.observation.tcp,
            camera_preset=manifest.observation.camera_preset,
            control_rate_hz=manifest.control_rate_hz,
            ik_profile=manifest.ik_profile,
            action_scale_m=manifest.action.translation_scale_m[0],
        )


def _name_of(manifest: PolicyManifest) -> str:
    wanted = manifest.observation
    named: Mapping[str, object] = {
        name: replace(
            get_observation(name, tcp=wanted.tcp, camera_preset=wanted.camera_preset),
            normalization=wanted.normalization,
            cameras=wanted.cameras,
        )
        for name in OBSERVATIONS
    }
    # With another TCP two names may mean the same; the one that means it by itself goes first.
    names = [name for name, spec in named.items() if spec == wanted]
    names.sort(key=lambda name: get_observation(name).tcp != wanted.tcp)
    if not names:
        raise ContractError(
            f'expected an observation that has a name here, got {wanted.state_size} numbers, {wanted.image_size} px, '
            f'{wanted.frame_stack} frames of {list(wanted.camera_names)}; add it to so101_contract/observation_spec.py'
        )
    return names[0]


SERVO_WARM_C = 55.0
"""Temperature of a servo that is worth a warning [degC]."""

SERVO_HOT_C = 65.0
"""Temperature at which a servo is switched off [degC]: its windings are specified to 70."""

LONG_INTERVENTION_STEPS = 30
"""A takeover of more steps in a row teaches little: HIL-SERL (Luo et al., 2024) asks for short corrections
rather than whole episodes by hand, which make the critic optimistic about states that the policy never reaches."""

REWARDED_SHARE = 1 / 3
"""Share of episodes that should earn a reward, with or without help: without rewards there is nothing to learn."""

BY_HAND_SHARE = 0.5
"""A human who acts in more of the steps than this, once the policy has had its time, leaves it no room to try."""

Q_MARGIN = 0.05
"""How far the mean value may lie above the largest return there is, as a share of it, before it counts as diverged."""

STICK_DEAD_ZONE = 0.15
"""Share of a stick's way that counts as rest; worn hobby pads come to rest within a tenth."""
