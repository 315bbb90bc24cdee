# SPDX-License-Identifier: Apache-2.0
"""A camera that never makes anybody wait: a thread keeps the newest frame, everybody else just looks."""

from dataclasses import dataclass, replace
from enum import StrEnum
import logging
import math
import os
import threading
import time
from types import TracebackType

import cv2

from so101_driver.camera.config import CameraConfig
from so101_driver.camera.mjpeg_client import MjpegClient
from so101_driver.camera.source import (
    CaptureFactory,
    Frame,
    FrameSource,
    open_local,
    SourceEnded,
    SourceError,
)

FPS_WINDOW_S = 2.0
"""Length of time over which the frame rate is measured [s]."""


class CameraStatus(StrEnum):
    """What a camera is worth at the moment."""

    OK = 'ok'
    STARTING = 'starting'
    STALLED = 'stalled'
    SLOW = 'slow'
    WRONG_SIZE = 'wrong_size'
    DISCONNECTED = 'disconnected'


@dataclass(frozen=True)
class Stream:
    """What the reader knows of its stream; replaced as a whole, so that any thread may read it.

    Attributes:
        started_s: when the camera was started [s, monotonic, like all times here].
        opened_s: when the source was opened, None while it is not.
        lost: why the source is not open, empty before the first attempt has ended.
        stamps_s: times of the newest frames, oldest first.
        size: width and height of the newest frame [px].
        notes: where the device does other than it was asked to.
        frames: frames delivered.
        missed: frames that were due at the expected rate and did not come.
        behind: how late the newest frame was, in frames, not yet counted as missed.
        skipped: frames that came and were passed over for a newer one.
        corrupt: frames that could not be decoded.
        wrong_size: frames that were not delivered for their size.
        reconnects: times that the source was opened again.
    """

    started_s: float
    opened_s: float | None = None
    lost: str = ''
    stamps_s: tuple[float, ...] = ()
    size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()
    frames: int = 0
    missed: int = 0
    behind: float = 0.0
    skipped: int = 0
    corrupt: int = 0
    wrong_size: int = 0
    reconnects: int = 0

    def opened(self, now: float, notes: tuple[str, ...]) -> 'Stream':
        """Return the stream after its source was opened."""
        again = bool(self.lost)
        return replace(
            self, opened_s=now, lost='', stamps_s=(), notes=notes, reconnects=self.reconnects + again
        )

    def closed(self, why: str) -> 'Stream':
        """Return the stream after its source was lost or could not be opened."""
        return replace(self, opened_s=None, lost=why)

    def with_frame(
        self, stamp_s: float, size: tuple[int, int], fps: float, *, right: bool, skipped: int
    ) -> 'Stream':
        """Return the stream after a frame.

        Args:
            stamp_s: time of the frame [s].
            size: its width and height [px].
            fps: expected rate [Hz].
            right: whether the size is the expected one.
            skipped: older frames passed over for this one.
        """
        behind, missed = 0.0, 0
        if self.stamps_s:
            # Jitter makes one gap longer and the next shorter, so gaps are added up, with a little leak for a
            # rate that is not exactly the nominal one.
            gap = (stamp_s - self.stamps_s[-1]) * fps - 1.0 - skipped
            behind = max(0.9 * self.behind + gap, -1.0)
            missed = max(math.floor(behind + 0.25), 0)
            behind -= missed
        recent = tuple(stamp for stamp in self.stamps_s if stamp > stamp_s - FPS_WINDOW_S)
        return replace(
            self,
            stamps_s=(*recent, stamp_s),
            size=size,
            frames=self.frames + right,
            missed=self.missed + missed,
            behind=behind,
            skipped=self.skipped + skipped,
            wrong_size=self.wrong_size + (not right),
        )


