# SPDX-License-Identifier: Apache-2.0
"""What a policy requires of where it acts: what it was trained for (its manifest) against what runs here."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from drqv2_policy_node.config import AnsweringConfig
from so101_contract.action import ActionSpec
from so101_contract.errors import ContractError
from so101_contract.joints import JOINT_NAMES
from so101_contract.manifest import LiveConfig, PolicyManifest, Workspace
from so101_contract.observation_spec import Normalization
from so101_contract.task.files import observed, told_task
from so101_kinematics.config import PICK101_WORKSPACE

START_TOLERANCE_RAD = 0.5
"""Starts are drawn: a joint may begin this far from the pose that the manifest names [rad]."""


class MismatchError(ContractError):
    """A policy was trained for something else than what runs here."""


def live_config(config: AnsweringConfig) -> LiveConfig:
    """Return what the parameters say that runs here.

    Raises:
        ContractError: there is no such observation, TCP or camera.
    """
    task = told_task(config.task, config.cameras)
    return LiveConfig(
        observation=observed(
            task,
            config.observation,
            tcp=config.tcp,
            camera_preset=config.camera or None,
            cameras=config.cameras,
        ),
        task=None if task is None else task.meaning,
        action=ActionSpec(translation_scale_m=(config.action_scale_m,) * 3),
        control_rate_hz=config.control_rate_hz,
        ik_profile=config.ik_profile,
        workspace=_workspace(config),
    )


def _workspace(config: AnsweringConfig) -> Workspace:
    """Return the box that kinematics_node keeps the TCP in with these parameters."""
    if config.ik_profile != 'pick101':
        return Workspace(low=config.workspace_min, high=config.workspace_max)
    low, high = ([float(x) for x in corner] for corner in (PICK101_WORKSPACE.lower, PICK101_WORKSPACE.upper))
    return Workspace.from_dict({'low': low, 'high': high})


def require_compatible(manifest: PolicyManifest, live: LiveConfig) -> list[str]:
    """Refuse a policy that would do something else here than what it was trained for.

    Normalisation is left out: a session observes raw numbers, and each policy's networks normalise them themselves.

    Returns:
        one line per difference that the user should know, but that forbids nothing.

    Raises:
        MismatchError: the message lists every difference.
    """
    bare = replace(manifest, observation=replace(manifest.observation, normalization=Normalization()))
    lines = bare.check_compatible(live)
    if lines:
        raise MismatchError(
            f'expected a policy for what runs here, got {manifest.name!r} with the differences below; start the '
            f'stack as the policy needs it, or use another policy:\n  ' + '\n  '.join(lines)
        )
    return manifest.check_recommended(live)


def session_mismatch(live: LiveConfig, observation_hash: str, action_hash: str, task_hash: str = '') -> str:
    """Return a sentence where the session's START event names another contract than the parameters; else nothing.

    Args:
        live: what the parameters say.
        observation_hash: of the session's observation spec; empty where it does not say.
        action_hash: of its action spec; empty where it does not say.
        task_hash: of its task; empty where it does not say.
    """
    specs = {'observation': live.observation, 'action': live.action, 'task': live.task}
    said = {'observation': observation_hash, 'action': action_hash, 'task': task_hash}
    others = [name for name, spec in specs.items() if spec is not None and said[name] not in ('', spec.hash)]
    if not others:
        return ''
    return (
        f'expected a session with the {" and ".join(others)} of this node, got another one (hash '
        f'{", ".join(said[name][:12] for name in others)}); give both nodes the same task, observation, tcp and camera'
    )


def start_remark(manifest: PolicyManifest, joints: npt.NDArray[np.floating]) -> str:
    """Return a sentence where an episode begins far from where the policy's did (A7); else nothing.

    Args:
        manifest: of the policy.
        joints: positions at the first step (6,) [rad].
    """
    distance = np.abs(np.array(manifest.reset_pose) - joints)
    far = [
        f'{name} {joint:.2f} instead of {trained:.2f} rad'
        for name, joint, trained, difference in zip(
            JOINT_NAMES, joints, manifest.reset_pose, distance, strict=True
        )
        if difference > START_TOLERANCE_RAD
    ]
    return (
        f'the episode begins far from where {manifest.name!r} began in training: {", ".join(far)}'
        if far
        else ''
    )
