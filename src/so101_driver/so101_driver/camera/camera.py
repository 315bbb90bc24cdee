# SPDX-License-Identifier: Apache-2.0
"""A camera that never makes anybody wait: a thread keeps the newest frame, everybody else just looks."""

from dataclasses import replace
import logging
import os
import threading
import time
from types import TracebackType

import cv2

from so101_driver.camera.config import CameraConfig
from so101_driver.camera.frame import Frame
from so101_driver.camera.source import CaptureFactory, FrameSource, open_source, SourceEnded, SourceError
from so101_driver.camera.stats import CameraReport, CameraStatus, judge, size_fits, Stream

POLL_S = 0.05
"""How often the reader looks whether it is to stop, where its source lets it [s]."""

logger = logging.getLogger(__name__)


class Camera:
    """One source of frames, read by one thread.

    The thread owns the source and replaces two attributes, the newest frame and the state of the stream;
    readers take them without a lock, so neither side ever waits for the other. Start processes with `spawn`,
    or before `start`: a forked child has no reader thread, and `report` says so.
    """

    def __init__(self, config: CameraConfig, capture: CaptureFactory = cv2.VideoCapture) -> None:
        """Make a camera; nothing is opened before `start`.

        Args:
            config: the source and what is expected of it.
            capture: what opens devices and files.
        """
        self.config = config
        self._capture = capture
        self._latest: Frame | None = None
        self._stream = Stream(started_s=time.monotonic())
        self._stop = threading.Event()
        self._new = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def __enter__(self) -> 'Camera':
        """Start the camera."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the camera."""
        self.close()

    def start(self) -> None:
        """Start the reader; returns at once, whether the source is there or not."""
        if self._thread is not None:
            raise RuntimeError('this camera was started before; make a new one.')
        cv2.setNumThreads(1)  # a pool of threads only takes cores from the control loop
        self._stream = Stream(started_s=time.monotonic())
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name=f'camera {self.config.source}', daemon=True)
        self._thread.start()

    def close(self) -> bool:
        """Stop the reader and release the source; return whether it has stopped.

        A reader that hangs inside a device driver is left behind after `close_timeout_s`; it releases the
        device when the driver lets it go, and does not keep the process alive.
        """
        self._stop.set()
        self._new.set()
        thread = self._thread
        if thread is None or self._pid != os.getpid():
            return True
        thread.join(self.config.close_timeout_s)
        if thread.is_alive():
            logger.warning('the reader of %s hangs in its driver and is left behind', self.config.source)
        return not thread.is_alive()

    def latest(self, max_age_s: float | None = None) -> Frame | None:
        """Return the newest good frame at once, or None.

        Args:
            max_age_s: an older frame is not returned [s]; None returns it whatever its age (`Frame.age_s`).
        """
        frame = self._latest
        if frame is None or max_age_s is None:
            return frame
        return frame if frame.age_s(time.monotonic()) <= max_age_s else None

    def wait_newer(self, index: int, timeout_s: float) -> Frame | None:
        """Wait for a frame newer than one, for programs that have nothing else to do.

        Args:
            index: `Frame.index` of the last frame seen; -1 for any.
            timeout_s: longest time to wait [s].

        Returns:
            The newest frame, or None where none came in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._new.clear()
            frame = self._latest
            if frame is not None and frame.index > index:
                return frame
            left = deadline - time.monotonic()
            if left <= 0.0 or self._stop.is_set():
                return None
            self._new.wait(left)

    def report(self) -> CameraReport:
        """Return how the stream does, at once."""
        report = judge(self._stream, self.config, time.monotonic())
        if self._thread is None:
            return replace(
                report, status=CameraStatus.STARTING, sentence=f'{self.config.source} is not started'
            )
        trouble = ''
        if self._pid != os.getpid():
            trouble = 'this process was forked from the one that reads the camera; use spawn'
        elif self._stop.is_set():
            trouble = f'{self.config.source} is closed'
        elif not self._thread.is_alive() and not self._stream.lost:
            trouble = f'the reader of {self.config.source} has died; see the log'
        return replace(report, status=CameraStatus.DISCONNECTED, sentence=trouble) if trouble else report

    # The reader thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = self.config.reconnect_min_s
        while not self._stop.is_set():
            frames = self._stream.frames + self._stream.wrong_size
            try:
                source = open_source(self.config, self._capture)
                try:
                    self._stream = self._stream.opened(time.monotonic(), source.notes)
                    self._drain(source)
                finally:
                    source.close()
            except SourceEnded as end:
                self._stream = self._stream.closed(str(end))
                return
            except (SourceError, cv2.error) as error:
                self._stream = self._stream.closed(str(error))
            if self._stream.frames + self._stream.wrong_size > frames:
                pause = self.config.reconnect_min_s
            self._stop.wait(pause)
            pause = min(2.0 * pause, self.config.reconnect_max_s)

    def _drain(self, source: FrameSource) -> None:
        """Take every frame until told to stop; raises SourceError when the source is lost."""
        heard = time.monotonic()
        corrupt = self._stream.corrupt
        while not self._stop.is_set():
            raw = source.read(POLL_S)
            if source.corrupt:
                self._stream = replace(self._stream, corrupt=corrupt + source.corrupt)
            if raw is None:
                silent = time.monotonic() - heard
                if silent > self.config.reconnect_after_s:
                    raise SourceError(
                        f'{self.config.source} sent no frame for {silent:.1f} s; opening it again'
                    )
                continue
            heard = raw.stamp_s
            size = (raw.bgr.shape[1], raw.bgr.shape[0])
            right = size_fits(size, self.config)
            if right:
                raw.bgr.setflags(write=False)
                index = self._stream.frames
                self._latest = Frame(raw.bgr, raw.stamp_s, raw.wall_s, index, raw.jpeg)
            self._stream = self._stream.with_frame(
                raw.stamp_s, size, self.config.fps, right=right, skipped=raw.skipped
            )
            self._new.set()
