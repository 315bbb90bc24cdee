# SPDX-License-Identifier: Apache-2.0
"""Observations that have a name: session, policy, learner and environment are told the same word."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from so101_contract.errors import ObservationError
from so101_contract.observation_spec import CameraSpec, ObservationSpec, robobase_spec
from so101_contract.state_block import StateBlock

CONTROL_RATE_HZ = 10.0
"""Steps per second where nothing else is said [Hz]."""

DEFAULT_OBSERVATION = 'compact'


def compact_spec() -> ObservationSpec:
    """Return what a laptop learns from in real time: 64 px, three frames, and 15 numbers without an orientation.

    Five joints determine the orientation, so the joint positions say it already, without the jumps of Euler angles.
    """
    blocks = ('joint_pos', 'joint_vel', 'tcp_pos')
    return ObservationSpec(
        state=tuple(StateBlock.named(name) for name in blocks), cameras=(CameraSpec('gripper_cam', 64),)
    )


OBSERVATIONS: Mapping[str, Callable[[], ObservationSpec]] = {
    'compact': compact_spec,
    'full': ObservationSpec,
    'robobase': robobase_spec,
}


def get_observation(
    name: str, *, tcp: str | None = None, camera_preset: str | None = None
) -> ObservationSpec:
    """Return the observation of that name, with another TCP or camera preset where one is given.

    Raises:
        ObservationError: there is none of that name.
    """
    if name not in OBSERVATIONS:
        raise ObservationError(
            f'expected one of the observations {sorted(OBSERVATIONS)}, got {name!r}; correct the parameter'
        )
    spec = OBSERVATIONS[name]()
    return replace(spec, tcp=tcp or spec.tcp, camera_preset=camera_preset or spec.camera_preset)
