# SPDX-License-Identifier: Apache-2.0
"""Tool centre points: where on the gripper "the hand" is, and which way it points.

Four different frames called `gripperframe` are in circulation. They lie up to 20 mm and 90 degrees apart, so
a policy or a recording is only meaningful together with the one it was made with. Here each has a name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import math
from types import MappingProxyType
from typing import Any

from so101_description.errors import PresetError
from so101_description.pose import Pose

GRIPPER_BODY = 'gripper'
"""The body that carries the TCP and the wrist camera: the static jaw."""


@dataclass(frozen=True)
class TcpPreset:
    """A tool centre point.

    Attributes:
        name: what manifests and parameters call it.
        pose: pose of the TCP frame in the gripper body.
        source: where the numbers come from.
    """

    name: str
    pose: Pose
    source: str

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> 'TcpPreset':
        """Make a preset of your own, for example from a parameter file.

        Args:
            values: `position` [m]; optional `quat_wxyz` (identity without it), `name` and `source`.
        """
        unknown = sorted(set(values) - {'name', 'position', 'quat_wxyz', 'source'})
        if unknown or 'position' not in values:
            raise PresetError(
                'expected a TCP as position with optional quat_wxyz, name and source, '
                f'got the keys {sorted(values)}; correct them'
            )
        return cls(
            name=str(values.get('name', 'custom')),
            pose=Pose(values['position'], values.get('quat_wxyz', (1.0, 0.0, 0.0, 0.0))),
            source=str(values.get('source', 'given by the caller')),
        )


_HALF = math.sqrt(
    0.5
)  # written 0.707107 in the files; exact here, so that the frame is a rotation to the last digit
_X_APPROACH = (_HALF, 0.0, _HALF, 0.0)  # the frame's x axis points out of the gripper
_Z_APPROACH = (0.0, 0.0, 1.0, 0.0)  # the frame's z axis points out of the gripper

TCP_PRESETS: Mapping[str, TcpPreset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            TcpPreset(
                'so101',
                Pose((-0.0079, -0.000218121, -0.0981274), _Z_APPROACH),
                'gripper_frame_link of so101_new_calib.urdf (TheRobotStudio/SO-ARM100)',
            ),
            TcpPreset(
                'so_arm100',
                Pose((-0.0079, -0.000218121, -0.0981274), _X_APPROACH),
                'site gripperframe of so101_new_calib.xml (TheRobotStudio/SO-ARM100): so101 turned by 90 deg',
            ),
            TcpPreset(
                'pick101',
                Pose((0.0, 0.0, -0.0981274), _X_APPROACH),
                'site gripperframe of ggand0/pick-101, on the roll axis: 7.9 mm from so101',
            ),
            TcpPreset(
                'menagerie',
                Pose((0.012, -0.000218, -0.098127), _X_APPROACH),
                'site gripperframe of robotstudio_so101 (mujoco_menagerie): 19.9 mm from so101',
            ),
        )
    }
)
"""Presets by name."""


def get_tcp(tcp: str | TcpPreset) -> TcpPreset:
    """Return the preset of that name; a preset is returned as it is."""
    if isinstance(tcp, TcpPreset):
        return tcp
    if tcp not in TCP_PRESETS:
        raise PresetError(
            f'expected one of the TCP presets {list(TCP_PRESETS)}, got {tcp!r}; '
            'name one of them or make a TcpPreset'
        )
    return TCP_PRESETS[tcp]
