# SPDX-License-Identifier: Apache-2.0
"""A policy that acts: encoder, actor, and the manifest that says what they are for."""

import copy
from dataclasses import replace
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from drqv2_policy_node.networks import Actor, Critic, Encoder, to_bytes
from drqv2_policy_node.spec import NetworkError, NetworkSpec
from so101_contract.action import GripperConvention
from so101_contract.manifest import Golden, golden_observation, PolicyManifest
from so101_contract.observation import canonical_images, canonical_state, Observation
from so101_contract.observation_spec import ObservationSpec

ENCODER, ACTOR, CRITIC = 'encoder', 'actor.actor_model', 'critic'
"""Names of the parts in a tensor file: RoboBase's, and the critics of a policy that acts on top of a base."""

EDGE = 1.0 - 1e-6
"""Largest action with exploration noise, as in RoboBase."""

GOLDEN_PATTERN = 0


class PolicyError(NetworkError):
    """A policy cannot act on what it is given, or does not fit its manifest."""


class Policy:
    """Acts on observations; holds copies of the networks, so nothing that is trained later changes it.

    Args:
        encoder: its convolutions.
        actor: its actor.
        manifest: says what they see and what their numbers mean.
        directory: where it was loaded from; None where it comes from elsewhere.
        critic: chooses between its actions and a base policy's; None where it acts alone.
    """

    def __init__(
        self,
        encoder: Encoder,
        actor: Actor,
        manifest: PolicyManifest,
        directory: Path | None = None,
        *,
        critic: Critic | None = None,
    ) -> None:
        _check(encoder, actor, manifest)
        if (critic is None) != (manifest.on_base is None):
            raise PolicyError(
                'expected critics of a policy that acts on top of a base, and of no other, got '
                f'{"none" if critic is None else "some"}; export the policy again'
            )
        self.critic: Critic | None = None if critic is None else _frozen(critic)
        self.manifest = manifest
        self.directory = directory
        self.encoder: Encoder = _frozen(encoder)
        self.actor: Actor = _frozen(actor)

    @classmethod
    def create(
        cls, encoder: Encoder, actor: Actor, *, critic: Critic | None = None, **fields: Any
    ) -> 'Policy':
        """Return a policy whose manifest holds the hash and the golden action of these networks.

        Args:
            encoder: its convolutions.
            actor: its actor.
            critic: see `Policy`.
            fields: every field of `PolicyManifest` except `golden` and `tensors_sha256`.
        """
        unknown = Golden(pattern=GOLDEN_PATTERN, action=(0.0,) * fields['action'].size)
        manifest = PolicyManifest(golden=unknown, tensors_sha256='0' * 64, **fields)
        policy = cls(encoder, actor, manifest, critic=critic)
        policy.manifest = replace(
            policy.manifest,
            golden=replace(unknown, action=tuple(policy.golden_action(GOLDEN_PATTERN).tolist())),
            tensors_sha256=hashlib.sha256(policy.tensor_bytes()).hexdigest(),
        )
        return policy

    @property
    def network(self) -> NetworkSpec:
        """Shapes of the networks."""
        return self.encoder.spec

    def act(
        self, observation: Observation, *, std: float = 0.0, rng: np.random.Generator | None = None
    ) -> npt.NDArray[np.float32]:
        """Return the action for one observation.

        Args:
            observation: what the manifest's observation spec describes.
            std: exploration noise in network units; 0 for the mean.
            rng: source of the noise; needed where std is above 0.

        Returns:
            (A,) float32 in network units, four where it moves the TCP.

        Raises:
            ContractError: the observation has other shapes, types or cameras, or a state that is not finite.
        """
        inputs = policy_inputs(observation, self.manifest.observation)
        with torch.inference_mode():
            images, state = (torch.from_numpy(array) for array in inputs)
            mean: npt.NDArray[np.float32] = self.actor(self.encoder(images), state)[0].numpy()
        if not std > 0:
            return mean
        if rng is None:
            raise PolicyError(f'expected a random generator for noise of std {std}, got none; pass rng')
        noisy = mean + std * rng.standard_normal(mean.shape)
        return np.clip(noisy, -EDGE, EDGE).astype(np.float32)

    def golden_action(self, pattern: int) -> npt.NDArray[np.float32]:
        """Return the mean action for the golden observation of that pattern (A,)."""
        return self.act(golden_observation(self.manifest.observation, pattern))

    def self_test(self) -> None:
        """Refuse to act where the golden observation does not give the manifest's golden action.

        Raises:
            ManifestError: with both actions.
        """
        self.manifest.golden.check(self.golden_action(self.manifest.golden.pattern))

    def tensor_bytes(self) -> bytes:
        """Return the tensors as safetensors with the network spec in the header."""
        parts = {ENCODER: self.encoder, ACTOR: self.actor}
        if self.critic is None:
            return to_bytes(self.network, parts)
        return to_bytes(self.critic.spec, {**parts, CRITIC: self.critic})


def policy_inputs(
    observation: Observation, spec: ObservationSpec
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Return images (1, V, 3T, S, S) and state (1, T * D) as the networks take them.

    Raises:
        ContractError: the observation has other shapes, types or cameras, or a state that is not finite.
    """
    if set(observation.images) != set(spec.camera_names):
        raise PolicyError(
            f'expected images of the cameras {list(spec.camera_names)}, got {list(observation.images)}; '
            f'use the observation spec of the policy'
        )
    views = [canonical_images(observation.images[name], spec, batched=False) for name in spec.camera_names]
    folded = np.zeros((len(views), 3 * spec.frame_stack, spec.image_size, spec.image_size), np.uint8)
    for view, stack in zip(folded, views, strict=True):
        view[:] = stack.reshape(view.shape)
    state = canonical_state(observation.state, spec, batched=False)
    if not np.isfinite(state).all():
        raise PolicyError(f'expected a finite state, got {state.tolist()}; hold until there is one')
    return folded[None], np.ascontiguousarray(state).reshape(1, -1)


def _frozen(module: Any) -> Any:
    return copy.deepcopy(module).to('cpu').eval().requires_grad_(False)


def _check(encoder: Encoder, actor: Actor, manifest: PolicyManifest) -> None:
    lines = encoder.spec.diff(actor.spec, ('encoder', 'actor'))
    if lines:
        raise PolicyError('expected an encoder and an actor of one spec, got:\n  ' + '\n  '.join(lines))
    encoder.spec.require_observation(manifest.observation)
    if encoder.spec.action_size != manifest.action.size:
        raise PolicyError(
            f'expected {manifest.action.size} actions, got {encoder.spec.action_size}; '
            f'a policy of another arm cannot move this one'
        )
    if manifest.action.gripper is not GripperConvention.SIGNED:
        raise PolicyError(
            f'expected the gripper convention {GripperConvention.SIGNED.value!r}, since the networks say -1..1, '
            f'got {manifest.action.gripper.value!r}; correct the action spec'
        )
