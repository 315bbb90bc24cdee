# SPDX-License-Identifier: Apache-2.0
"""Reads an MJPEG stream over HTTP, newest frame first, and never waits longer than it is told to.

OpenCV can open such a URL too, but then a frozen server blocks a read for 30 s (or, with its timeouts set,
ends the stream for good), frames queue up while the reader is busy, and a stream that changes its size is
scaled to the old one without a word.
"""

import base64
import select
import socket
import ssl
import time
from urllib.parse import SplitResult, unquote, urlsplit

import cv2
import numpy as np

from so101_driver.camera.source import RawFrame, SourceError

CHUNK = 1 << 18
MAX_PENDING = 1 << 24
"""Bytes without a complete frame after which the stream is no MJPEG [bytes]."""
MAX_HEADER = 1 << 16
DRAIN_S = 0.05
"""Longest that one read follows a sender that is faster than the reader [s]."""


class JpegSplitter:
    """Cuts the parts of a multipart stream out of its bytes.

    A part with a Content-Length is taken by length. Without one it reaches from the start marker of a JPEG
    to its end marker, which cannot occur inside the compressed data.
    """

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes and return the frames that they complete."""
        self._pending += data
        frames = []
        while True:
            frame = self._take()
            if frame is None:
                break
            frames.append(frame)
        if len(self._pending) > MAX_PENDING:
            raise SourceError(
                f'got {len(self._pending)} bytes without one complete JPEG; is this an MJPEG stream?'
            )
        return frames

    def _take(self) -> bytes | None:
        pending = self._pending
        start = pending.find(b'\xff\xd8\xff')
        if start < 0:
            return None
        length = _content_length(bytes(pending[max(0, start - 1024) : start]))
        if length is None:
            end = pending.find(b'\xff\xd9', start)
            if end < 0:
                return None
            length = end + 2 - start
        if len(pending) < start + length:
            return None
        frame = bytes(pending[start : start + length])
        del pending[: start + length]
        return frame


class MjpegClient:
    """One connection to an MJPEG server."""

    def __init__(self, url: str, connect_timeout_s: float) -> None:
        """Connect and read the answer's header.

        Args:
            url: http or https address, with user and password where the server wants them.
            connect_timeout_s: time for the server to answer [s].

        Raises:
            SourceError: the server is not there, does not answer in time, or answers something else.
        """
        self.notes: tuple[str, ...] = ()
        self.corrupt = 0
        self._url = url
        self._splitter = JpegSplitter()
        parts = urlsplit(url)
        deadline = time.monotonic() + connect_timeout_s
        try:
            self._socket = _connect(parts, connect_timeout_s)
        except OSError as error:
            raise SourceError(f'{url} cannot be reached ({error}); is the server running?') from error
        try:
            self._socket.sendall(_request(parts))
            self._newest = self._splitter.feed(self._read_header(deadline))
        except OSError as error:
            self._socket.close()
            raise SourceError(f'{url} does not answer within {connect_timeout_s} s ({error})') from error
        except SourceError:
            self._socket.close()
            raise

    def read(self, timeout_s: float) -> RawFrame | None:
        """Return the newest frame that has come, or None where none comes in time.

        Args:
            timeout_s: longest time to wait [s].

        Raises:
            SourceError: the connection has ended.
        """
        frames, self._newest = self._newest, []
        give_up = time.monotonic() + DRAIN_S
        try:
            while self._readable(0.0 if frames else timeout_s):
                data = self._socket.recv(CHUNK)
                if not data:
                    raise SourceError(f'{self._url} has closed the connection')
                frames += self._splitter.feed(data)
                if time.monotonic() > give_up:
                    break
                timeout_s = 0.0
        except OSError as error:
            raise SourceError(f'{self._url}: the connection broke ({error})') from error
        if not frames:
            return None
        stamp_s, wall_s = time.monotonic(), time.time()
        image = cv2.imdecode(np.frombuffer(frames[-1], dtype=np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            self.corrupt += 1
            return None
        bgr = np.asarray(image, dtype=np.uint8)
        return RawFrame(bgr, stamp_s, wall_s, jpeg=frames[-1], skipped=len(frames) - 1)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _readable(self, timeout_s: float) -> bool:
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        return bool(select.select([self._socket], [], [], timeout_s)[0])

    def _read_header(self, deadline: float) -> bytes:
        """Read up to the end of the header, check it, and return what came after it."""
        head = b''
        while b'\r\n\r\n' not in head:
            left = deadline - time.monotonic()
            if left <= 0.0 or not self._readable(left):
                raise TimeoutError('timed out')
            data = self._socket.recv(4096)
            if not data or len(head) > MAX_HEADER:
                raise SourceError(
                    f'{self._url} is no HTTP server: it closed the connection or sent no header'
                )
            head += data
        header, _, rest = head.partition(b'\r\n\r\n')
        status, *fields = header.decode('latin-1').split('\r\n')
        kind = ''.join(
            field.partition(':')[2] for field in fields if field.lower().startswith('content-type:')
        )
        if ' 200' not in status:
            raise SourceError(
                f'{self._url} answers {status!r}, expected 200; check the path and the password'
            )
        if 'multipart' not in kind.lower():
            raise SourceError(
                f'{self._url} sends {kind.strip()!r}, expected multipart/x-mixed-replace (MJPEG)'
            )
        return rest


def _connect(parts: SplitResult, timeout_s: float) -> socket.socket:
    host, secure = parts.hostname or '', parts.scheme == 'https'
    plain = socket.create_connection((host, parts.port or (443 if secure else 80)), timeout=timeout_s)
    if not secure:
        return plain
    try:
        return ssl.create_default_context().wrap_socket(plain, server_hostname=host)
    except OSError:
        plain.close()
        raise


def _request(parts: SplitResult) -> bytes:
    path = (parts.path or '/') + (f'?{parts.query}' if parts.query else '')
    lines = [
        f'GET {path} HTTP/1.0',
        f'Host: {parts.netloc.rpartition("@")[2]}',
        'Accept: multipart/x-mixed-replace',
    ]
    if parts.username is not None:
        pair = f'{unquote(parts.username)}:{unquote(parts.password or "")}'
        lines.append(f'Authorization: Basic {base64.b64encode(pair.encode()).decode()}')
    return ('\r\n'.join(lines) + '\r\n\r\n').encode()


def _content_length(header: bytes) -> int | None:
    """Return the length that the header in front of a frame gives."""
    lines = header.rpartition(b'--')[2].lower().split(b'\r\n')
    for line in lines:
        name, _, value = line.partition(b':')
        if name.strip() == b'content-length' and value.strip().isdigit():
            return int(value)
    return None
