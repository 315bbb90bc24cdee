# SPDX-License-Identifier: Apache-2.0
"""The camera against a real stream over a real socket, and against devices that hang."""

from collections.abc import Callable, Iterator
import os
import threading
import time
from typing import Any

import cv2
import numpy as np
import pytest

from so101_driver.camera import source as camera_source
from so101_driver.camera.camera import Camera, CameraStatus
from so101_driver.camera.config import CameraConfig
from so101_driver.camera.source import Frame, SourceKind
from so101_testing.mjpeg_server import counter_image, decode_counter, MjpegServer

SIZE = (160, 120)
FPS = 40.0


def config(source: object, **change: Any) -> CameraConfig:
    values = {'source': str(source), 'width': SIZE[0], 'height': SIZE[1], 'fps': FPS, **change}
    return CameraConfig(**{'reconnect_min_s': 0.05, 'reconnect_max_s': 0.2, **values})


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> float:
    """Wait for a condition and return how long it took [s]."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f'{what} did not happen in {seconds} s'
        time.sleep(0.005)
    return time.monotonic() - start


def wait_status(camera: Camera, *statuses: CameraStatus) -> float:
    return wait_for(lambda: camera.report().status in statuses, f'status {statuses}')


@pytest.fixture
def server() -> Iterator[MjpegServer]:
    with MjpegServer(fps=FPS, size=SIZE) as server:
        yield server


@pytest.fixture
def camera(server: MjpegServer) -> Iterator[Camera]:
    """A camera with a running stream."""
    with Camera(config(server.url)) as camera:
        wait_status(camera, CameraStatus.OK)
        yield camera


class Device:
    """A device whose driver can hang, and which remembers how it is used."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.released = False
        self.threads: set[int] = set()
        self.count = 0

    def __call__(self, path: str, backend: int) -> 'Device':
        return self

    def isOpened(self) -> bool:
        return True

    def set(self, prop: int, value: float) -> bool:
        return True

    def get(self, prop: int) -> float:
        return 0.0

    def grab(self) -> bool:
        self.threads.add(threading.get_ident())
        time.sleep(1.0 / FPS)
        self.free.wait(20.0)
        self.count += 1
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, counter_image(*SIZE, self.count)

    def release(self) -> None:
        self.threads.add(threading.get_ident())
        self.released = True


@pytest.fixture
def device(tmp_path, monkeypatch) -> Iterator[tuple[Device, CameraConfig]]:
    node = tmp_path / 'video0'
    node.touch()
    monkeypatch.setattr(camera_source, 'source_kind', lambda source: SourceKind.DEVICE)
    device = Device()
    yield device, config(node, close_timeout_s=0.3)
    device.free.set()


def test_frames_come_with_both_clocks_and_in_rgb(camera):
    frame = camera.latest()
    assert frame is not None
    assert frame.age_s(time.monotonic()) >= 0.0
    skews = [(time.time() - frame.wall_s) - frame.age_s(time.monotonic()) for _ in range(20)]
    assert min(map(abs, skews)) < 0.2
    assert frame.size == SIZE
    assert not frame.bgr.flags.writeable
    rgb = frame.rgb()
    np.testing.assert_array_equal(rgb, frame.bgr[..., ::-1])
    assert rgb.flags.c_contiguous
    assert rgb.flags.writeable
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), 1), frame.bgr)


def test_nothing_is_opened_before_start(server):
    camera = Camera(config(server.url))
    assert camera.latest() is None
    assert camera.report().status is CameraStatus.STARTING
    assert 'not started' in camera.report().sentence
    assert server.clients == 0
    assert camera.close()


def test_P12_the_true_rate_is_measured(camera):
    wait_for(lambda: abs(camera.report().fps - FPS) < 0.25 * FPS, 'the rate')


def test_P12_a_frozen_stream_is_reported_and_recovers(server, camera):
    server.freeze()
    assert wait_status(camera, CameraStatus.STALLED) < 1.5
    assert camera.latest(max_age_s=0.3) is None
    assert camera.latest() is not None
    server.resume()
    wait_status(camera, CameraStatus.OK)


