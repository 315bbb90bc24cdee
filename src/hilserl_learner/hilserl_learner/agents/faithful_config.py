# SPDX-License-Identifier: Apache-2.0
"""Settings of the faithful agent."""

from dataclasses import dataclass

from drqv2_policy_node.networks import CriticKind, EncoderPreset, NetworkSpec
from so101_contract.observation_spec import ObservationSpec
from so101_interfaces_py.params import check_bounds, param


@dataclass(frozen=True, kw_only=True)
class FaithfulConfig:
    """RoboBase's settings; the defaults are those that policies for this arm were trained with."""

    width: int = param(256, doc='Width of the two hidden layers of a fresh agent.', lo=8, hi=4096)
    num_critics: int = param(2, doc='Critics of a fresh agent.', lo=1, hi=100)
    learning_rate: float = param(1e-4, doc='Of AdamW, for all networks.', lo=1e-6, hi=1e-1)
    weight_decay: float = param(0.0, doc='Of AdamW.', lo=0.0, hi=1.0)
    tau: float = param(0.01, doc='Share by which target critics follow in each update.', lo=0.0, hi=1.0)
    noise_clip: float = param(
        0.3, doc='Largest noise on the actions that losses are computed with.', lo=0.0, hi=2.0
    )
    shift: int = param(
        4, doc='Largest shift of an image in augmentation; 0 for none.', unit='px', lo=0, hi=16
    )
    bc_weight: float = param(
        0.0, doc='Weight of the squared distance to demonstrated actions (bc_lambda).', lo=0.0, hi=100.0
    )
    grad_clip: float = param(
        0.0, doc='Largest norm of the gradient of each network; 0 for any.', lo=0.0, hi=1e6
    )

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)

    def networks(self, observation: ObservationSpec) -> NetworkSpec:
        """Return the shapes of a fresh agent's networks."""
        return NetworkSpec.from_observation(
            observation,
            mlp=(self.width, self.width),
            num_critics=self.num_critics,
            encoder=EncoderPreset.ROBOBASE,
            critic=CriticKind.ROBOBASE,
        )
