# SPDX-License-Identifier: Apache-2.0
"""What LeRobot's programs and this graph say to each other: a request, an answer, and so on, over a local socket.

LeRobot runs in a Python and with a numpy of its own, for which ROS's libraries are not built, so its plug-in
(`plugins/lerobot_robot_so101_ros`) is a guest: a client of a Unix socket that nobody but this user may open.

Both say a JSON object, after its length as four bytes, the highest first. Behind an answer come the bytes of the
pictures that it names. One request is under way at a time.

| request | answer |
|---|---|
| `{"ask": "hello", "version": 1, "role": "robot", "units": "degrees"}` | `joints` (names), `cameras`, `drives` |
| `{"ask": "begin"}` | nothing; from here on a stop of the arm is told once, however short it was |
| `{"ask": "observe"}` | `joints` (positions), `pictures` (`camera`, `shape`) and their bytes, RGB |
| `{"ask": "command", "joints": [...]}` | `joints` (what was sent) |
| `{"ask": "target"}` | `joints` (where the joints are sent now) |

Where a request is not carried out, the answer is `{"error": sentence, "kind": kind}`; see `Kind`.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
import json
import os
from pathlib import Path
import socket
import stat
import struct
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

VERSION = 1
MOST_REQUEST = 4096
"""Length of a request [B]."""

STALL_S = 5.0
"""For so long a guest may stop in the middle of a request, or of taking an answer."""

MOST_PATH = 100
"""Length of a socket's path [B], which Linux bounds."""

LARGEST = 1e6
"""No joint value of any unit is larger."""

_HEAD = struct.Struct('>I')
Json: TypeAlias = dict[str, Any]
Pictures: TypeAlias = Mapping[str, npt.NDArray[np.uint8]]


class Kind(StrEnum):
    """Why a request is not carried out."""

    STOPPED = 'stopped'  # the arm has stopped, or is off
    SILENT = 'silent'  # nothing is heard of the arm or of a camera
    REFUSED = 'refused'  # not in this stack, or not now
    WRONG = 'wrong'  # it is no request


class RefusedError(Exception):
    """A request is not carried out; the message is one sentence."""

    def __init__(self, kind: Kind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


def read_request(sock: socket.socket) -> Json | None:
    """Wait for the next request; None where the guest has hung up.

    Raises:
        RefusedError: it is longer than any, or no JSON object.
        OSError: the guest has stopped in the middle of one.
    """
    sock.settimeout(None)
    first = sock.recv(1)
    if not first:
        return None
    sock.settimeout(STALL_S)
    (length,) = _HEAD.unpack(first + _read(sock, _HEAD.size - 1))
    if not 0 < length <= MOST_REQUEST:
        raise RefusedError(Kind.WRONG, f'expected a request of 1 to {MOST_REQUEST} bytes, got {length}')
    text = _read(sock, length)
    try:
        request = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RefusedError(Kind.WRONG, f'expected a request in JSON, got {text[:40]!r}') from error
    if not isinstance(request, dict):
        raise RefusedError(Kind.WRONG, f'expected a request as a JSON object, got {text[:40]!r}')
    return request


def write_answer(sock: socket.socket, answer: Json, pictures: Pictures) -> None:
    """Send an answer with its pictures.

    Raises:
        OSError: the guest is gone, or does not take it.
    """
    if pictures:
        named = [{'camera': name, 'shape': list(pixels.shape)} for name, pixels in pictures.items()]
        answer = {**answer, 'pictures': named}
    text = json.dumps(answer).encode()
    sock.settimeout(STALL_S)
    sock.sendall(_HEAD.pack(len(text)) + text)
    for pixels in pictures.values():
        sock.sendall(np.ascontiguousarray(pixels).data)


def joints_of(request: Json, count: int) -> npt.NDArray[np.float64]:
    """Return the joint values of a request.

    Raises:
        RefusedError: they are not so many finite numbers.
    """
    values = request.get('joints')
    given = values if isinstance(values, list) else []
    numbers = [value for value in given if type(value) in (int, float) and abs(value) < LARGEST]
    if not len(numbers) == len(given) == count:
        raise RefusedError(Kind.WRONG, f'expected {count} finite joint values, got {str(values)[:120]}')
    return np.array(numbers, dtype=np.float64)


def default_path(domain: int, namespace: str, uid: int | None = None) -> Path:
    """Return where the socket of a namespace of a ROS domain is; the plug-in reckons the same."""
    words: Sequence[str] = ('lerobot', str(domain), *filter(None, namespace.split('/')))
    return Path(f'/tmp/so101-{os.getuid() if uid is None else uid}', '-'.join(words) + '.sock')


def prepare(path: Path) -> None:
    """Make the folder of a socket, for this user alone, and take away what an earlier process has left there.

    Raises:
        OSError: the folder belongs to somebody else or lets others in, or the path is too long or no socket.
    """
    if len(os.fsencode(path)) > MOST_PATH:
        raise OSError(f'expected a path of at most {MOST_PATH} bytes for a socket, got {path}')
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = path.parent.lstat()
    if not stat.S_ISDIR(folder.st_mode) or folder.st_uid != os.getuid() or folder.st_mode & 0o022:
        raise OSError(f'expected {path.parent} to be a folder that only this user writes, it is not')
    if path.is_socket():
        path.unlink()
    elif path.exists():
        raise OSError(f'expected a socket or nothing at {path}, which is a file; name another place')


def _read(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise ConnectionError('the guest has hung up in the middle of a request')
        data += part
    return bytes(data)