def test_P12_a_slow_stream_is_reported_with_its_true_rate_and_recovers(server, camera):
    time.sleep(0.6)  # long enough to be judged by its rate
    server.fps = 8.0
    assert wait_status(camera, CameraStatus.SLOW) < 1.5
    wait_for(lambda: camera.report().fps < 24.0, 'the true rate')
    server.fps = FPS
    wait_status(camera, CameraStatus.OK)


def test_P12_a_wrong_size_is_reported_its_frames_are_withheld_and_it_recovers(server, camera):
    server.size = (96, 64)
    assert wait_status(camera, CameraStatus.WRONG_SIZE) < 1.5
    assert '96x64' in camera.report().sentence
    assert camera.latest().size == SIZE
    server.size = SIZE
    wait_status(camera, CameraStatus.OK)
    wait_for(lambda: camera.latest(0.2) is not None, 'a new frame')


def test_P12_a_lost_server_is_reported_and_found_again(server, camera):
    server.refuse()
    assert wait_status(camera, CameraStatus.DISCONNECTED) < 1.5
    server.resume()
    wait_status(camera, CameraStatus.OK)
    assert camera.report().stream.reconnects == 1


def test_a_server_that_dies_and_comes_back_on_its_port_is_found_again():
    first = MjpegServer(fps=FPS, size=SIZE)
    first.start()
    with Camera(config(first.url)) as camera:
        wait_status(camera, CameraStatus.OK)
        port = first.port
        first.close()
        wait_status(camera, CameraStatus.DISCONNECTED)
        with MjpegServer(fps=FPS, size=SIZE, port=port):
            wait_status(camera, CameraStatus.OK)


def test_a_stalled_source_is_opened_again_after_a_while(server):
    with Camera(config(server.url, reconnect_after_s=0.8)) as camera:
        wait_status(camera, CameraStatus.OK)
        server.freeze()
        wait_for(lambda: camera.report().stream.reconnects > 0, 'opening again')
        server.resume()
        wait_status(camera, CameraStatus.OK)


def test_the_camera_may_be_started_before_its_server():
    unstarted = MjpegServer(fps=FPS, size=SIZE)
    port = unstarted.port
    unstarted.close()
    with Camera(config(f'http://127.0.0.1:{port}/stream.mjpg')) as camera:
        wait_status(camera, CameraStatus.DISCONNECTED)
        assert 'cannot be reached' in camera.report().sentence
        with MjpegServer(fps=FPS, size=SIZE, port=port):
            wait_status(camera, CameraStatus.OK)


def test_P12_frames_are_never_queued(server, camera):
    time.sleep(0.5)
    before = server.count
    frame = camera.latest()
    assert decode_counter(frame.bgr) >= before - 8


def test_T9_looking_at_the_camera_never_blocks_whatever_the_stream_does(server):
    with Camera(config(server.url, reconnect_after_s=0.3, connect_timeout_s=1.0)) as camera:
        wait_status(camera, CameraStatus.OK)
        waits: list[float] = []
        frames: set[int] = set()
        for trouble in (server.freeze, server.disconnect, server.refuse, server.resume, None):
            if trouble is None:
                server.mute = True
                server.disconnect()
            else:
                trouble()
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                start = time.monotonic()
                frame = camera.latest()
                report = camera.report()
                waits.append(time.monotonic() - start)
                assert report.sentence
                frames.add(frame.index)
                time.sleep(0.002)
        server.resume()
    assert len(frames) > 5
    assert float(np.median(waits)) < 0.02


def test_T9_a_hanging_device_blocks_neither_readers_nor_closing(device):
    hanging, camera_config = device
    camera = Camera(camera_config, hanging)
    camera.start()
    wait_status(camera, CameraStatus.OK)
    hanging.free.clear()
    wait_status(camera, CameraStatus.STALLED)
    camera.latest()
    assert camera.close() is False
    assert not hanging.released
    hanging.free.set()
    wait_for(lambda: hanging.released, 'the release of the device')
    assert len(hanging.threads) == 1
    assert camera.close()


