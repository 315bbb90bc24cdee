# SPDX-License-Identifier: Apache-2.0
"""Frames of the Feetech bus: bytes to packets and back, without any input or output.

Requests and answers have one shape::

    FF FF | id | length | instruction or error byte | parameters | checksum

`length` counts what follows it; the checksum is the inverted sum of everything between the header and itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Final, Literal, NamedTuple

from scservo_sdk import scservo_def

from so101_driver.bus.errors import ChecksumError, CorruptAnswer
from so101_driver.bus.registers import BROADCAST_ID

HEADER: Final = b'\xff\xff'
OVERHEAD: Final = 6  # bytes of a frame that are not parameters
MAX_FRAME: Final = 250
MAX_PAYLOAD: Final = MAX_FRAME - OVERHEAD
BITS_PER_BYTE: Final = 10  # one start bit, eight data bits, one stop bit


class Instruction(IntEnum):
    """What a request asks for."""

    PING = scservo_def.INST_PING
    READ = scservo_def.INST_READ
    WRITE = scservo_def.INST_WRITE
    REG_WRITE = scservo_def.INST_REG_WRITE
    ACTION = scservo_def.INST_ACTION
    SYNC_READ = scservo_def.INST_SYNC_READ
    SYNC_WRITE = scservo_def.INST_SYNC_WRITE


class Frame(NamedTuple):
    """A whole frame.

    Attributes:
        servo_id: whom it is for, or who answers.
        code: the instruction of a request, the error byte of an answer.
        payload: the parameters.
    """

    servo_id: int
    code: int
    payload: bytes


def build(servo_id: int, code: int, payload: bytes = b'') -> bytes:
    """Bytes of a frame.

    Raises:
        ValueError: the id, the code or the number of parameters does not fit a frame.
    """
    if not 0 <= servo_id <= BROADCAST_ID:
        raise ValueError(f'A servo id is 0..253, or {BROADCAST_ID} for all; got {servo_id}.')
    if not 0 <= code <= 0xFF:
        raise ValueError(f'An instruction or error byte is 0..255, got {code}.')
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(
            f'A frame carries at most {MAX_PAYLOAD} parameters, got {len(payload)}; send several.'
        )
    body = bytes((servo_id, len(payload) + 2, code)) + payload
    return HEADER + body + bytes((checksum(body),))


def checksum(body: bytes) -> int:
    """Checksum of everything between the header and the checksum."""
    return ~sum(body) & 0xFF


def parse(data: bytes) -> Frame:
    """The one frame that `data` holds.

    Raises:
        ChecksumError: the checksum is wrong.
        CorruptAnswer: anything else is not as a frame should be.
    """
    if len(data) < OVERHEAD:
        raise CorruptAnswer(f'a frame has at least {OVERHEAD} bytes, got {len(data)}')
    if data[:2] != HEADER:
        raise CorruptAnswer(f'a frame begins with FF FF, got {data[:2].hex(" ").upper()}')
    if data[2] > BROADCAST_ID:
        raise CorruptAnswer(f'an id is at most {BROADCAST_ID}, got {data[2]}')
    if data[3] != len(data) - 4:
        raise CorruptAnswer(f'the length byte says {data[3]}, {len(data) - 4} bytes follow it', data[2])
    expected = checksum(data[2:-1])
    if data[-1] != expected:
        raise ChecksumError(expected, data[-1], data[2])
    return Frame(data[2], data[4], bytes(data[5:-1]))


def ping(servo_id: int) -> bytes:
    """Request for a sign of life."""
    return build(servo_id, Instruction.PING)


def read(servo_id: int, address: int, size: int) -> bytes:
    """Request for `size` bytes from `address` on."""
    return build(servo_id, Instruction.READ, bytes((address, size)))


def write(servo_id: int, address: int, data: bytes) -> bytes:
    """Request to store `data` from `address` on."""
    return build(servo_id, Instruction.WRITE, bytes((address,)) + data)


def reg_write(servo_id: int, address: int, data: bytes) -> bytes:
    """Request to store `data` when the next `action` comes."""
    return build(servo_id, Instruction.REG_WRITE, bytes((address,)) + data)


def action(servo_id: int = BROADCAST_ID) -> bytes:
    """Request to carry out what `reg_write` left."""
    return build(servo_id, Instruction.ACTION)


def sync_read(address: int, size: int, ids: Sequence[int]) -> bytes:
    """Request to several servos for the same registers; they answer in the order of `ids`.

    Raises:
        ValueError: no id, or one id twice.
    """
    if not ids or len(set(ids)) != len(ids):
        raise ValueError(f'A sync read names each servo once, got {list(ids)}.')
    return build(BROADCAST_ID, Instruction.SYNC_READ, bytes((address, size, *ids)))


def sync_write(address: int, rows: Mapping[int, bytes]) -> bytes:
    """Request that stores a row of bytes in each of several servos; none answers.

    Raises:
        ValueError: no rows, or rows of different sizes.
    """
    sizes = {len(row) for row in rows.values()}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f'A sync write has rows of one size, got sizes {sorted(sizes)}.')
    params = bytearray((address, sizes.pop()))
    for servo_id, row in rows.items():
        params.append(servo_id)
        params += row
    return build(BROADCAST_ID, Instruction.SYNC_WRITE, bytes(params))


def wire_time_s(byte_count: int, baud_rate: int) -> float:
    """Time that bytes need on the wire [s]."""
    return byte_count * BITS_PER_BYTE / baud_rate


class FrameStream:
    """Finds frames in a stream of bytes that comes in pieces and may hold noise.

    Attributes:
        skipped: bytes that belong to no frame, so far.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes that may still become a frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Frames that are whole now that `data` has come."""
        buffer = self._buffer
        buffer += data
        frames = []
        position = 0
        while True:
            start = buffer.find(HEADER, position)
            if start < 0:
                keep = 1 if buffer.endswith(b'\xff') and len(buffer) > position else 0
                self.skipped += len(buffer) - keep - position
                position = len(buffer) - keep
                break
            self.skipped += start - position
            position = start
            frame = frame_at(buffer, start)
            if frame is None:
                break
            if isinstance(frame, Frame):
                frames.append(frame)
                position += len(frame.payload) + OVERHEAD
            else:
                self.skipped += 1
                position += 1
        del buffer[:position]
        return frames

    def reset(self) -> None:
        """Forget a frame that was begun: the line has been silent for longer than a frame can pause."""
        self.skipped += len(self._buffer)
        self._buffer.clear()


def frame_at(buffer: bytes | bytearray, start: int) -> Frame | Literal[False] | None:
    """What lies at a header.

    Args:
        buffer: bytes.
        start: where FF FF begins.

    Returns:
        The frame, False when the bytes there are none, None when more bytes are needed to tell.
    """
    if len(buffer) - start < 4:
        return None
    servo_id, length = buffer[start + 2], buffer[start + 3]
    if servo_id > BROADCAST_ID or not 2 <= length <= MAX_FRAME - 4:
        return False
    end = start + length + 4
    if len(buffer) < end:
        return None
    if sum(buffer[start + 2 : end]) & 0xFF != 0xFF:
        return False
    return Frame(servo_id, buffer[start + 4], bytes(buffer[start + 5 : end - 1]))
