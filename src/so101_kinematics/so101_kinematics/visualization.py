# SPDX-License-Identifier: Apache-2.0
"""What RViz draws: /tf and robot_description where no robot_state_publisher is, and markers around the arm.

The markers are the setpoint, the workspace, the last action, and why the arm holds. The frames follow from the URDF
(names and axes as REP-103 has them).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math
from xml.etree import ElementTree

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, TransformStamped, Vector3
import numpy as np
from rclpy.node import Node
from std_msgs.msg import ColorRGBA, String
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from so101_contract.orientation import multiply
from so101_description.pose import Pose
from so101_description.urdf import urdf_text
from so101_interfaces_py import qos, topics
from so101_kinematics.config import Workspace


@dataclass(frozen=True)
class LinkTransform:
    """Pose of a child link in its parent link: position [m], quaternion (w, x, y, z)."""

    parent: str
    child: str
    position: tuple[float, ...]
    quat: tuple[float, ...]


@dataclass(frozen=True)
class _Joint:
    name: str
    parent: str
    child: str
    origin: Pose
    axis: tuple[float, ...] | None


class LinkFrames:
    """The joints of a URDF.

    Args:
        urdf: Text of the document.
    """

    def __init__(self, urdf: str) -> None:
        joints = [_read(element) for element in ElementTree.fromstring(urdf).iter('joint')]
        self._moving = [joint for joint in joints if joint.axis is not None]
        self._fixed = [joint for joint in joints if joint.axis is None]

    def fixed(self) -> list[LinkTransform]:
        """Return the transforms that never change."""
        return [_transform(joint, joint.origin.quat_wxyz) for joint in self._fixed]

    def moving(self, positions: Mapping[str, float]) -> list[LinkTransform]:
        """Return the transforms that depend on the joints.

        Args:
            positions: Joint name -> position [rad]; a joint that is missing is left out of the result.
        """
        return [_turned(joint, positions[joint.name]) for joint in self._moving if joint.name in positions]


def _read(element: ElementTree.Element) -> _Joint:
    origin = element.find('origin')
    xyz, rpy = (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    if origin is not None:
        xyz, rpy = _numbers(origin.get('xyz', '0 0 0')), _numbers(origin.get('rpy', '0 0 0'))
    axis = element.find('axis')
    moves = element.get('type') != 'fixed'
    return _Joint(
        name=element.get('name', ''),
        parent=_link(element, 'parent'),
        child=_link(element, 'child'),
        origin=Pose.from_rpy(xyz, rpy),
        axis=_numbers(axis.get('xyz', '1 0 0')) if moves and axis is not None else None,
    )


def _turned(joint: _Joint, angle: float) -> LinkTransform:
    assert joint.axis is not None
    half = math.sin(angle / 2.0)
    turn = (math.cos(angle / 2.0), *(half * component for component in joint.axis))
    return _transform(joint, tuple(multiply(joint.origin.quat_wxyz, turn).tolist()))


def _transform(joint: _Joint, quat: tuple[float, ...]) -> LinkTransform:
    return LinkTransform(joint.parent, joint.child, joint.origin.position, quat)


def _link(element: ElementTree.Element, role: str) -> str:
    found = element.find(role)
    return '' if found is None else found.get('link', '')


def _numbers(text: str) -> tuple[float, float, float]:
    x, y, z = map(float, text.split())
    return x, y, z


SETPOINT_DIAMETER_M = 0.012
ARROW_DIAMETERS_M = (0.004, 0.010)
# An action is some millimetres: drawn ten times as long, it can be seen.
ARROW_GAIN = 10.0
TEXT_HEIGHT_M = 0.02
TEXT_ABOVE_M = 0.06


def make_markers(
    stamp: Time,
    frame_id: str,
    *,
    workspace: Workspace,
    setpoint: np.ndarray | None,
    translation: np.ndarray | None,
    text: str,
) -> MarkerArray:
    """Build the markers of one moment.

    Args:
        stamp: Stamp of all markers.
        frame_id: Base frame; everything below is in it.
        workspace: The box that the setpoint cannot leave.
        setpoint: (3,) where the controller wants the TCP [m], or None before the first one.
        translation: (3,) last action [m], drawn from the setpoint; None to draw none.
        text: Drawn above the setpoint; may be empty.
    """
    low, high = np.asarray(workspace.lower), np.asarray(workspace.upper)
    box = _marker(stamp, frame_id, 0, Marker.CUBE, (0.3, 0.6, 1.0, 0.12))
    box.pose.position = _point((low + high) / 2.0)
    box.scale = _vector(high - low)
    markers = [box]
    if setpoint is not None:
        ball = _marker(stamp, frame_id, 1, Marker.SPHERE, (1.0, 0.5, 0.0, 0.9))
        ball.pose.position = _point(setpoint)
        ball.scale = _vector(np.full(3, SETPOINT_DIAMETER_M))
        label = _marker(stamp, frame_id, 3, Marker.TEXT_VIEW_FACING, (1.0, 1.0, 1.0, 1.0))
        label.pose.position = _point(setpoint + np.array([0.0, 0.0, TEXT_ABOVE_M]))
        label.scale.z = TEXT_HEIGHT_M
        label.text = text or ' '
        markers += [ball, label]
    arrow = _marker(stamp, frame_id, 2, Marker.ARROW, (0.1, 0.9, 0.2, 0.9))
    if setpoint is not None and translation is not None and np.linalg.norm(translation) > 0.0:
        arrow.points = [_point(setpoint), _point(setpoint + ARROW_GAIN * translation)]
        arrow.scale = Vector3(x=ARROW_DIAMETERS_M[0], y=ARROW_DIAMETERS_M[1], z=0.0)
    else:
        arrow.action = Marker.DELETE
    return MarkerArray(markers=[*markers, arrow])


def _marker(stamp: Time, frame_id: str, number: int, kind: int, rgba: Sequence[float]) -> Marker:
    marker = Marker(ns='so101', id=number, type=kind, action=Marker.ADD)
    marker.header.stamp = stamp
    marker.header.frame_id = frame_id
    red, green, blue, alpha = rgba
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=alpha)
    marker.pose.orientation.w = 1.0
    return marker


def _point(values: np.ndarray) -> Point:
    x, y, z = (float(value) for value in values)
    return Point(x=x, y=y, z=z)


def _vector(values: np.ndarray) -> Vector3:
    x, y, z = (float(value) for value in values)
    return Vector3(x=x, y=y, z=z)


class TfPublisher:
    """The frames of one arm.

    Args:
        node: Publishes.
        tcp: TCP preset.
        camera: Camera preset.
        prefix: Put before every link name, in robot_description too.
    """

    def __init__(self, node: Node, tcp: str, camera: str, prefix: str = '') -> None:
        urdf = urdf_text(tcp=tcp, camera=camera, prefix=prefix)
        self._frames = LinkFrames(urdf)
        self._tf = node.create_publisher(TFMessage, topics.TF, qos.TF)
        self._static = node.create_publisher(TFMessage, topics.TF_STATIC, qos.LATCHED)
        self._description = node.create_publisher(String, topics.ROBOT_DESCRIPTION, qos.LATCHED)
        self._description.publish(String(data=urdf))
        stamp = node.get_clock().now().to_msg()
        self._static.publish(
            TFMessage(transforms=[transform_message(stamp, t) for t in self._frames.fixed()])
        )

    def publish(self, stamp: Time, positions: Mapping[str, float]) -> None:
        """Publish the frames that the joints move.

        Args:
            stamp: When the joints were read.
            positions: Joint name -> position [rad].
        """
        moving = [transform_message(stamp, transform) for transform in self._frames.moving(positions)]
        self._tf.publish(TFMessage(transforms=moving))


class PlacePublisher:
    """Where the base of an arm stands among others: one static transform, which RViz needs to show them together.

    Args:
        node: Publishes.
        world: The frame that all arms stand in.
        base: The base frame of this one.
        place: x [m], y [m] and turn about the vertical [deg] of the base in that frame.
    """

    def __init__(self, node: Node, world: str, base: str, place: Sequence[float]) -> None:
        x, y, half = place[0], place[1], math.radians(place[2]) / 2.0
        stands = LinkTransform(world, base, (x, y, 0.0), (math.cos(half), 0.0, 0.0, math.sin(half)))
        self._static = node.create_publisher(TFMessage, topics.TF_STATIC, qos.LATCHED)
        self._static.publish(
            TFMessage(transforms=[transform_message(node.get_clock().now().to_msg(), stands)])
        )


def transform_message(stamp: Time, transform: LinkTransform) -> TransformStamped:
    """Return the message of a transform."""
    message = TransformStamped(child_frame_id=transform.child)
    message.header.stamp = stamp
    message.header.frame_id = transform.parent
    place, turn = message.transform.translation, message.transform.rotation
    place.x, place.y, place.z = transform.position
    turn.w, turn.x, turn.y, turn.z = transform.quat
    return message