def test_a_device_is_only_touched_by_the_reader_thread(device):
    quick, camera_config = device
    with Camera(camera_config, quick) as camera:
        wait_status(camera, CameraStatus.OK)
        camera.latest()
    assert quick.released
    assert len(quick.threads) == 1
    assert threading.get_ident() not in quick.threads


def test_closing_is_quick_idempotent_and_reported(server, camera):
    assert camera.close()
    assert camera.close()
    assert camera.report().status is CameraStatus.DISCONNECTED
    assert 'closed' in camera.report().sentence
    wait_for(lambda: server.clients == 0, 'the end of the connection')


def test_closing_does_not_wait_for_a_reconnect_pause():
    with Camera(config('/dev/video98', reconnect_min_s=10.0, reconnect_max_s=10.0)) as camera:
        wait_status(camera, CameraStatus.DISCONNECTED)
        start = time.monotonic()
        assert camera.close()
        assert time.monotonic() - start < 9.0


def test_a_camera_is_started_once(camera):
    with pytest.raises(RuntimeError, match='make a new one'):
        camera.start()


def test_waiting_for_a_newer_frame_has_a_deadline(server, camera):
    newer = camera.wait_newer(camera.latest().index, 5.0)
    assert isinstance(newer, Frame)
    server.freeze()
    wait_status(camera, CameraStatus.STALLED)
    assert camera.wait_newer(camera.latest().index, 0.1) is None
    assert camera.wait_newer(-1, 0.0) is not None


def test_the_pause_between_attempts_grows_to_its_bound(tmp_path):
    attempts: list[float] = []

    def capture(*arguments: object) -> Any:
        attempts.append(time.monotonic())
        raise camera_source.SourceError('never')

    path = tmp_path / 'film.avi'
    path.touch()
    with Camera(config(path, reconnect_min_s=0.02, reconnect_max_s=0.16), capture):
        wait_for(lambda: len(attempts) >= 7, 'seven attempts')
    gaps = np.diff(attempts)
    assert gaps[1] >= 0.04
    assert gaps[5] >= 0.15
    assert gaps[5] < 1.0


def test_a_file_that_has_ended_is_reported_and_not_opened_again(tmp_path):
    for i in range(5):
        cv2.imwrite(str(tmp_path / f'{i}.png'), counter_image(*SIZE, i))
    with Camera(config(tmp_path, loop=False)) as camera:
        wait_status(camera, CameraStatus.DISCONNECTED)
        assert 'at its end' in camera.report().sentence
        assert decode_counter(camera.latest().bgr) == 4
        assert camera.report().stream.reconnects == 0


def test_a_looped_file_is_a_steady_stream(tmp_path):
    for i in range(5):
        cv2.imwrite(str(tmp_path / f'{i}.png'), counter_image(*SIZE, i))
    with Camera(config(tmp_path)) as camera:
        wait_for(lambda: camera.report().stream.frames > 20, 'twenty frames')
        wait_status(camera, CameraStatus.OK)


def test_opencv_errors_do_not_end_the_reader(tmp_path):
    calls: list[int] = []

    def capture(*arguments: object) -> Any:
        calls.append(1)
        raise cv2.error('the driver is confused')

    path = tmp_path / 'film.avi'
    path.touch()
    with Camera(config(path), capture) as camera:
        wait_for(lambda: len(calls) >= 3, 'three attempts')
        assert 'confused' in camera.report().sentence


@pytest.mark.filterwarnings('ignore:This process.*fork:DeprecationWarning')
def test_a_forked_child_neither_hangs_nor_trusts_the_camera(camera):
    child = os.fork()
    if child == 0:
        forked = camera.report()
        camera.latest()
        camera.close()
        good = forked.status is CameraStatus.DISCONNECTED and 'spawn' in forked.sentence
        os._exit(0 if good else 1)
    result: list[int] = []

    def ended() -> bool:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            result.append(status)
        return bool(pid)

    wait_for(ended, 'the end of the child')
    assert result == [0]
    wait_status(camera, CameraStatus.OK)


def test_the_picture_pool_of_opencv_is_switched_off(camera):
    assert cv2.getNumThreads() == 1
