# SPDX-License-Identifier: Apache-2.0
"""An append-only log of checked records in numbered files, which a killed writer cannot damage.

A record is in the log once `append` returns: the bytes are with the operating system then, so that killing
the process loses nothing, and with the disk after `sync`, so that a power cut loses nothing before it. A
writer never touches what an earlier one wrote; it begins a new file, and files are numbered without gaps. A reader
skips an unfinished record at the end of a file, and what follows a damaged one there, and says so; it also says which
files are missing. What is unfinished in the newest file may still be written, so `finish` says that, and whether the
newest ones are missing: a file beside them has the number of the last that was begun.

File: 8 bytes magic, then records of length (uint32), kind (uint8), CRC-32 of kind and payload (uint32), payload.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
import logging
import os
from pathlib import Path
import struct
from typing import BinaryIO
import zlib

from hilserl_learner.errors import SegmentError
from so101_interfaces_py.files import open_file, read_file

MAGIC = b'SO101SG1'
SUFFIX = '.seg'
NEWEST = 'newest'
DIGITS = 6
SEGMENT_BYTES = 64 * 2**20
MAX_RECORD_BYTES = 2**30

_HEADER = struct.Struct('<IBI')
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place between two records: number of the file, and offset in it [B]."""

    segment: int
    offset: int


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record as it lies in the log.

    Attributes:
        kind: what the payload is.
        payload: its bytes.
        segment: number of the file that it is in.
    """

    kind: int
    payload: bytes
    segment: int


def segment_path(directory: Path, number: int) -> Path:
    """Return where the file of that number lies."""
    return directory / f'{number:0{DIGITS}d}{SUFFIX}'


def segment_numbers(directory: Path) -> list[int]:
    """Return the numbers of the files that exist, in order."""
    return sorted(int(path.stem) for path in directory.glob(f'*{SUFFIX}') if path.stem.isdigit())


def newest_begun(directory: Path) -> int:
    """Return the number of the last file that was begun; -1 where that is not known, as in logs that are older."""
    try:
        text = read_file(directory / NEWEST, most=20).decode()
    except (OSError, ValueError):
        return -1
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= DIGITS else -1


def peek(directory: Path, kind: int, most: int) -> Iterator[bytes]:
    """Yield how the records of one kind begin, without reading or checking the others."""
    for number in segment_numbers(directory):
        with _open(segment_path(directory, number)) as file:
            at, end = len(MAGIC), file.seek(0, os.SEEK_END)
            while at + _HEADER.size <= end:
                file.seek(at)
                length, found, _ = _HEADER.unpack(file.read(_HEADER.size))
                at += _HEADER.size + length
                if found == kind and at <= end:
                    yield file.read(min(length, most))


class SegmentWriter:
    """Appends records; one writer per directory at a time."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Begin a new file after those that exist; it is made with the first record."""
        self.directory = directory
        self._limit = segment_bytes
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(directory, error) from error
        # After those that are lost too, so that a reader can tell.
        self._number = max([newest_begun(directory), *segment_numbers(directory)]) + 1
        self._file: int | None = None
        self._offset = 0
        self._dirty = False

    @property
    def position(self) -> Position:
        """Where the next record goes."""
        return Position(self._number, self._offset)

    @property
    def full(self) -> bool:
        """Whether it is time to begin a new file, with `roll`."""
        return self._offset >= self._limit

    def append(self, kind: int, payload: bytes) -> None:
        """Write one record, all of it or nothing.

        Raises:
            SegmentError: the disk is full or gone; the log is as it was.
        """
        if len(payload) > MAX_RECORD_BYTES:
            raise SegmentError(
                f'expected a record of {MAX_RECORD_BYTES} bytes at most, got {len(payload)}; split it'
            )
        file = self._begin() if self._file is None else self._file
        header = _HEADER.pack(len(payload), kind, _checksum(kind, payload))
        try:
            written = os.writev(file, [header, payload])
            while written < len(header) + len(payload):  # a nearly full disk writes a part first, then fails
                written += os.write(file, (header + payload)[written:])
        except OSError as error:
            os.ftruncate(file, self._offset)
            os.lseek(file, self._offset, os.SEEK_SET)
            raise _cannot_write(segment_path(self.directory, self._number), error) from error
        self._offset += written
        self._dirty = True

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        if self._file is not None and self._dirty:
            try:
                os.fdatasync(self._file)
            except OSError as error:
                raise _cannot_write(segment_path(self.directory, self._number), error) from error
            self._dirty = False

    def close(self) -> None:
        """Bring everything to the disk and close the file; safe to call twice."""
        self.roll()

    def roll(self) -> None:
        """Close the present file; the next record begins a new one."""
        if self._file is not None:
            try:
                self.sync()
            finally:
                os.close(self._file)
                self._file = None
                self._number += 1
                self._offset = 0

    def _begin(self) -> int:
        """Make the next file."""
        path = segment_path(self.directory, self._number)
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                os.write(file, MAGIC)
            except OSError:
                os.close(file)
                path.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise _cannot_write(path, error) from error
        self._file, self._offset = file, len(MAGIC)
        self._note()
        return file

    def _note(self) -> None:
        """Write down which file is the newest; a log without that is as good, but cannot miss it."""
        aside = self.directory / f'.{NEWEST}'
        with suppress(OSError):
            aside.write_text(str(self._number))
            aside.replace(self.directory / NEWEST)


