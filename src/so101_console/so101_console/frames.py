# SPDX-License-Identifier: Apache-2.0
"""The newest picture of a camera, turned into JPEG only when a page asks for it."""

from collections import deque
from collections.abc import Callable
import threading
import time

import cv2

from so101_bags.messages import Decoders
from so101_contract.messages import image_pixels
from so101_interfaces_py.conversions import stamp_to_ns
from so101_interfaces_py.node import reason_of, UNUSABLE

RATE_WINDOW = 20


class Frames:
    """Keeps messages as they came over the wire: most of them are never looked at."""

    def __init__(self, jpeg_quality: int) -> None:
        self._quality = jpeg_quality
        self._decode = Decoders().image()
        self._lock = threading.Lock()
        self._newest: bytes | None = None
        self._number = 0
        self._times: deque[float] = deque(maxlen=RATE_WINDOW)
        self._jpeg: tuple[int, bytes] | None = None
        self.keep: Callable[[int, bytes], None] = lambda *_: None
        """Told of the stamp [ns] and JPEG of each picture that pages are shown."""
        self.refused = ''
        """Why the last picture could not be shown; empty where it could."""

    def add(self, message: bytes) -> None:
        """Take a serialized image message."""
        with self._lock:
            self._newest = message
            self._number += 1
            self._times.append(time.monotonic())

    def age(self, now: float) -> float | None:
        """Return how long ago the newest came [s]; None before the first."""
        return now - self._times[-1] if self._times else None

    def rate(self, now: float) -> float:
        """Return pictures per second lately [Hz]; 0 where they have stopped."""
        times = list(self._times)
        if len(times) < 2 or now - times[-1] > 1.0:
            return 0.0
        return (len(times) - 1) / max(times[-1] - times[0], 1e-6)

    def jpeg(self, newer_than: int) -> tuple[int, bytes] | None:
        """Return number and JPEG of the newest picture, if its number is above `newer_than`."""
        with self._lock:
            number, newest = self._number, self._newest
            if newest is None or number <= newer_than:
                return None
            if self._jpeg is None or self._jpeg[0] != number:
                encoded = self._encode(newest)
                if encoded is None:
                    return None
                self._jpeg = number, encoded
            return self._jpeg

    def _encode(self, message: bytes) -> bytes | None:
        try:
            image = self._decode(message)
            rgb = image_pixels(image)
            parameters = [cv2.IMWRITE_JPEG_QUALITY, self._quality]
            done, encoded = cv2.imencode('.jpg', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), parameters)
        except (*UNUSABLE, cv2.error) as error:  # OpenCV has limits of its own
            self.refused = reason_of(error)
            return None
        self.refused = (
            '' if done else f'expected a picture that JPEG can hold, got {rgb.shape[1]} x {rgb.shape[0]}'
        )
        if not done:
            return None
        jpeg: bytes = encoded.tobytes()
        self.keep(stamp_to_ns(image.header.stamp), jpeg)
        return jpeg
