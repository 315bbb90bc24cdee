# SPDX-License-Identifier: Apache-2.0
"""Messages to arrays and back, at the edge of every node. A bad message raises, with a sentence."""

from collections.abc import Iterable, Sequence

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion
import numpy as np
from sensor_msgs.msg import Image, JointState
from so101_interfaces.msg import EeDelta

NANOSECONDS = 1_000_000_000


def stamp_to_ns(stamp: Time) -> int:
    """Return a stamp as nanoseconds."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def ns_to_stamp(nanoseconds: int) -> Time:
    """Return nanoseconds as a stamp."""
    return Time(sec=nanoseconds // NANOSECONDS, nanosec=nanoseconds % NANOSECONDS)


def joint_positions(message: JointState, names: Sequence[str]) -> np.ndarray:
    """Return positions [rad] in the order of `names`, whatever the order of the message.

    Raises:
        KeyError: a joint is missing.
        ValueError: names and positions differ in number, or a name comes twice.
    """
    if len(message.name) != len(message.position):
        raise ValueError(
            f'the joint message has {len(message.name)} names and {len(message.position)} positions.'
        )
    values = dict(zip(message.name, message.position, strict=True))
    if len(values) != len(message.name):
        raise ValueError(f'the joint message names a joint twice: {", ".join(message.name)}.')
    missing = [name for name in names if name not in values]
    if missing:
        raise KeyError(f'the joint message lacks {", ".join(missing)}; it has: {", ".join(message.name)}.')
    return np.array([values[name] for name in names], dtype=np.float64)


def joint_state(names: Sequence[str], positions: Sequence[float], stamp: Time | None = None) -> JointState:
    """Build a joint message from positions [rad]."""
    message = JointState(name=list(names), position=[float(value) for value in positions])
    if stamp is not None:
        message.header.stamp = stamp
    return message


def array_to_image(array: np.ndarray, encoding: str, stamp: Time, frame_id: str) -> Image:
    """Build an image message from a (height, width, channels) or (height, width) uint8 array."""
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise ValueError(
            f'expected an image of uint8 with 2 or 3 dimensions, got {array.dtype} {array.shape}.'
        )
    height, width = array.shape[:2]
    message = Image(height=height, width=width, encoding=encoding, step=array.nbytes // height)
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.data.frombytes(np.ascontiguousarray(array).data)  # an array.array: ten times quicker than bytes
    return message


def pose_message(position: Iterable[float], quaternion_xyzw: Iterable[float]) -> Pose:
    """Build a pose from a position [m] and a unit quaternion (x, y, z, w)."""
    x, y, z = map(float, position)
    qx, qy, qz, qw = map(float, quaternion_xyzw)
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def ee_delta(
    translation: Iterable[float],
    opening: float,
    source: int,
    *,
    episode: int,
    index: int,
    stamp: Time,
    frame_id: str,
) -> EeDelta:
    """Build an action message.

    Args:
        translation: displacement of the TCP during the step in `frame_id` (x, y, z) [m].
        opening: target opening of the gripper, 0 closed .. 1 open.
        source: who decided it, one of `EeDelta.SOURCE_*`.
        episode: episode that it belongs to.
        index: step that it answers.
        stamp: when it was decided.
        frame_id: frame of the displacement.
    """
    message = EeDelta(episode=episode, index=index, gripper=float(opening), source=int(source))
    message.header.stamp, message.header.frame_id = stamp, frame_id
    vector = message.translation
    vector.x, vector.y, vector.z = map(float, translation)
    return message
