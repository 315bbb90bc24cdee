# SPDX-License-Identifier: Apache-2.0
"""One camera image with the times at which it came."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Frame:
    """A decoded image.

    Attributes:
        bgr: pixels (height, width, 3), read-only, in OpenCV's channel order.
        stamp_s: time on the monotonic clock at which the frame came, before it was decoded [s].
        wall_s: the same moment on the system clock [s since 1970].
        index: number of the frame since the camera was started.
        jpeg: the bytes as they came, where the source sends JPEG and hands it out.
    """

    bgr: Image
    stamp_s: float
    wall_s: float
    index: int
    jpeg: bytes | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height [px]."""
        return self.bgr.shape[1], self.bgr.shape[0]

    def rgb(self) -> Image:
        """Return the pixels (height, width, 3) in RGB order, as a new contiguous array."""
        return np.asarray(cv2.cvtColor(self.bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def age_s(self, now: float) -> float:
        """Return the age of the frame at a time on the monotonic clock [s]."""
        return now - self.stamp_s
