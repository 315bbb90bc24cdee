# SPDX-License-Identifier: Apache-2.0
"""Joint readings and pictures: their messages, and the records that observations are made of."""

from collections.abc import Collection
from typing import Any, TYPE_CHECKING

from so101_contract.image import message_to_rgb
from so101_contract.joints import JOINT_NAMES, VelocityEstimator
from so101_contract.messages.joint_order import order_by_name
from so101_contract.messages.records import ImageSample, JointSample, UInt8Array
from so101_contract.observation_spec import CameraSpec
from so101_interfaces_py.conversions import array_to_image, joint_state, ns_to_stamp, stamp_to_ns

if TYPE_CHECKING:
    from sensor_msgs.msg import Image, JointState


def joint_sample(message: Any, estimator: VelocityEstimator) -> JointSample:
    """Return what a `JointState` says; where it carries no velocities, those of the estimator.

    Raises:
        ContractError: a joint is missing, named twice, or not finite.
    """
    stamp_ns = stamp_to_ns(message.header.stamp)
    position = order_by_name(message.name, message.position)
    given = len(message.velocity) > 0
    velocity = (
        order_by_name(message.name, message.velocity) if given else estimator.update(stamp_ns, position)
    )
    return JointSample(stamp_ns, position, velocity)


def joint_message(sample: JointSample, frame_id: str = '', *, without: Collection[str] = ()) -> 'JointState':
    """Return the `JointState` that says this, with positions and velocities as they are: nothing is clamped.

    Args:
        sample: of all joints.
        frame_id: of its header.
        without: joints that nothing is known of. Such a message shows the others to people and programs, but is no
            observation: `joint_sample` refuses it.
    """
    kept = [k for k, name in enumerate(JOINT_NAMES) if name not in without]
    names = [JOINT_NAMES[k] for k in kept]
    message = joint_state(names, sample.position[kept].tolist(), ns_to_stamp(sample.stamp_ns))
    message.header.frame_id = frame_id
    message.velocity = sample.velocity[kept].tolist()
    return message


# --- Image ---


def image_sample(message: Any, camera: CameraSpec) -> ImageSample:
    """Return an `Image` as networks see it.

    Raises:
        ContractError: its encoding or its size make no sense.
    """
    return ImageSample.from_raw(camera, stamp_to_ns(message.header.stamp), image_pixels(message))


def image_pixels(message: Any) -> UInt8Array:
    """Return the pixels of an `Image` (height, width, 3) uint8 RGB, whatever its encoding.

    Raises:
        ContractError: its encoding or its size make no sense.
    """
    return message_to_rgb(message.height, message.width, message.encoding, message.step, message.data)


def image_message(pixels: UInt8Array, stamp_ns: int, frame_id: str) -> 'Image':
    """Return the `Image` of RGB pixels (height, width, 3) uint8."""
    return array_to_image(pixels, 'rgb8', ns_to_stamp(stamp_ns), frame_id)
