# SPDX-License-Identifier: Apache-2.0
"""Judges a stream from the times of its frames: no clock, no thread, no device."""

from dataclasses import dataclass, replace
from enum import StrEnum
import math

from so101_driver.camera.config import CameraConfig

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
        sentence: the same for people, with what to do.
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
