# SPDX-License-Identifier: Apache-2.0
from dataclasses import fields

import numpy as np
import pytest

from so101_driver.camera.camera import CameraStatus, judge, measured_fps, Stream
from so101_driver.camera.config import CameraConfig
from so101_interfaces_py.params import describe

CONFIG = CameraConfig(source='cam', fps=30.0)
VGA = (640, 480)


def stream(
    *, seconds: float = 2.0, fps: float = 30.0, size: tuple[int, int] = VGA, start: float = 100.0
) -> Stream:
    """A stream that was opened at `start` and has run for some seconds."""
    result = Stream(started_s=start - 0.5).opened(start, ())
    for i in range(round(seconds * fps)):
        result = result.with_frame(start + (i + 1) / fps, size, CONFIG.fps, right=size == VGA, skipped=0)
    return result


def status(of: Stream, now: float) -> CameraStatus:
    return judge(of, CONFIG, now).status


def test_a_steady_stream_is_ok_and_its_rate_is_measured():
    report = judge(stream(), CONFIG, 102.01)
    assert report.status is CameraStatus.OK
    assert report.fps == pytest.approx(30.0, rel=0.01)
    assert report.age_s == pytest.approx(0.01)
    assert report.stream.missed == 0


def test_before_the_first_frame_the_camera_is_starting_and_later_stalled():
    opened = Stream(started_s=100.0).opened(100.5, ())
    assert status(Stream(started_s=100.0), 100.4) is CameraStatus.STARTING
    assert status(opened, 101.0) is CameraStatus.STARTING
    assert status(opened, 104.0) is CameraStatus.STALLED


def test_a_source_that_does_not_open_in_time_is_disconnected():
    assert status(Stream(started_s=100.0), 104.0) is CameraStatus.DISCONNECTED


def test_P12_a_frozen_stream_is_stalled_after_half_a_second():
    frozen = stream()
    assert status(frozen, 102.49) is not CameraStatus.STALLED
    report = judge(frozen, CONFIG, 102.51)
    assert report.status is CameraStatus.STALLED
    assert '0.5 s' in report.sentence


@pytest.mark.parametrize('fps', [5.0, 12.0, 15.0, 20.0])
def test_P12_a_stream_that_slows_down_is_reported_within_half_a_second_with_its_true_rate(fps):
    slow = stream()
    for i in range(round(0.5 * fps)):
        slow = slow.with_frame(102.0 + (i + 1) / fps, VGA, 30.0, right=True, skipped=0)
    report = judge(slow, CONFIG, 102.5)
    assert report.status is CameraStatus.SLOW
    assert 'expected 30' in report.sentence
    for i in range(round(0.5 * fps), round(3.0 * fps)):
        slow = slow.with_frame(102.0 + (i + 1) / fps, VGA, 30.0, right=True, skipped=0)
    assert judge(slow, CONFIG, 105.0).fps == pytest.approx(fps, rel=0.05)


def test_jitter_and_single_lost_frames_are_not_slow():
    rng = np.random.default_rng(0)
    jittery = Stream(started_s=99.0).opened(100.0, ())
    for i in range(90):
        if i % 10:
            stamp = 100.0 + i / 30.0 + rng.uniform(-0.01, 0.01)
            jittery = jittery.with_frame(stamp, VGA, 30.0, right=True, skipped=0)
            assert status(jittery, stamp + 0.02) is CameraStatus.OK
    assert jittery.missed == 8


def test_a_young_stream_is_not_called_slow():
    assert status(stream(seconds=0.2), 100.21) is CameraStatus.OK


def test_the_wrong_size_is_named():
    report = judge(stream(size=(320, 240)), CONFIG, 102.01)
    assert report.status is CameraStatus.WRONG_SIZE
    assert '320x240' in report.sentence
    assert '640x480' in report.sentence
    assert report.stream.wrong_size == 60
    assert report.stream.frames == 0


def test_size_zero_takes_what_comes():
    config = CameraConfig(source='cam', width=0, height=0)
    assert judge(stream(size=(320, 240)), config, 102.01).status is CameraStatus.OK


def test_a_lost_source_is_disconnected_with_its_reason_and_counts_the_way_back():
    lost = stream().closed('unplugged')
    report = judge(lost, CONFIG, 102.1)
    assert (report.status, report.sentence) == (CameraStatus.DISCONNECTED, 'unplugged')
    back = lost.opened(103.0, ())
    assert back.reconnects == 1
    assert status(back, 103.1) is CameraStatus.STARTING


def test_missed_frames_are_those_due_and_not_skipped():
    base = stream(seconds=1.0)
    assert base.with_frame(101.0 + 4 / 30, VGA, 30.0, right=True, skipped=0).missed == 3
    assert base.with_frame(101.0 + 4 / 30, VGA, 30.0, right=True, skipped=3).missed == 0


def test_the_rate_falls_while_nothing_comes():
    running = stream()
    rates = [measured_fps(running, 102.0 + wait) for wait in (0.0, 0.5, 1.0, 1.9, 5.0)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0.0


@pytest.mark.parametrize(
    'change',
    [
        {'source': ' '},
        {'fourcc': 'MJPEG'},
        {'width': 0},
        {'fps': 0.0},
        {'stall_timeout_s': 0.05},
        {'reconnect_min_s': 5.0},
        {'slow_ratio': 2.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_senseless_configuration_is_refused_with_the_name_of_the_parameter(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        CameraConfig(**change)


def test_every_parameter_is_declared_with_a_sentence():
    infos = describe(CameraConfig)
    assert set(infos) == {f.name for f in fields(CameraConfig)}
    assert all(info.doc.endswith('.') for info in infos.values())
