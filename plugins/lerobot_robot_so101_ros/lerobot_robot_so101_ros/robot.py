# SPDX-License-Identifier: Apache-2.0
"""The arm as a robot of LeRobot."""

from functools import cached_property
from typing import Any

from lerobot.robots import Robot

from lerobot_robot_so101_ros.bridge import BridgeError
from lerobot_robot_so101_ros.config import SO101RosConfig

SUFFIX = '.pos'
"""What LeRobot adds to a joint's name."""


class SO101Ros(Robot):
    """Reads joints and pictures of the graph, and commands joints; the driver's gate has the last word.

    A stop of the arm (an e-stop, a fault, lost power) raises `ArmStoppedError`, so that LeRobot's program ends; the
    episodes that it has saved stay. The arm holds still while nothing is sent, and after `disconnect` too.
    """

    config_class = SO101RosConfig
    name = 'so101_ros'

    def __init__(self, config: SO101RosConfig) -> None:
        super().__init__(config)
        self.config = config
        self.cameras: dict[str, Any] = {}  # LeRobot counts them; the pictures come through the graph
        self._bridge = config.bridge('robot')
        self._is_connected = False

    @cached_property
    def _known(self) -> tuple[tuple[str, ...], dict[str, tuple[int, int, int]]]:
        """The joints, and the shapes of the cameras: LeRobot wants them before it connects."""
        self._bridge.open()
        return tuple(name + SUFFIX for name in self._bridge.joints), self._bridge.cameras

    @property
    def observation_features(self) -> dict[str, type | tuple]:
        """Joint positions, and the pictures of each camera."""
        joints, cameras = self._known
        return {**dict.fromkeys(joints, float), **cameras}

    @property
    def action_features(self) -> dict[str, type]:
        """Joint positions."""
        return dict.fromkeys(self._known[0], float)

    @property
    def is_connected(self) -> bool:
        """Whether the arm may be used."""
        return self._is_connected and self._bridge.is_open

    @property
    def is_calibrated(self) -> bool:
        """True: the driver has the calibration (`./so101 calibrate`)."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """Begin, if the arm is on.

        Raises:
            BridgeError: it is not, or nobody is there.
        """
        self._bridge.open()
        if self._known[0] != tuple(name + SUFFIX for name in self._bridge.joints):
            raise BridgeError(f'expected the joints {self._known[0]}, got {self._bridge.joints}')
        self._bridge.begin()
        self._is_connected = True

    def calibrate(self) -> None:
        """Do nothing: `./so101 calibrate` does it."""

    def configure(self) -> None:
        """Do nothing: the driver does it."""

    def get_observation(self) -> dict[str, Any]:
        """Return the newest joint positions and pictures; it waits a moment for them.

        Raises:
            BridgeError: the arm has stopped, or a camera shows nothing new.
        """
        joints, pictures = self._bridge.observe()
        return {**dict(zip(self._known[0], joints, strict=True)), **pictures}

    def send_action(self, action: dict[str, Any]) -> dict[str, float]:
        """Send the joints somewhere.

        Raises:
            BridgeError: the arm has stopped, somebody else drives it, or it is no position of these joints.
        """
        names = self._known[0]
        if set(action) != set(names):
            raise BridgeError(f'expected an action of {", ".join(names)}, got {", ".join(map(str, action))}')
        wanted = [float(action[name]) for name in names]
        sent = self._bridge.command(wanted)
        return dict(zip(names, sent, strict=True))

    def disconnect(self) -> None:
        """Hang up; the arm holds still."""
        self._is_connected = False
        self._bridge.close()
