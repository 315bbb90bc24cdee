# SPDX-License-Identifier: Apache-2.0
"""Messages of ROS's own packages to arrays and back. A bad message raises, with a sentence.

Only what makes a message needs ROS: whoever reads a bag imports this without it. The messages of so101_interfaces
become records in `so101_contract.messages`.
"""

from collections.abc import Iterable, Sequence
import math
from typing import Any, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time
    from geometry_msgs.msg import Pose
    from sensor_msgs.msg import Image, JointState

NANOSECONDS = 1_000_000_000

LARGEST_RAD = 2.0 * math.pi
"""No joint of an arm is measured farther round [rad]."""


def stamp_to_ns(stamp: Any) -> int:
    """Return a stamp, of a live message or of one from a bag, as nanoseconds."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def ns_to_stamp(nanoseconds: int) -> 'Time':
    """Return nanoseconds as a stamp."""
    from builtin_interfaces.msg import Time

    return Time(sec=nanoseconds // NANOSECONDS, nanosec=nanoseconds % NANOSECONDS)


def joint_positions(message: Any, names: Sequence[str]) -> np.ndarray:
    """Return positions [rad] in the order of `names`, whatever the order of the message.

    Raises:
        KeyError: a joint is missing.
        ValueError: names and positions differ in number, a name comes twice, or a position is none of a joint.
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
    wanted = [values[name] for name in names]
    if not all(-LARGEST_RAD <= value <= LARGEST_RAD for value in wanted):
        raise ValueError(f'expected joint positions within {LARGEST_RAD:.2f} rad, got {wanted}.')
    return np.array(wanted, dtype=np.float64)


def joint_state(
    names: Sequence[str], positions: Sequence[float], stamp: 'Time | None' = None
) -> 'JointState':
    """Build a joint message from positions [rad]."""
    from sensor_msgs.msg import JointState

    message = JointState(name=list(names), position=[float(value) for value in positions])
    if stamp is not None:
        message.header.stamp = stamp
    return message


def array_to_image(array: np.ndarray, encoding: str, stamp: 'Time', frame_id: str) -> 'Image':
    """Build an image message from a (height, width, channels) or (height, width) uint8 array."""
    from sensor_msgs.msg import Image

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


def pose_message(position: Iterable[float], quaternion_xyzw: Iterable[float]) -> 'Pose':
    """Build a pose from a position [m] and a unit quaternion (x, y, z, w)."""
    from geometry_msgs.msg import Point, Pose, Quaternion

    x, y, z = map(float, position)
    qx, qy, qz, qw = map(float, quaternion_xyzw)
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
