# SPDX-License-Identifier: Apache-2.0
"""Transforms between the links of a URDF, for /tf where no robot_state_publisher is installed."""

from collections.abc import Mapping
from dataclasses import dataclass
import math
from xml.etree import ElementTree

from so101_contract.orientation import multiply
from so101_description.pose import Pose


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
