# SPDX-License-Identifier: Apache-2.0
"""A gamepad by the Linux joystick interface: eight bytes for each change, nothing to install."""

from collections.abc import Iterable
import fcntl
import logging
import math
import os
from pathlib import Path
import struct

from so101_session.teleop.devices.base import Device, DeviceState, Feedback
from so101_session.teleop.devices.pad import Pad
from so101_session.teleop.devices.pads import changed, find_pad

logger = logging.getLogger(__name__)

EVENT = struct.Struct('<IhBB')
"""struct js_event: time [ms], value, type, number."""

BUTTON, AXIS, INITIAL = 0x01, 0x02, 0x80
FULL_SCALE = 32767
NAME_BYTES = 128
_GET_NAME = 0x80006A13 + (NAME_BYTES << 16)  # JSIOCGNAME
LOOK_PERIOD_S = 0.5
FROZEN_S = 3.0
"""A stick that is held without a single change for this long is that of a pad out of reach [s]."""

FOLDER = Path('/dev/input')
_READ_BYTES = 64 * EVENT.size


class Gamepad(Device):
    """A pad that is plugged in now or later; one that is pulled out is dead until it comes back."""

    def __init__(
        self,
        path: str = '',
        *,
        pad: str = 'auto',
        changes: Iterable[str] = (),
        deadzone: float = 0.15,
        speed: float = 1.0,
        needs_deadman: bool = True,
    ) -> None:
        """Prepare; the pad may be missing yet.

        Args:
            path: of the joystick; the first that is there by default.
            pad: one of `pads.PADS`, or auto.
            changes: see `pads.changed`.
            deadzone: share of a stick's way that counts as rest.
            speed: share of the fastest speed at the end of a stick.
            needs_deadman: nothing moves without the deadman button.
        """
        self._path, self._choice, self._changes = path, pad, tuple(changes)
        _, found = find_pad(pad, '')
        self._pad = Pad(changed(found, self._changes), deadzone, speed, needs_deadman)
        self._handle: int | None = None
        self._rest = b''
        self._look_s = self._heard_s = -math.inf
        self._why = 'no gamepad yet'

    def poll(self, now: float) -> DeviceState:
        """Read what changed."""
        if self._handle is None:
            self._open(now)
        if self._handle is None or not self._read(now):
            return DeviceState(alive=False, note=self._why)
        state = self._pad.state()
        if state.active and now - self._heard_s > FROZEN_S:
            return DeviceState(alive=False, events=state.events, note='the gamepad is frozen; move a stick')
        return state

    def feel(self, feedback: Feedback, now: float) -> None:
        """Nothing: pads do not push back."""

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _open(self, now: float) -> None:
        if now - self._look_s < LOOK_PERIOD_S:
            return
        self._look_s = now
        path = self._path or min(map(str, FOLDER.glob('js*')), default='')
        if not path:
            self._why = f'no gamepad in {FOLDER}; plug one in'
            return
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            self._why = f'the gamepad {path} cannot be opened: {error.strerror}'
            return
        name = _name(self._handle)
        known, found = find_pad(self._choice, name)
        self._pad.map = changed(found, self._changes)
        self._heard_s, self._rest = now, b''
        logger.info('gamepad %s (%s), buttons as %s', path, name or 'without a name', known)

    def _read(self, now: float) -> bool:
        assert self._handle is not None
        try:
            while True:
                data = os.read(self._handle, _READ_BYTES)
                if not data:
                    return self._lost('it was pulled out')
                self._heard_s = now
                self._take(data)
        except BlockingIOError:
            return True
        except OSError as error:
            return self._lost(str(error.strerror))

    def _take(self, data: bytes) -> None:
        data = self._rest + data
        whole = len(data) - len(data) % EVENT.size
        self._rest = data[whole:]
        for _, value, kind, number in EVENT.iter_unpack(data[:whole]):
            initial = bool(kind & INITIAL)
            if kind & BUTTON:
                self._pad.button(number, bool(value), initial=initial)
            elif kind & AXIS:
                self._pad.axis(number, value / FULL_SCALE, initial=initial)

    def _lost(self, why: str) -> bool:
        logger.warning('the gamepad is gone: %s', why)
        self._why = f'the gamepad is gone: {why}'
        self._pad.forget()
        self.close()
        return False


def _name(handle: int) -> str:
    buffer = bytearray(NAME_BYTES)
    try:
        fcntl.ioctl(handle, _GET_NAME, buffer)
    except OSError:
        return ''
    return buffer.split(b'\x00', 1)[0].decode(errors='replace')
