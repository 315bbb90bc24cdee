# SPDX-License-Identifier: Apache-2.0
"""What a user says of the environment on the command line of lerobot-eval."""

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

GYM_ID = 'lerobot_env_so101_sim/Arm-v0'
CAMERA = 'gripper_cam'
PICTURE = f'{OBS_IMAGES}.{CAMERA}'
"""Also the name under which lerobot-eval finds it where it records."""

if GYM_ID not in gym.registry:
    gym.register(GYM_ID, entry_point='lerobot_env_so101_sim.environment:LeRobotArm')


@EnvConfig.register_subclass('so101_sim')
@dataclass
class SO101SimEnv(EnvConfig):
    """The simulated arm with a task; `control: joints` fits what lerobot-record records, `delta` our exports."""

    task: str | None = 'lift'
    fps: int = 10
    preset: str = 'easy'
    control: str = 'joints'
    use_degrees: bool = True
    width: int = 320
    height: int = 240
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(
        default_factory=lambda: {ACTION: ACTION, 'agent_pos': OBS_STATE, PICTURE: PICTURE}
    )

    def __post_init__(self) -> None:
        """Say what is observed and done, of what size."""
        self.features = {
            ACTION: PolicyFeature(FeatureType.ACTION, (4 if self.control == 'delta' else 6,)),
            'agent_pos': PolicyFeature(FeatureType.STATE, (6,)),
            PICTURE: PolicyFeature(FeatureType.VISUAL, (self.height, self.width, 3)),
        }

    @property
    def gym_id(self) -> str:
        """Name of the environment in Gymnasium."""
        return GYM_ID

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Arguments of `LeRobotArm`."""
        chosen = ('task', 'preset', 'control', 'use_degrees', 'width', 'height')
        return {name: getattr(self, name) for name in chosen}
