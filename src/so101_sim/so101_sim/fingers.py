# SPDX-License-Identifier: Apache-2.0
"""What the gripper touches things with: contact shapes of the jaws.

The official model closes the gripper's mouth: the convex hull of each jaw fills it, so that a cube is pushed away
instead of gripped. So the hulls of the two jaws are replaced. The other links keep theirs.

| contacts | the jaws are | 3 cm cube held |
|---|---|---|
| fingers | boxes along the real inner faces, palm and jaw root included | as with the real, flat jaws |
| pads | two thin plates at the finger tips, nothing else | yes, but things pass through the rest of the gripper |
| official | hulls and 2.5 mm pads, as the vendor's model has them | hardly: it touches at two points |
"""

from typing import get_args, Literal

import mujoco
import numpy as np

from so101_description.model import COLLISION_GROUP, FINGER_PADS
from so101_sim.errors import PresetError

Contacts = Literal['fingers', 'pads', 'official']

STATIC_JAW_BODY = 'gripper'
MOVING_JAW_BODY = 'moving_jaw_so101_v1'
STATIC_FINGER, MOVING_FINGER = FINGER_PADS
JAW_MESHES = ('wrist_roll_follower_so101_v1', 'moving_jaw_so101_v1')

# Rubber on plastic; torsional friction keeps a cube from spinning between two edges.
FINGER_FRICTION = (1.0, 0.02, 0.001)

# Inner faces as measured on the meshes, ends of their middle lines [m]. Static jaw, in the gripper body (x, z); moving
# jaw, in its own body (x, y), whose fingers lie in the plane z = 0.0189.
_STATIC_TIP, _STATIC_ROOT = (-0.0079, -0.104), (-0.0147, -0.040)
_MOVING_TIP, _MOVING_ROOT = (-0.0123, -0.082), (-0.0083, -0.050)
_JAW_PLANE_Z = 0.0189
_HALF_THICKNESS, _HALF_WIDTH = 0.0025, 0.006
# Position and half sizes of what is behind the fingers.
_PALM = ((-0.010, 0.0, -0.0205), (0.025, 0.024, 0.0175))
_JAW_ROOT = ((-0.0004, -0.0325, _JAW_PLANE_Z), (0.0079, 0.0175, 0.0105))
_PAD_HALF_SIZE = (0.002, 0.008, 0.012)


def set_contacts(spec: mujoco.MjSpec, contacts: Contacts) -> None:
    """Replace the contact shapes of the jaws in a robot that still has the official ones.

    Args:
        spec: the robot, built with `collision=True`.
        contacts: which shapes.

    Raises:
        PresetError: there are no such contacts.
    """
    if contacts not in get_args(Contacts):
        raise PresetError(f'expected contacts as one of {get_args(Contacts)}, got {contacts!r}; choose one')
    if contacts == 'official':
        return
    for geom in [geom for geom in spec.geoms if geom.group == COLLISION_GROUP]:
        if geom.name not in FINGER_PADS and (contacts == 'pads' or geom.meshname in JAW_MESHES):
            spec.delete(geom)
    if contacts == 'pads':
        for name in FINGER_PADS:
            spec.geom(name).size = _PAD_HALF_SIZE
        return
    _set_static_finger(spec.geom(STATIC_FINGER))
    _set_moving_finger(spec.geom(MOVING_FINGER))
    _add_box(spec.body(STATIC_JAW_BODY), 'palm', *_PALM)
    _add_box(spec.body(MOVING_JAW_BODY), 'jaw_root', *_JAW_ROOT)


def _set_static_finger(geom: mujoco.MjsGeom) -> None:
    """A box whose +x face is the inner face of the static jaw, its z axis along the finger."""
    tip, root = np.array(_STATIC_TIP), np.array(_STATIC_ROOT)
    along = (root - tip) / np.linalg.norm(root - tip)
    centre = (tip + root) / 2 - _HALF_THICKNESS * np.array([along[1], -along[0]])
    angle = float(np.arctan2(along[0], along[1]))
    geom.pos = (centre[0], 0.0, centre[1])
    geom.quat = (np.cos(angle / 2), 0.0, np.sin(angle / 2), 0.0)
    geom.size = (_HALF_THICKNESS, _HALF_WIDTH, float(np.linalg.norm(root - tip)) / 2)
    geom.friction, geom.condim = FINGER_FRICTION, 4


def _set_moving_finger(geom: mujoco.MjsGeom) -> None:
    """A box whose -x face is the inner face of the moving jaw, its y axis along the finger."""
    tip, root = np.array(_MOVING_TIP), np.array(_MOVING_ROOT)
    along = (root - tip) / np.linalg.norm(root - tip)
    centre = (tip + root) / 2 + _HALF_THICKNESS * np.array([along[1], -along[0]])
    angle = float(-np.arctan2(along[0], along[1]))
    geom.pos = (centre[0], centre[1], _JAW_PLANE_Z)
    geom.quat = (np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2))
    geom.size = (_HALF_THICKNESS, float(np.linalg.norm(root - tip)) / 2, _HALF_WIDTH)
    geom.friction, geom.condim = FINGER_FRICTION, 4


def _add_box(
    body: mujoco.MjsBody, name: str, position: tuple[float, ...], half_size: tuple[float, ...]
) -> None:
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=position,
        size=half_size,
        group=COLLISION_GROUP,
        friction=FINGER_FRICTION,
        mass=0.0,
    )
