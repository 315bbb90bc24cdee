# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path
import time
from typing import Any

import cv2
import numpy as np
import pytest

from so101_driver.camera import source as camera_source
from so101_driver.camera.camera import open_source
from so101_driver.camera.config import CameraConfig
from so101_driver.camera.source import source_kind, SourceEnded, SourceError, SourceKind
from so101_testing.mjpeg_server import counter_image, decode_counter


def config(source: object, **change: Any) -> CameraConfig:
    return CameraConfig(**{'source': str(source), 'fps': 120.0, 'width': 160, 'height': 120, **change})


def read_all(source: Any, wanted: int, seconds: float = 5.0) -> list[int | None]:
    counts: list[int | None] = []
    deadline = time.monotonic() + seconds
    while len(counts) < wanted and time.monotonic() < deadline:
        raw = source.read(0.05)
        if raw is not None:
            counts.append(decode_counter(raw.bgr))
    return counts


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / 'film.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 30, (160, 120))
    for i in range(12):
        writer.write(counter_image(160, 120, i))
    writer.release()
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for i in range(12):
        cv2.imwrite(str(tmp_path / f'f_{i}.png'), counter_image(160, 120, i))
    (tmp_path / 'notes.txt').write_text('no image')
    return tmp_path


class FakeDevice:
    """Stands for a V4L2 device, of which a machine without camera has none."""

    def __init__(self, taken: dict[int, float] | None = None) -> None:
        self.calls: list[int] = []
        self.values = {cv2.CAP_PROP_FPS: 0.0, **(taken or {})}
        self.fixed = set(taken or {})
        self.alive = True
        self.released = False

    def __call__(self, path: str, backend: int) -> 'FakeDevice':
        self.opened = (path, backend)
        return self

    def isOpened(self) -> bool:
        return self.alive

    def set(self, prop: int, value: float) -> bool:
        self.calls.append(prop)
        if prop in self.fixed:
            return False
        self.values[prop] = value
        return True

    def get(self, prop: int) -> float:
        return self.values.get(prop, 0.0)

    def grab(self) -> bool:
        return self.alive

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.zeros((120, 160, 3), np.uint8)

    def release(self) -> None:
        self.released = True


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A device node that exists."""
    path = tmp_path / 'video7'
    path.touch()
    monkeypatch.setattr(camera_source, 'source_kind', lambda source: SourceKind.DEVICE)
    return str(path)


@pytest.mark.parametrize(
    ('source', 'kind'),
    [
        ('0', SourceKind.DEVICE),
        ('/dev/video2', SourceKind.DEVICE),
        ('/dev/v4l/by-path/pci-0000:00:14.0-usb-0:2:1.0-video-index0', SourceKind.DEVICE),
        ('/dev/v4l/by-id/usb-cam-video-index0', SourceKind.DEVICE),
        ('http://10.0.0.5:8080/stream.mjpg', SourceKind.URL),
        ('https://host/cam', SourceKind.URL),
        ('rtsp://host/cam', SourceKind.URL),
        ('film.avi', SourceKind.VIDEO),
        ('/data/film.mp4', SourceKind.VIDEO),
        ('/data/f_%04d.png', SourceKind.IMAGES),
        ('/data/one.PNG', SourceKind.IMAGES),
        ('/', SourceKind.IMAGES),
    ],
)
def test_a_source_string_says_what_it_is(source, kind):
    assert source_kind(source) is kind


def test_P12_a_device_is_asked_for_its_format_first_and_for_one_buffer(node):
    device = FakeDevice()
    source = open_source(config(node, fps=30.0), device)
    assert device.opened == (node, cv2.CAP_V4L2)
    assert device.calls == [
        cv2.CAP_PROP_FOURCC,
        cv2.CAP_PROP_FRAME_WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT,
        cv2.CAP_PROP_FPS,
        cv2.CAP_PROP_BUFFERSIZE,
    ]
    assert device.values[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter_fourcc(*'MJPG')
    assert device.values[cv2.CAP_PROP_BUFFERSIZE] == 1
    assert source.notes == ()
    assert source.read(0.1).bgr.shape == (120, 160, 3)
    source.close()
    assert device.released


def test_what_a_device_does_not_take_is_noted(node):
    yuyv = float(cv2.VideoWriter_fourcc(*'YUYV'))
    device = FakeDevice({cv2.CAP_PROP_FOURCC: yuyv, cv2.CAP_PROP_FPS: 15.0, cv2.CAP_PROP_BUFFERSIZE: 4.0})
    notes = open_source(config(node, fps=30.0), device).notes
    assert notes == (
        'fourcc is YUYV, asked for MJPG',
        'fps is 15, asked for 30',
        'buffer_size was not taken: frames may be queued',
    )


def test_an_unplugged_device_is_lost_after_a_few_reads(node):
    device = FakeDevice()
    source = open_source(config(node), device)
    device.alive = False
    with pytest.raises(SourceError, match='unplugged'):
        read_all(source, 1)


def test_a_missing_device_is_named_with_those_that_exist():
    with pytest.raises(SourceError, match=r'/dev/video99 does not exist; cameras here: '):
        open_source(config('/dev/video99'))


def test_a_device_that_does_not_open_is_released(node):
    device = FakeDevice()
    device.alive = False
    with pytest.raises(SourceError, match='metadata'):
        open_source(config(node), device)
    assert device.released


def test_a_device_without_permission_names_the_group(node, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    with pytest.raises(SourceError, match='group video'):
        open_source(config(node), FakeDevice())


def test_a_video_is_read_in_order_and_looped(video):
    source = open_source(config(video))
    assert read_all(source, 30) == [*range(12), *range(12), *range(6)]
    source.close()


def test_a_video_that_is_not_looped_ends(video):
    source = open_source(config(video, loop=False))
    assert read_all(source, 12) == list(range(12))
    with pytest.raises(SourceEnded, match='at its end'):
        read_all(source, 1)


def test_files_are_paced_by_the_frame_rate(video):
    source = open_source(config(video, fps=50.0))
    start = time.monotonic()
    read_all(source, 11)
    assert time.monotonic() - start >= 0.19


def test_a_paced_read_waits_no_longer_than_it_is_told(video):
    source = open_source(config(video, fps=0.5, stall_timeout_s=10.0))
    source.read(0.01)
    assert source.read(0.01) is None, 'the next one is due in 2 s'


@pytest.mark.parametrize('name', ['f_%d.png', ''])
def test_images_are_read_in_the_order_of_their_numbers(images, name):
    source = open_source(config(images / name if name else images))
    counts = read_all(source, 24)
    order = list(range(12)) if name else [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    assert counts == [*order, *order]


def test_one_image_is_repeated(images):
    assert read_all(open_source(config(images / 'f_3.png')), 3) == [3, 3, 3]


def test_a_damaged_image_is_counted_and_passed_over(images):
    (images / 'f_0.png').write_bytes(b'no png')
    source = open_source(config(images / 'f_%d.png', loop=False))
    assert read_all(source, 3) == [1, 2, 3]
    assert source.corrupt == 1


@pytest.mark.parametrize('name', ['nothing.avi', 'nothing.png', 'f_%d.jpg', 'empty'])
def test_a_missing_file_is_named(tmp_path, name):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(SourceError, match=name):
        open_source(config(tmp_path / name))


def test_a_file_that_is_no_video_is_named(tmp_path):
    path = tmp_path / 'film.avi'
    path.write_text('this is text')
    with pytest.raises(SourceError, match=r'film\.avi is no video'):
        open_source(config(path))
