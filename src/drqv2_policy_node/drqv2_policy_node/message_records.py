# SPDX-License-Identifier: Apache-2.0
"""Messages of the graph as the plain records that the assembler takes. A bad message raises a ContractError."""

from sensor_msgs.msg import Image, JointState
from so101_interfaces.msg import Step

from so101_contract.image import message_to_rgb
from so101_contract.joints import order_by_name
from so101_contract.messages import ImageSample, JointSample, StepRecord
from so101_contract.observation_spec import CameraSpec
from so101_contract.velocity import VelocityEstimator
from so101_interfaces_py.conversions import stamp_to_ns


def step_record(message: Step) -> StepRecord:
    """Return what a step says."""
    return StepRecord(
        episode=int(message.episode),
        index=int(message.index),
        stamp_ns=stamp_to_ns(message.header.stamp),
        joint_stamp_ns=stamp_to_ns(message.joint_stamp),
        image_stamps_ns=tuple(stamp_to_ns(stamp) for stamp in message.image_stamps),
        reward=float(message.reward),
        terminated=bool(message.terminated),
        truncated=bool(message.truncated),
    )


def joint_sample(message: JointState, estimator: VelocityEstimator) -> JointSample:
    """Return positions and velocities; where the message carries no velocities, those of the estimator."""
    stamp_ns = stamp_to_ns(message.header.stamp)
    if len(message.velocity):
        return JointSample.from_message(stamp_ns, message.name, message.position, message.velocity)
    position = order_by_name(message.name, message.position)
    return JointSample(stamp_ns, position, estimator.update(stamp_ns, position))


def image_sample(message: Image, camera: CameraSpec) -> ImageSample:
    """Return the image as networks see it."""
    rgb = message_to_rgb(message.height, message.width, message.encoding, message.step, message.data)
    return ImageSample.from_raw(camera, stamp_to_ns(message.header.stamp), rgb)
