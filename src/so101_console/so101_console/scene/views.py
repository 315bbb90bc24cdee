# SPDX-License-Identifier: Apache-2.0
"""Where each camera stands and what it sees: from its `camera_info` and the static transforms of /tf_static. No ROS.

A camera is fixed to the gripper, and moves with it, or to whatever the arm's base is fixed to. One of which nobody says
either has no view, and a sentence says what is missing.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from so101_contract.joints import BASE_FRAME
from so101_description.errors import PresetError
from so101_description.pose import Pose
from so101_driver.camera.config import Lens, LensError

FloatArray = npt.NDArray[np.float64]

GRIPPER_LINK = 'gripper_link'
"""The gripper's frame in the URDF."""

MOST_FRAMES, LONGEST_NAME, DEEPEST = 500, 200, 30
"""Static transforms that are kept, characters of a frame's name, and links of a chain that are followed."""

FARTHEST_M = 1000.0
"""A static transform that leads farther than this is none of an arm's [m]."""

NEAR_M = 0.01
"""What is nearer to the camera than this, or behind it, is not seen [m]."""

WIDEST = 3.0
"""Beyond this tangent off its axis the numbers of a lens with distortion mean nothing."""

FAR_OUT = 10.0
"""Points farther out than so many pictures are cut there: a line that leaves the picture needs no more."""

DRAWN_M = 0.06
"""How far the pyramid that shows what a camera sees reaches from it [m]."""

NOWHERE = Pose((0.0, 0.0, 0.0))


class StaticFrames:
    """Which frame is fixed to which."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, Pose]] = {}

    def hear(self, message: Any) -> None:
        """Take a TFMessage; a transform that is none is left out."""
        for transform in message.transforms[:MOST_FRAMES]:
            child, parent = transform.child_frame_id.strip('/'), transform.header.frame_id.strip('/')
            full = child not in self._parents and len(self._parents) >= MOST_FRAMES
            if full or max(len(child), len(parent)) > LONGEST_NAME:
                continue
            place, turn = transform.transform.translation, transform.transform.rotation
            if not math.hypot(place.x, place.y, place.z) <= FARTHEST_M:
                continue
            with suppress(PresetError):
                pose = Pose((place.x, place.y, place.z), (turn.w, turn.x, turn.y, turn.z))
                self._parents[child] = parent, pose

    def pose(self, frame: str, of: str) -> Pose | None:
        """Return the pose of a frame in another one; None where no static transforms lead from one to the other."""
        up, other = self._chain(frame), self._chain(of)
        shared = next((name for name in up if name in other), None)
        return None if shared is None else other[shared].inverse() @ up[shared]

    def _chain(self, frame: str) -> dict[str, Pose]:
        """Return the frames that one is fixed to, the nearest first, and its pose in each."""
        frame = frame.strip('/')
        pose, found = NOWHERE, {frame: NOWHERE}
        while (known := self._parents.get(frame)) is not None and len(found) < DEEPEST:
            frame, step = known
            if frame in found:
                break
            pose = step @ pose
            found[frame] = pose
        return found


@dataclass(frozen=True)
class Optics:
    """What a `camera_info` says.

    Attributes:
        frame: optical frame of the pictures.
        lens: None where its numbers are of no use.
        why: the reason for that, a clause.
    """

    frame: str
    lens: Lens | None
    why: str = ''


def read_optics(info: Any) -> Optics:
    """Read a CameraInfo message."""
    frame = str(info.header.frame_id)[:LONGEST_NAME]
    try:
        numbers = {name: tuple(float(value) for value in getattr(info, name)) for name in 'dkrp'}
        lens = Lens(int(info.width), int(info.height), str(info.distortion_model), **numbers)
    except LensError as error:
        return Optics(frame, None, f'its camera_info cannot be used: {error}')
    known = all(map(math.isfinite, (*lens.d, *lens.k)))
    if not known or lens.k[0] <= 0.0 or lens.k[4] <= 0.0:
        return Optics(frame, None, 'it is not calibrated: its camera_info has no focal length')
    return Optics(frame, lens)


@dataclass(frozen=True)
class View:
    """A camera that sees something.

    Attributes:
        lens: its calibration.
        pose: of its optical frame (z forward, y down) in the base.
    """

    lens: Lens
    pose: Pose

    def line(self, *points: Sequence[float]) -> list[list[float]]:
        """Return where points (x, y, z) of the base [m] are seen, as shares of the picture's width and height.

        Of one point or of the two ends of a line. What lies behind the camera is cut off; the result is empty where
        nothing is left.
        """
        seen = (np.array(points, dtype=np.float64) - self.pose.position) @ self.pose.rotation()
        depths = seen[:, 2]
        if not np.isfinite(seen).all() or (depths < NEAR_M).all():
            return []
        hidden = int(np.argmin(depths))
        if depths[hidden] < NEAR_M:
            other = seen[1 - hidden]
            seen[hidden] += (other - seen[hidden]) * (NEAR_M - depths[hidden]) / (other[2] - depths[hidden])
        tangents = seen[:, :2] / seen[:, 2:]
        if any(self.lens.d) and np.abs(tangents).max() > WIDEST:
            return []
        pixels = self._pixels(tangents)
        # Pixel centres have integer coordinates.
        shares = (pixels + 0.5) / (self.lens.width, self.lens.height)
        return [[round(float(share), 4) for share in row] for row in np.clip(shares, -FAR_OUT, FAR_OUT)]

    def pyramid(self) -> list[list[float]]:
        """Return eye and corners of what it sees, a little way before it, in the base [m]; distortion left out."""
        k, turn, eye = self.lens.k, self.pose.rotation(), np.array(self.pose.position)
        left, right = (-0.5 - k[2]) / k[0], (self.lens.width - 0.5 - k[2]) / k[0]
        top, bottom = (-0.5 - k[5]) / k[4], (self.lens.height - 0.5 - k[5]) / k[4]
        corners = (left, top), (right, top), (right, bottom), (left, bottom)
        ends = [eye + DRAWN_M * turn @ np.array([x, y, 1.0]) for x, y in corners]
        return [[round(float(metre), 4) for metre in point] for point in (eye, *ends)]

    def _pixels(self, tangents: FloatArray) -> FloatArray:
        rays = np.column_stack([tangents, np.ones(len(tangents))]).reshape(-1, 1, 3)
        matrix, bent, still = np.array(self.lens.k).reshape(3, 3), np.array(self.lens.d), np.zeros(3)
        fisheye = self.lens.model == 'equidistant'
        project = cv2.fisheye.projectPoints if fisheye else cv2.projectPoints
        found, _ = project(rays, still, still, matrix, bent)
        return np.asarray(found, dtype=np.float64).reshape(-1, 2)


def view_of(optics: Optics | None, frames: StaticFrames, base: str, gripper: Pose | None) -> View | str:
    """Return what a camera sees, or why nobody knows, a clause.

    Args:
        optics: what its camera_info says; None before the first.
        frames: static transforms.
        base: the frame of the arm's base, with the prefix of its arm.
        gripper: where the gripper is in it; None where that is not known.
    """
    if optics is None:
        return 'its camera_info has not come'
    if optics.lens is None:
        return optics.why
    mounted = frames.pose(optics.frame, base.removesuffix(BASE_FRAME) + GRIPPER_LINK)
    if mounted is not None:
        return (
            'where the gripper is has not come' if gripper is None else View(optics.lens, gripper @ mounted)
        )
    stands = frames.pose(optics.frame, base)
    if stands is None:
        return f'no static transform says where {optics.frame or "its frame"} is in {base}'
    return View(optics.lens, stands)
