# SPDX-License-Identifier: Apache-2.0
"""Whoever drives the arm in its own graph, as a teleoperator of LeRobot."""

from typing import Any

from lerobot.teleoperators import Teleoperator

from lerobot_robot_so101_ros.config import SO101RosTeleoperatorConfig
from lerobot_robot_so101_ros.robot import SUFFIX


class SO101RosTeleoperator(Teleoperator):
    """The joint commands of the graph as actions: a human with keys, pad, leader arm or page, a policy, an operator.

    They have been sent when LeRobot gets them, so the robot of this package does not send them once more.
    """

    config_class = SO101RosTeleoperatorConfig
    name = 'so101_ros'

    def __init__(self, config: SO101RosTeleoperatorConfig) -> None:
        super().__init__(config)
        self.config = config
        self._bridge = config.bridge('teleoperator')
        self._is_connected = False

    @property
    def action_features(self) -> dict[str, type]:
        """Joint positions."""
        self._bridge.open()
        return {name + SUFFIX: float for name in self._bridge.joints}

    @property
    def feedback_features(self) -> dict[str, type]:
        """None."""
        return {}

    @property
    def is_connected(self) -> bool:
        """Whether it may be asked."""
        return self._is_connected and self._bridge.is_open

    @property
    def is_calibrated(self) -> bool:
        """True: there is nothing to calibrate."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """Begin, if the arm is on.

        Raises:
            BridgeError: it is not, nobody is there, or in this stack LeRobot drives.
        """
        self._bridge.open()
        self._bridge.begin()
        self._is_connected = True

    def calibrate(self) -> None:
        """Do nothing."""

    def configure(self) -> None:
        """Do nothing."""

    def get_action(self) -> dict[str, float]:
        """Return where the joints are sent now, or where they are while nobody sends them anywhere.

        Raises:
            BridgeError: the arm has stopped.
        """
        return {
            name + SUFFIX: value
            for name, value in zip(self._bridge.joints, self._bridge.target(), strict=True)
        }

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        """Do nothing: whoever drives sees the arm."""

    def disconnect(self) -> None:
        """Hang up."""
        self._is_connected = False
        self._bridge.close()
