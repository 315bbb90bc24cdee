# SPDX-License-Identifier: Apache-2.0
"""What LeRobot knows of such a policy before it is loaded."""

from dataclasses import dataclass

from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

STORED = 'so101'
"""Folder, beside config.json, with the policy as this project stores it: manifest, tensors, checksums."""


@PreTrainedConfig.register_subclass('so101')
@dataclass
class SO101Config(PreTrainedConfig):
    """A stored policy that drives the joints.

    Attributes:
        use_degrees: joints in degrees, else -100..100.
        camera: LeRobot's name of the wrist camera.
        width: of its pictures, for people: any size will do [px].
        height: the same.
    """

    use_degrees: bool = True
    camera: str = 'gripper_cam'
    width: int = 320
    height: int = 240

    def __post_init__(self) -> None:
        """Say what is seen and done; it runs on the processor, where it takes a few milliseconds."""
        self.device = 'cpu'
        super().__post_init__()
        self.input_features = {
            OBS_STATE: PolicyFeature(FeatureType.STATE, (6,)),
            f'{OBS_IMAGES}.{self.camera}': PolicyFeature(FeatureType.VISUAL, (3, self.height, self.width)),
        }
        self.output_features = {ACTION: PolicyFeature(FeatureType.ACTION, (6,))}

    @property
    def observation_delta_indices(self) -> None:
        """None: the history is kept while it acts."""

    @property
    def action_delta_indices(self) -> None:
        """None: one action at a time."""

    @property
    def reward_delta_indices(self) -> None:
        """None: nothing is learned here."""

    def get_optimizer_preset(self) -> None:
        """Refuse to be trained.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            'expected a policy that LeRobot trains; this one learns with ./so101 up or train'
        )

    def get_scheduler_preset(self) -> None:
        """None: nothing is learned here."""

    def validate_features(self) -> None:
        """Do nothing: the sizes are this module's own."""
