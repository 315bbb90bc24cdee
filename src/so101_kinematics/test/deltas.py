# SPDX-License-Identifier: Apache-2.0
"""Actions as the controller gets them: an `EeDelta` by the names of its fields, read as the node reads it."""

from types import SimpleNamespace

from so101_kinematics.ee_controller import read_action

SOURCES = {'policy': 1, 'teleop': 2, 'person': 2, 'reset': 3}


def ee_delta(
    xyz=(0.0, 0.0, 0.0), gripper=0.3, t=0.0, frame_id='base_link', source='policy', base='base_link'
):
    """Return what a displacement [m], decided at `t` [s], is to a controller whose frame is `base`."""
    message = SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0), frame_id=frame_id),
        episode=1,
        index=0,
        translation=SimpleNamespace(x=xyz[0], y=xyz[1], z=xyz[2]),
        gripper=gripper,
        source=SOURCES.get(source, source),
    )
    return read_action(message, base, round(t * 1e9))