class SegmentReader:
    """Reads records in order, also while they are being written."""

    def __init__(self, directory: Path, start: Position | None = None) -> None:
        self.directory = directory
        self.position = start or Position(0, 0)
        self.damaged: list[str] = []
        """One sentence per file in which something was skipped, or that is missing."""

    def poll(self) -> Iterator[RawRecord]:
        """Yield the records that are complete and were not yet read."""
        while True:
            numbers = [n for n in segment_numbers(self.directory) if n >= self.position.segment]
            if not numbers:
                return
            if numbers[0] != self.position.segment:
                self._miss(self.position.segment, numbers[0] - 1)
                self.position = Position(numbers[0], 0)
            # Listed before it is read: what is incomplete in a file that has a successor stays incomplete.
            last = len(numbers) == 1
            yield from self._read(numbers[0], last)
            if last:
                return
            self.position = Position(numbers[0] + 1, 0)

    def finish(self) -> None:
        """Say what is left over behind the last complete record, where nobody writes any more."""
        path = segment_path(self.directory, self.position.segment)
        if path.is_file() and path.stat().st_size > self.position.offset:
            self._skip(path, self.position.offset, 'its last record is unfinished')
        last = max(segment_numbers(self.directory), default=-1)
        newest = newest_begun(self.directory)
        if newest > last:
            self._miss(last + 1, newest)

    def _read(self, number: int, last: bool) -> Iterator[RawRecord]:
        path = segment_path(self.directory, number)
        with _open(path) as file:
            offset = self.position.offset
            if offset == 0:
                magic = file.read(len(MAGIC))
                if magic != MAGIC:
                    if len(magic) == len(MAGIC) or not last:
                        self._skip(path, 0, 'it does not begin like a segment')
                        self.position = Position(number, path.stat().st_size)
                    return
                offset = len(MAGIC)
                self.position = Position(number, offset)
            file.seek(offset)
            while True:
                header = file.read(_HEADER.size)
                if len(header) < _HEADER.size:
                    if header and not last:
                        self._skip(path, offset, 'its last record is unfinished')
                    return
                length, kind, checksum = _HEADER.unpack(header)
                payload = file.read(length) if length <= MAX_RECORD_BYTES else b''
                if len(payload) < length and not last:
                    self._skip(path, offset, 'its last record is unfinished')
                    return
                if len(payload) < length <= MAX_RECORD_BYTES:
                    return
                if _checksum(kind, payload) != checksum:
                    self._skip(path, offset, 'a checksum is wrong')
                    self.position = Position(number, path.stat().st_size)
                    return
                offset += _HEADER.size + length
                self.position = Position(number, offset)
                yield RawRecord(kind, payload, number)

    def _skip(self, path: Path, offset: int, why: str) -> None:
        lost = path.stat().st_size - offset
        self._say(f'{path} is read up to byte {offset} only, {lost} bytes are lost: {why}.')

    def _miss(self, first: int, last: int) -> None:
        names = ' to '.join(sorted({segment_path(self.directory, number).name for number in (first, last)}))
        self._say(f'{self.directory} lacks {names}: what was in there is lost.')

    def _say(self, sentence: str) -> None:
        _log.warning('%s', sentence)
        self.damaged.append(sentence)


def _open(path: Path) -> BinaryIO:
    try:
        return open_file(path)
    except OSError as error:
        raise SegmentError(
            f'expected to read {path}, got "{error.strerror}"; restore the file, or leave its part of the buffer out'
        ) from error


def _checksum(kind: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(bytes([kind])))


def _cannot_write(path: Path, error: OSError) -> SegmentError:
    return SegmentError(
        f'expected to write {path}, got "{error.strerror}"; free space there or choose another directory'
    )