@dataclass(frozen=True)
class CameraReport:
    """Judgement of a stream at one moment.

    Attributes:
        status: the judgement.
        sentence: the same in words, with what to do.
        fps: measured frame rate [Hz].
        age_s: age of the newest frame [s], None where there is none.
        stream: the counts behind it.
    """

    status: CameraStatus
    sentence: str
    fps: float
    age_s: float | None
    stream: Stream


def measured_fps(stream: Stream, now: float) -> float:
    """Return the frame rate over the last seconds [Hz]; a stream that stops is seen to slow down."""
    stamps = [stamp for stamp in stream.stamps_s if stamp > now - FPS_WINDOW_S]
    if len(stamps) < 2:
        return 0.0
    mean = (stamps[-1] - stamps[0]) / (len(stamps) - 1)
    return (len(stamps) - 1) / max(stamps[-1] - stamps[0], now - mean - stamps[0], 1e-6)


def judge(stream: Stream, config: CameraConfig, now: float) -> CameraReport:
    """Judge a stream.

    Args:
        stream: what the reader knows.
        config: what is expected.
        now: time on the monotonic clock [s].
    """
    age = now - stream.stamps_s[-1] if stream.stamps_s else None
    status, sentence = _status(stream, config, now, age)
    return CameraReport(status, sentence, measured_fps(stream, now), age, stream)


def _status(stream: Stream, config: CameraConfig, now: float, age: float | None) -> tuple[CameraStatus, str]:
    if stream.opened_s is None or age is None:
        return _status_before_frames(stream, config, now)
    source, size = config.source, stream.size or (0, 0)
    if age > config.stall_timeout_s:
        return (
            CameraStatus.STALLED,
            f'{source} has sent no frame for {age:.1f} s; check cable and USB bandwidth',
        )
    if not size_fits(size, config):
        return CameraStatus.WRONG_SIZE, (
            f'{source} sends {size[0]}x{size[1]}, expected {config.width}x{config.height}; '
            'its frames are not used, correct width and height or the camera'
        )
    window = max(config.stall_timeout_s, 8.0 / config.fps)
    recent = sum(stamp > now - window for stamp in stream.stamps_s) / window
    if now - stream.stamps_s[0] >= window and recent < config.slow_ratio * config.fps:
        return CameraStatus.SLOW, (
            f'{source} sends {recent:.1f} frames/s, expected {config.fps:g}; more light (a long exposure '
            'halves the rate), MJPG, or a free USB bus helps'
        )
    return CameraStatus.OK, f'{source} sends {size[0]}x{size[1]}'


def _status_before_frames(stream: Stream, config: CameraConfig, now: float) -> tuple[CameraStatus, str]:
    if stream.lost:
        return CameraStatus.DISCONNECTED, stream.lost
    waited = now - (stream.started_s if stream.opened_s is None else stream.opened_s)
    late = waited > config.start_timeout_s
    if stream.opened_s is None:
        if late:
            return (
                CameraStatus.DISCONNECTED,
                f'{config.source} has not opened in {waited:.1f} s; is it in use?',
            )
        return CameraStatus.STARTING, f'{config.source} is being opened'
    if late:
        return CameraStatus.STALLED, f'{config.source} is open but has sent no frame in {waited:.1f} s'
    return CameraStatus.STARTING, f'waiting for the first frame of {config.source}'


def size_fits(size: tuple[int, int], config: CameraConfig) -> bool:
    """Return whether a frame has the expected width and height [px]."""
    return config.width == 0 or size == (config.width, config.height)


POLL_S = 0.05
"""How often the reader looks whether it is to stop, where its source lets it [s]."""

logger = logging.getLogger(__name__)


def open_source(config: CameraConfig, capture: CaptureFactory = cv2.VideoCapture) -> FrameSource:
    """Open the source of a camera.

    Raises:
        SourceError: it is not there or is not a camera; the message says what to do.
    """
    if config.source.startswith(('http://', 'https://')):
        return MjpegClient(config.source, config.connect_timeout_s)
    return open_local(config, capture)


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
