# SPDX-License-Identifier: Apache-2.0
"""Publishes robot_description and the link frames, where no robot_state_publisher does."""

from collections.abc import Mapping

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from so101_description.urdf import urdf_text
from so101_interfaces_py import qos, topics
from so101_kinematics.link_frames import LinkFrames, LinkTransform


class TfPublisher:
    """The frames of one arm.

    Args:
        node: Publishes.
        tcp: TCP preset.
        camera: Camera preset.
        prefix: Put before every link name.
    """

    def __init__(self, node: Node, tcp: str, camera: str, prefix: str = '') -> None:
        urdf = urdf_text(tcp=tcp, camera=camera)
        self._frames = LinkFrames(urdf)
        self._prefix = prefix
        self._tf = node.create_publisher(TFMessage, topics.TF, qos.TF)
        self._static = node.create_publisher(TFMessage, topics.TF_STATIC, qos.LATCHED)
        self._description = node.create_publisher(String, topics.ROBOT_DESCRIPTION, qos.LATCHED)
        self._description.publish(String(data=urdf))
        stamp = node.get_clock().now().to_msg()
        self._static.publish(TFMessage(transforms=[self._message(stamp, t) for t in self._frames.fixed()]))

    def publish(self, stamp: Time, positions: Mapping[str, float]) -> None:
        """Publish the frames that the joints move.

        Args:
            stamp: When the joints were read.
            positions: Joint name -> position [rad].
        """
        moving = [self._message(stamp, transform) for transform in self._frames.moving(positions)]
        self._tf.publish(TFMessage(transforms=moving))

    def _message(self, stamp: Time, transform: LinkTransform) -> TransformStamped:
        message = TransformStamped(child_frame_id=self._prefix + transform.child)
        message.header.stamp = stamp
        message.header.frame_id = self._prefix + transform.parent
        place, turn = message.transform.translation, message.transform.rotation
        place.x, place.y, place.z = transform.position
        turn.w, turn.x, turn.y, turn.z = transform.quat
        return message
