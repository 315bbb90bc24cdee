# SPDX-License-Identifier: Apache-2.0
"""A small MJPEG server: shows a simulated camera to a real reader, and misbehaves on request."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import logging
import socket
import threading
import time
from types import TracebackType
from typing import Any, cast

import cv2
import numpy as np

from so101_driver.camera.source import Image

BLOCK = 8
COLUMNS, ROWS = 8, 4
COUNTS = 1 << 24
"""Counts that can be told apart."""


def encode_counter(image: Image, count: int) -> Image:
    """Return a copy of an image (height, width, 3) with a count in its corner; it wraps at `COUNTS`."""
    if image.shape[0] < ROWS * BLOCK or image.shape[1] < COLUMNS * BLOCK:
        raise ValueError(
            f'the counter needs {COLUMNS * BLOCK}x{ROWS * BLOCK} pixels, got {image.shape[1::-1]}.'
        )
    code = ((count % COUNTS) << 8) | _checksum(count % COUNTS)
    bits = np.array([(code >> i) & 1 for i in range(COLUMNS * ROWS)], dtype=np.uint8).reshape(ROWS, COLUMNS)
    marked = image.copy()
    blocks = np.kron(bits * 255, np.ones((BLOCK, BLOCK), np.uint8))
    marked[: ROWS * BLOCK, : COLUMNS * BLOCK] = blocks[..., None]
    return marked


def decode_counter(image: Image) -> int | None:
    """Return the count in the corner of an image, or None where there is none."""
    if image.shape[0] < ROWS * BLOCK or image.shape[1] < COLUMNS * BLOCK:
        return None
    corner = image[: ROWS * BLOCK, : COLUMNS * BLOCK].astype(np.float64).mean(axis=2)
    blocks = corner.reshape(ROWS, BLOCK, COLUMNS, BLOCK)[:, 2:6, :, 2:6].mean(axis=(1, 3))
    if np.any((blocks > 64.0) & (blocks < 192.0)):
        return None
    code = sum(int(bit) << i for i, bit in enumerate((blocks > 128.0).ravel()))
    count = code >> 8
    return count if code & 0xFF == _checksum(count) else None


def counter_image(width: int, height: int, count: int) -> Image:
    """Return a grey image of a size [px] with a count in its corner and a bar that moves with it."""
    image = np.full((height, width, 3), 96, dtype=np.uint8)
    left = (7 * count) % width
    image[height // 2 :, left : left + max(width // 20, 1)] = (200, 120, 40)
    return encode_counter(image, count)


def _checksum(count: int) -> int:
    low, middle, high = count & 0xFF, (count >> 8) & 0xFF, count >> 16
    return (0xA5 + low + 3 * middle + 7 * high) & 0xFF


BOUNDARY = 'frame'
CLIENT_TIMEOUT_S = 5.0
"""A client that takes no data for this long is dropped [s]."""

logger = logging.getLogger(__name__)


class MjpegServer:
    """Serves the images of a function as multipart/x-mixed-replace, each newest image to every client.

    While it runs, `freeze`, `disconnect`, `refuse`, `mute`, `fps` and `size` do to the clients what cameras
    and networks do to them; `resume` ends it.
    """

    def __init__(
        self,
        frame: Callable[[], Image | None] | None = None,
        *,
        fps: float = 30.0,
        size: tuple[int, int] = (640, 480),
        quality: int = 85,
        host: str = '127.0.0.1',
        port: int = 0,
    ) -> None:
        """Bind the port; nothing is served before `start`.

        Args:
            frame: returns the next image (height, width, 3) in RGB order, or None for no new one; called from
                one thread of the server. Without it the frames are numbered (`frame_counter.decode_counter`).
            fps: frames per second.
            size: width and height of the numbered frames [px].
            quality: JPEG quality, 1..100.
            host: address to bind.
            port: port to bind; 0 takes a free one.
        """
        self.fps = fps
        self.size = size
        self.count = 0  # frames made so far
        self.mute = False  # accept connections, never answer them
        self.refusing = False
        self._frame = frame
        self._quality = quality
        self._frozen = threading.Event()
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._jpeg = b''
        self._sequence = 0
        self._clients: set[socket.socket] = set()
        self._server = _Server((host, port), _Handler)
        self._server.owner = self
        self._threads = [
            threading.Thread(
                target=self._server.serve_forever, args=(0.05,), name='mjpeg accept', daemon=True
            ),
            threading.Thread(target=self._produce, name='mjpeg frames', daemon=True),
        ]

    def __enter__(self) -> 'MjpegServer':
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the server."""
        self.close()

    @property
    def port(self) -> int:
        """The port."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Address of the stream."""
        return f'http://{self._server.server_address[0]!s}:{self.port}/stream.mjpg'

    @property
    def clients(self) -> int:
        """Number of connected clients."""
        return len(self._clients)

    def start(self) -> None:
        """Start serving."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop serving and free the port."""
        self._stop.set()
        self.disconnect()
        if self._threads[0].is_alive():
            self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(1.0)

    def freeze(self) -> None:
        """Send nothing more; connections stay open."""
        self._frozen.set()

    def resume(self) -> None:
        """Serve normally again."""
        self.mute = self.refusing = False
        self._frozen.clear()

    def refuse(self) -> None:
        """Drop every client and refuse new ones."""
        self.refusing = True
        self.disconnect()

    def disconnect(self) -> None:
        """Drop every client; they may come back."""
        for client in tuple(self._clients):
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                logger.debug('a client had gone already')
        with self._changed:
            self._changed.notify_all()

    def _produce(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(due - time.monotonic(), 0.0)):
            due = max(due + 1.0 / self.fps, time.monotonic() - 1.0 / self.fps)
            if self._frozen.is_set():
                continue
            image = self._frame() if self._frame is not None else counter_image(*self.size, self.count)
            if image is None:
                continue
            bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            good, data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, self._quality])
            if not good:
                raise ValueError(
                    f'an image of shape {image.shape} and type {image.dtype} cannot be sent as JPEG'
                )
            with self._changed:
                self._jpeg, self._sequence = np.asarray(data).tobytes(), self._sequence + 1
                self.count += 1
                self._changed.notify_all()

    def next_jpeg(self, seen: int) -> tuple[int, bytes] | None:
        """Return the number and bytes of a frame newer than one, or None when nothing came for a while."""
        with self._changed:
            self._changed.wait_for(lambda: self._sequence != seen or self._stop.is_set(), timeout=0.1)
            return (
                (self._sequence, self._jpeg) if self._sequence != seen and not self._stop.is_set() else None
            )

    def serve(self, handler: '_Handler') -> None:
        """Send frames to one client until it goes; called by the client's thread."""
        client = handler.connection
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients.add(client)
        try:
            while self.mute and not self._stop.is_set():
                time.sleep(0.02)
            if self.refusing:
                handler.send_error(503)
                return
            handler.send_response(200)
            handler.send_header('Content-Type', f'multipart/x-mixed-replace; boundary={BOUNDARY}')
            handler.send_header('Cache-Control', 'no-store')
            handler.end_headers()
            seen = self._sequence
            while not self._stop.is_set() and not self.refusing and client.fileno() >= 0:
                newer = self.next_jpeg(seen)
                if newer is None:
                    continue
                seen, jpeg = newer
                head = f'--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n'
                handler.wfile.write(head.encode() + jpeg + b'\r\n')
        except OSError:
            logger.debug('a client has gone')
        finally:
            self._clients.discard(client)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    owner: MjpegServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with one client instead of printing it."""
        logger.debug('the connection of %s ended with an error', client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_TIMEOUT_S

    def do_GET(self) -> None:
        """Serve the stream, whatever the path."""
        cast(_Server, self.server).owner.serve(self)

    def log_message(self, format: str, *args: Any) -> None:
        """Log at debug level instead of printing."""
        logger.debug(format, *args)
