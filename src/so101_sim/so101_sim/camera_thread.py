# SPDX-License-Identifier: Apache-2.0
"""The twin's wrist camera: a thread that draws frames at a fixed rate and hands them on."""

from collections.abc import Callable
import logging
import threading
import time

from so101_sim.errors import RenderError
from so101_sim.render import Renderer, UInt8Array
from so101_sim.twin.twin import SceneCopy, Twin

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 30.0
JOIN_TIMEOUT_S = 5.0
RATE_WINDOW = 20

OnFrame = Callable[[UInt8Array, float], None]


class CameraThread:
    """Draws until it is closed. While it is frozen, it repeats nothing: a frozen camera sends no frames."""

    def __init__(self, twin: Twin, width: int, height: int, rate_hz: float, on_frame: OnFrame) -> None:
        """Prepare; drawing begins with `start`.

        Args:
            twin: whose scene is drawn.
            width: [px].
            height: [px].
            rate_hz: frames per second [Hz].
            on_frame: gets each picture (height, width, 3) RGB and the time of the state that it shows, on the monotonic
                clock [s]; called in the thread.
        """
        self.frozen = False
        """True stops the stream, as a camera that hangs does."""
        self.error = ''
        """Why there are no pictures; empty while there are."""
        self._scene = SceneCopy(twin)
        self._size = width, height
        self._period_s = 1.0 / rate_hz
        self._on_frame = on_frame
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._times: list[float] = []
        self._thread = threading.Thread(target=self._run, name='twin-camera', daemon=True)

    @property
    def rate_hz(self) -> float:
        """Frames per second lately [Hz]; 0 before the second frame, and while frozen."""
        times = self._times[:]
        if len(times) < 2 or time.monotonic() - times[-1] > 5.0 * self._period_s:
            return 0.0
        return (len(times) - 1) / (times[-1] - times[0])

    def start(self) -> None:
        """Begin to draw; return when meshes are uploaded, which holds up every other thread for a moment."""
        self._thread.start()
        self._ready.wait(START_TIMEOUT_S)

    def close(self) -> None:
        """End drawing."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_TIMEOUT_S)

    def _run(self) -> None:
        try:
            renderer = Renderer(self._scene.model, *self._size)
        except RenderError as error:
            self.error = str(error)
            logger.error('the camera stays dark: %s', error)
            self._ready.set()
            return
        with renderer:
            self._draw(renderer)
            self._ready.set()
            due = time.monotonic()
            while not self._stop.is_set():
                if not self.frozen:
                    self._draw(renderer)
                due = max(due + self._period_s, time.monotonic() - self._period_s)
                self._stop.wait(max(0.0, due - time.monotonic()))

    def _draw(self, renderer: Renderer) -> None:
        self._scene.update()
        stamp = time.monotonic()
        picture = renderer.draw(self._scene.data, self._scene.camera)
        if self._stop.is_set():
            return
        self._on_frame(picture, stamp)
        self._times = [*self._times[-RATE_WINDOW:], stamp]
