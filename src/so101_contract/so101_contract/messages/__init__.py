# SPDX-License-Identifier: Apache-2.0
"""The messages that learning is made of, as plain records: the one place where either becomes the other.

    record = step_record(message)      # any object with the fields of the message: from rclpy, or from a bag
    message = step_message(record)     # a message of rclpy; only this half needs ROS

The records hold no ROS types, so policy, learner and bag reader see the same. Stamps are header stamps in nanoseconds;
they identify messages, and a step names its joint and image messages by them.
"""

from so101_contract.messages.joint_order import MissingJointError, order_by_name
from so101_contract.messages.records import (
    AnyRecord,
    EpisodeEventRecord,
    ExecutedAction,
    ImageSample,
    JointSample,
    LARGEST_RAD_PER_S,
    LARGEST_REWARD,
    StepRecord,
)
from so101_contract.messages.samples import (
    image_message,
    image_pixels,
    image_sample,
    joint_message,
    joint_sample,
)
from so101_contract.messages.steps import (
    action_message,
    action_record,
    event_message,
    event_record,
    step_message,
    step_record,
)

__all__ = [
    'LARGEST_RAD_PER_S',
    'LARGEST_REWARD',
    'AnyRecord',
    'EpisodeEventRecord',
    'ExecutedAction',
    'ImageSample',
    'JointSample',
    'MissingJointError',
    'StepRecord',
    'action_message',
    'action_record',
    'event_message',
    'event_record',
    'image_message',
    'image_pixels',
    'image_sample',
    'joint_message',
    'joint_sample',
    'order_by_name',
    'step_message',
    'step_record',
]
