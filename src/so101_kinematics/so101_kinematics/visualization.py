# SPDX-License-Identifier: Apache-2.0
"""What RViz draws around the arm: the setpoint, the workspace, the last action, and why the arm holds."""

from collections.abc import Sequence

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Vector3
import numpy as np
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from so101_kinematics.workspace import Workspace

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
