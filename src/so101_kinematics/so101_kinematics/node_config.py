# SPDX-License-Identifier: Apache-2.0
"""Parameters of kinematics_node beside those of the controller."""

from dataclasses import dataclass

from so101_description.cameras import CAMERA_PRESETS
from so101_interfaces_py.params import check_bounds, param


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """What the node publishes beside joint commands."""

    publish_tf: bool = param(
        True, doc='Publish /tf and robot_description; false where robot_state_publisher does it.'
    )
    frame_prefix: str = param('', doc='Put before every link name on /tf, so that two arms share a tree.')
    camera: str = param('nexus', doc='Where the wrist camera is mounted.', choices=tuple(CAMERA_PRESETS))
    marker_rate_hz: float = param(10.0, doc='Rate of the markers for RViz.', unit='Hz', lo=0.5, hi=50.0)

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)
