# SPDX-License-Identifier: Apache-2.0
"""The other end of lerobot_node's socket: a request, an answer, and what comes with it. No LeRobot, no ROS.

A message is a JSON object after its length as four bytes, the highest first; behind an answer come the bytes of the
pictures that it names. What comes is bounded before it is believed.
"""

from collections.abc import Mapping
import json
import math
import os
import socket
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

VERSION = 1
MOST_ANSWER = 1 << 16
"""Length of an answer without its pictures [B]."""

MOST_PICTURE = 1 << 26
MOST_CAMERAS = 8
TIMEOUT_S = 30.0
"""lerobot_node answers after `patience_s` at the latest; so late it has gone, or the machine stands still."""

_HEAD = struct.Struct('>I')

Pictures = dict[str, npt.NDArray[np.uint8]]


class BridgeError(RuntimeError):
    """The arm cannot be seen or moved now; the message says why."""


class ArmStoppedError(BridgeError):
    """The arm has stopped: an e-stop, a fault, a motor without power, a driver that has ended."""


def default_path(namespace: str = '', environ: Mapping[str, str] = os.environ) -> str:
    """Return where lerobot_node has its socket, for a namespace of the ROS domain that the environment names."""
    domain = environ.get('ROS_DOMAIN_ID', '')
    words = ['lerobot', domain if domain.isdecimal() else '0', *filter(None, namespace.split('/'))]
    return f'/tmp/so101-{os.getuid()}/{"-".join(words)}.sock'


class Bridge:
    """A connection to lerobot_node.

    Args:
        path: of its socket.
        role: `robot` or `teleoperator`.
        units: of joint positions, `degrees` or `range`.

    Attributes:
        joints: names of the joints, in the order of every list of values.
        cameras: shape (height, width, 3) of the pictures of each camera.
    """

    def __init__(self, path: str, role: str, units: str) -> None:
        self._path, self._role, self._units = path, role, units
        self._socket: socket.socket | None = None
        self.joints: tuple[str, ...] = ()
        self.cameras: dict[str, tuple[int, int, int]] = {}

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._socket is not None

    def open(self) -> None:
        """Connect, unless that is done, and learn what arm it is.

        Raises:
            BridgeError: nobody is there, or it is another version.
        """
        if self.is_open:
            return
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(TIMEOUT_S)
        try:
            made.connect(self._path)
        except OSError as error:
            made.close()
            raise BridgeError(
                f'expected lerobot_node at {self._path}, found nobody ({error.strerror}); start the arm first: ./so101 '
                'up --stack lerobot, or ./so101 up lerobot:=true, in the same ROS_DOMAIN_ID'
            ) from error
        self._socket = made
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up; the arm holds still."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def begin(self) -> None:
        """See whether the arm can move; from here on each stop of it is told.

        Raises:
            BridgeError: it cannot.
        """
        self._ask({'ask': 'begin'})

    def observe(self) -> tuple[list[float], Pictures]:
        """Return the newest joint positions and pictures.

        Raises:
            BridgeError: there is nothing new, or the arm has stopped.
        """
        return self._ask({'ask': 'observe'})

    def target(self) -> list[float]:
        """Return where the joints are sent now.

        Raises:
            BridgeError: the arm has stopped.
        """
        return self._ask({'ask': 'target'})[0]

    def command(self, joints: list[float]) -> list[float]:
        """Send the joints somewhere, and return what was sent.

        Raises:
            BridgeError: it is not sent, or the arm has stopped.
        """
        if not all(math.isfinite(value) for value in joints):
            raise BridgeError(f'expected finite joint positions, got {joints}; the arm holds still')
        return self._ask({'ask': 'command', 'joints': joints})[0]

    def _greet(self) -> None:
        self._send({'ask': 'hello', 'version': VERSION, 'role': self._role, 'units': self._units})
        hello = self._receive()
        names, cameras = hello.get('joints'), hello.get('cameras')
        if not (
            isinstance(names, list) and all(isinstance(n, str) for n in names) and isinstance(cameras, dict)
        ):
            raise BridgeError(
                f'expected the joints and cameras of an arm at {self._path}, got {str(hello)[:200]}'
            )
        self.joints = tuple(names)
        self.cameras = {name: _shape(shape) for name, shape in cameras.items()}

    def _ask(self, request: dict[str, Any]) -> tuple[list[float], Pictures]:
        self._send(request)
        answer = self._receive()
        named = answer.get('pictures', [])
        if not isinstance(named, list) or len(named) > MOST_CAMERAS:
            raise BridgeError(f'expected pictures of at most {MOST_CAMERAS} cameras, got {str(named)[:200]}')
        pictures = {str(one.get('camera')): self._picture(_shape(one.get('shape'))) for one in named}
        joints = answer.get('joints', [])
        if not isinstance(joints, list) or not all(isinstance(value, float | int) for value in joints):
            raise BridgeError(f'expected joint positions, got {str(joints)[:200]}')
        return [float(value) for value in joints], pictures

    def _send(self, request: dict[str, Any]) -> None:
        if self._socket is None:
            raise BridgeError('expected a connection to lerobot_node, there is none; connect first')
        text = json.dumps(request).encode()
        try:
            self._socket.sendall(_HEAD.pack(len(text)) + text)
        except OSError as error:
            self._lose(error)

    def _receive(self) -> dict[str, Any]:
        (length,) = _HEAD.unpack(self._read(_HEAD.size))
        if not 0 < length <= MOST_ANSWER:
            self._lose(f'an answer of {length} bytes')
        answer = json.loads(self._read(length))
        if not isinstance(answer, dict):
            raise BridgeError(f'expected an answer of lerobot_node, got {str(answer)[:200]}')
        if 'error' in answer:
            kind = ArmStoppedError if answer.get('kind') in ('stopped', 'silent') else BridgeError
            raise kind(str(answer['error']))
        return answer

    def _picture(self, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self._read(math.prod(shape)), dtype=np.uint8).reshape(shape)

    def _read(self, count: int) -> bytearray:
        data = bytearray(count)
        view, got = memoryview(data), 0
        while got < count:
            try:
                part = self._socket.recv_into(view[got:]) if self._socket is not None else 0
            except OSError as error:
                self._lose(error)
            if not part:
                self._lose('it has hung up')
            got += part
        return data

    def _lose(self, why: object) -> None:
        self.close()
        raise ArmStoppedError(f'lerobot_node at {self._path} is gone ({why}), and the arm holds still')


def _shape(shape: object) -> tuple[int, int, int]:
    good = isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and n > 0 for n in shape)
    if not good or math.prod(shape) > MOST_PICTURE:
        raise BridgeError(f'expected height, width and channels of a picture, got {str(shape)[:80]}')
    height, width, channels = shape
    return height, width, channels
