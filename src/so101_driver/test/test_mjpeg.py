# SPDX-License-Identifier: Apache-2.0
import socket
import threading
import time

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_driver.camera.mjpeg_client import JpegSplitter, MjpegClient
from so101_driver.camera.source import SourceError
from so101_testing.mjpeg_server import counter_image, COUNTS, decode_counter, encode_counter, MjpegServer


def jpeg(count: int = 1, quality: int = 85, size: tuple[int, int] = (160, 120)) -> bytes:
    data = cv2.imencode('.jpg', counter_image(*size, count), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(data).tobytes()


def next_frame(client: MjpegClient, seconds: float = 5.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        raw = client.read(0.1)
        if raw is not None:
            return raw
    raise AssertionError('no frame came')


def read_on(client: MjpegClient) -> None:
    for _ in range(100):
        client.read(0.1)


class OneAnswer:
    """A server that sends the same bytes to one client and then keeps silent, or closes."""

    def __init__(self, answer: bytes, *, close: bool = False) -> None:
        self.request = b''
        self._socket = socket.create_server(('127.0.0.1', 0))
        self.url = f'http://127.0.0.1:{self._socket.getsockname()[1]}/cam?x=1'
        self._answer, self._close = answer, close
        self._done = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        client, _ = self._socket.accept()
        self.request = client.recv(4096)
        client.sendall(self._answer)
        if not self._close:
            self._done.wait(10.0)
        client.close()

    def close(self) -> None:
        self._done.set()
        self._socket.close()


MULTIPART = b'HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=x\r\n\r\n'


# The counter


@given(count=st.integers(0, COUNTS - 1), quality=st.sampled_from([50, 75, 95]), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_counter_survives_jpeg_on_any_image(count, quality, seed):
    image = np.random.default_rng(seed).integers(0, 256, (60, 84, 3), dtype=np.uint8)
    data = cv2.imencode('.jpg', encode_counter(image, count), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    assert decode_counter(cv2.imdecode(data, cv2.IMREAD_COLOR)) == count


@pytest.mark.parametrize('value', [0, 128, 255])
def test_an_image_without_counter_has_no_count(value):
    assert decode_counter(np.full((120, 160, 3), value, dtype=np.uint8)) is None
    assert decode_counter(np.full((8, 8, 3), value, dtype=np.uint8)) is None


def test_noise_is_hardly_ever_taken_for_a_count():
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 2, (500, 4, 8)) * 255
    found = [
        decode_counter(np.kron(b, np.ones((8, 8)))[..., None].repeat(3, 2).astype(np.uint8)) for b in blocks
    ]
    assert sum(count is not None for count in found) < 10


def test_the_counter_wraps_and_leaves_the_original_alone():
    image = np.zeros((60, 84, 3), dtype=np.uint8)
    assert decode_counter(encode_counter(image, COUNTS + 5)) == 5
    assert not image.any()
    with pytest.raises(ValueError, match='64x32'):
        encode_counter(np.zeros((20, 84, 3), dtype=np.uint8), 1)


# The splitter


@given(data=st.data(), lengths=st.booleans(), count=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_frames_come_out_whole_however_the_bytes_are_cut(data, lengths, count):
    frames = [jpeg(i) for i in range(count)]
    stream = b''
    for frame in frames:
        stream += b'--x\r\nContent-Type: image/jpeg\r\n'
        stream += b'Content-Length: %d\r\n' % len(frame) if lengths else b''
        stream += b'\r\n' + frame + b'\r\n'
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    splitter, got = JpegSplitter(), []
    for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += splitter.feed(stream[a:b])
    assert got == frames


def test_a_length_lets_a_frame_hold_an_embedded_picture():
    inner = jpeg(1)
    frame = b'\xff\xd8\xff\xe1' + inner + b'rest\xff\xd9'
    assert JpegSplitter().feed(b'--x\r\ncontent-length:%d\r\n\r\n' % len(frame) + frame) == [frame]


def test_a_stream_without_any_jpeg_is_given_up():
    splitter = JpegSplitter()
    for _ in range(16):
        assert splitter.feed(b'\0' * (1 << 20)) == []
    with pytest.raises(SourceError, match='MJPEG'):
        splitter.feed(b'\0')


# Client and server


def test_the_client_receives_the_frames_of_the_server_in_order():
    with MjpegServer(fps=60.0, size=(160, 120)) as server:
        client = MjpegClient(server.url, 2.0)
        counts = [decode_counter(next_frame(client).bgr) for _ in range(10)]
        client.close()
    assert None not in counts
    assert counts == sorted(set(counts))


def test_P12_after_a_pause_of_the_reader_the_first_frame_is_a_fresh_one():
    with MjpegServer(fps=60.0, size=(160, 120)) as server:
        client = MjpegClient(server.url, 2.0)
        next_frame(client)
        time.sleep(0.6)
        before = server.count
        raw = next_frame(client)
        assert decode_counter(raw.bgr) >= before - 3
        assert raw.skipped > 12
        client.close()


def test_the_server_shows_the_images_of_a_function_in_rgb():
    image = np.zeros((120, 160, 3), dtype=np.uint8)
    image[..., 0] = 250
    with MjpegServer(lambda: image, fps=60.0) as server:
        client = MjpegClient(server.url, 2.0)
        bgr = next_frame(client).bgr
        client.close()
    assert bgr[60, 80, 2] > 200 > 60 > bgr[60, 80, 0]


def test_opencv_reads_the_server_too():
    with MjpegServer(fps=60.0, size=(160, 120)) as server:
        capture = cv2.VideoCapture(server.url, cv2.CAP_FFMPEG)
        good, image = capture.read()
        capture.release()
    assert good
    assert decode_counter(image) is not None


def test_a_frozen_server_makes_a_read_return_nothing_in_time():
    with MjpegServer(fps=60.0, size=(160, 120)) as server:
        client = MjpegClient(server.url, 2.0)
        next_frame(client)
        server.freeze()
        while client.read(0.1) is not None:  # what was on its way; then it returns although nothing comes
            pass
        server.resume()
        next_frame(client)
        client.close()


def test_a_closed_connection_is_an_error():
    with MjpegServer(fps=60.0, size=(160, 120)) as server:
        client = MjpegClient(server.url, 2.0)
        next_frame(client)
        server.disconnect()
        with pytest.raises(SourceError, match=server.url):
            read_on(client)
        client.close()


def test_a_server_that_never_answers_is_given_up_in_time():
    with MjpegServer() as server:
        server.mute = True
        with pytest.raises(SourceError, match='does not answer within'):
            MjpegClient(server.url, 0.3)


def test_nobody_listening_is_an_error_at_once():
    server = MjpegServer()
    server.close()
    with pytest.raises(SourceError, match='cannot be reached'):
        MjpegClient(server.url, 1.0)


def test_a_refusing_server_is_named_with_its_answer():
    with MjpegServer() as server:
        server.refuse()
        with pytest.raises(SourceError, match='503'):
            MjpegClient(server.url, 2.0)


@pytest.mark.parametrize(
    ('answer', 'words'),
    [
        (b'HTTP/1.1 401 Unauthorized\r\n\r\n', '401'),
        (b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>', 'text/html'),
        (b'SSH-2.0-OpenSSH\r\n', 'no HTTP server'),
        (b'', 'no HTTP server'),
    ],
)
def test_anything_but_a_stream_is_refused_with_what_came(answer, words):
    server = OneAnswer(answer, close=True)
    with pytest.raises(SourceError, match=words):
        MjpegClient(server.url, 2.0)
    server.close()


def test_user_password_and_query_are_sent():
    server = OneAnswer(MULTIPART)
    MjpegClient(server.url.replace('http://', 'http://joe:p%40ss@'), 2.0).close()
    assert server.request.startswith(b'GET /cam?x=1 HTTP/1.0\r\n')
    assert b'Authorization: Basic am9lOnBAc3M=' in server.request
    assert b'joe' not in server.request
    server.close()


def test_a_damaged_frame_is_counted_and_the_stream_goes_on():
    broken = b'\xff\xd8\xff\xe0' + b'junk' * 10 + b'\xff\xd9'
    server = OneAnswer(MULTIPART + b'--x\r\n\r\n' + broken + b'\r\n')
    client = MjpegClient(server.url, 2.0)
    deadline = time.monotonic() + 5.0
    while client.corrupt == 0 and time.monotonic() < deadline:
        assert client.read(0.1) is None
    assert client.corrupt == 1
    client.close()
    server.close()


def test_a_server_can_be_closed_without_having_been_started():
    MjpegServer().close()


def test_a_closed_server_frees_its_port():
    with MjpegServer() as server:
        port = server.port
    with MjpegServer(port=port, fps=60.0) as again:
        client = MjpegClient(again.url, 2.0)
        next_frame(client)
        client.close()
