# SPDX-License-Identifier: Apache-2.0
"""The serial port of the arm: bytes out, bytes in, and the answers that lie in them.

`ArmPort` is a `scservo_sdk.PortHandler`, opened for one owner and made to wait without spinning; what the SDK's own
port gets wrong (shared opening, stale input, wall clock, busy waiting) is replaced here. `AnswerCollector` finds the
answers to one request of several servos in what comes, `AnswerTimer` learns how long they take.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
import contextlib
from dataclasses import dataclass, field
import errno
import fcntl
import glob
import os
import select
import termios
import time

from scservo_sdk import PortHandler
import serial

from so101_driver.bus.errors import PortError
from so101_driver.bus.protocol import Frame, frame_at, HEADER, OVERHEAD, wire_time_s
from so101_driver.bus.registers import BAUD_RATES

_READ_CHUNK = 4096
_WRITE_TIMEOUT_S = 0.5
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


class ArmPort(PortHandler):  # type: ignore[misc]  # the SDK carries no types
    """One serial port with one owner.

    Args:
        name: path of the device; a link that udev keeps is best.
        baud_rate: [bit/s].
        answer_margin_s: time that the SDK's packet handler waits for an answer beyond its time on the wire
        [s].
    """

    def __init__(self, name: str, baud_rate: int, answer_margin_s: float = 0.02) -> None:
        super().__init__(name)
        self.baudrate = baud_rate
        self.answer_margin_s = answer_margin_s
        self._fd = -1
        self._poll = select.poll()

    # ---- opening and closing ----

    def open(self) -> None:
        """Open the port for this process alone.

        Raises:
            PortError: the port is missing, taken or not permitted, or the baud rate is unknown.
        """
        try:
            opened = self.openPort()
        except (OSError, ValueError, termios.error) as error:  # a SerialException is an OSError
            raise PortError(self._why_not(error)) from error
        if not opened:
            raise PortError(
                f'A servo knows the baud rates {", ".join(map(str, BAUD_RATES.values()))}, got '
                f'{self.baudrate}; the factory setting is 1000000.'
            )

    def getCFlagBaud(self, baudrate: int) -> int:  # noqa: N802
        """The rate itself where a servo knows it, else -1; the SDK's own list lacks 76800."""
        return baudrate if baudrate in BAUD_RATES.values() else -1

    def setupPort(self, cflag_baud: int) -> bool:  # noqa: N802  (the SDK's name)
        """Open or open again at the given baud rate; called by the SDK's `openPort` and `setBaudRate`."""
        self.closePort()
        port = serial.Serial(
            self.port_name, cflag_baud, timeout=0, write_timeout=_WRITE_TIMEOUT_S, exclusive=True
        )
        try:
            # flock, taken by `exclusive`, binds programs that ask for it; this binds all others. The flag
            # outlives its owner on a pseudo-terminal, which therefore goes without.
            if not os.ttyname(port.fileno()).startswith('/dev/pts/'):
                fcntl.ioctl(port.fileno(), termios.TIOCEXCL)
            with contextlib.suppress(OSError, ValueError, NotImplementedError):
                port.set_low_latency_mode(True)
            port.reset_input_buffer()
        except BaseException:
            port.close()
            raise
        self.ser = port
        self._fd = port.fileno()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self.tx_time_per_byte = wire_time_s(1, cflag_baud) * 1000.0
        self.is_open = True
        self.is_using = False
        return True

    def closePort(self) -> None:  # noqa: N802
        """Close the port; does nothing when it is closed."""
        port, self.ser = self.ser, None
        self._fd = -1
        self.is_open = False
        self.is_using = False
        if port is not None:
            with contextlib.suppress(OSError):
                port.close()

    # ---- the control loop ----

    def send(self, data: bytes) -> None:
        """Write all of `data`.

        Raises:
            PortError: the port is closed, gone or does not take the bytes in time.
        """
        deadline = time.monotonic() + _WRITE_TIMEOUT_S
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._open_fd(), view) :]
            except BlockingIOError:
                writable = select.select([], [self._fd], [], max(0.0, deadline - time.monotonic()))[1]
                if not writable:
                    raise PortError(
                        f'{self.port_name} takes no bytes; unplug the adapter and plug it in again.'
                    ) from None
            except OSError as error:
                raise self._lost(error) from error

    def receive(self, deadline_s: float) -> bytes:
        """Bytes that are there, waiting for the first until the deadline; empty when it passes.

        Args:
            deadline_s: time on the monotonic clock [s].

        Raises:
            PortError: the port is closed or gone.
        """
        return self._read(_READ_CHUNK, (deadline_s - time.monotonic()) * 1000.0)

    def discard_input(self) -> int:
        """Throw away everything that has come so far; returns the number of bytes.

        Raises:
            PortError: the port is closed or gone.
        """
        count = 0
        while data := self.receive(0.0):
            count += len(data)
        return count

    def drain_until(self, deadline_s: float) -> None:
        """Throw away everything that comes until the deadline [s, monotonic]."""
        while time.monotonic() < deadline_s:
            self.receive(deadline_s)

    def flush_output(self) -> None:
        """Wait until everything that was sent is on the wire."""
        with contextlib.suppress(termios.error, OSError):
            termios.tcdrain(self._open_fd())

    # ---- what the SDK's packet handler calls ----

    def clearPort(self) -> None:  # noqa: N802
        """Discard stale input; the SDK's own waits for the output instead."""
        self.discard_input()

    def writePort(self, packet: list[int]) -> int:  # noqa: N802
        """Send; returns the number of bytes."""
        self.send(bytes(packet))
        return len(packet)

    def readPort(self, length: int) -> bytes:  # noqa: N802
        """At most `length` bytes, waiting for the first, until the packet's time-out, without spinning."""
        remaining_ms = self.packet_start_time + self.packet_timeout - self.getCurrentTime()
        return self._read(length, remaining_ms) if length > 0 else b''

    def setPacketTimeout(self, packet_length: int) -> None:  # noqa: N802
        """Start the time-out of an answer of `packet_length` bytes."""
        self.setPacketTimeoutMillis(self.tx_time_per_byte * packet_length + self.answer_margin_s * 1000.0)

    def getCurrentTime(self) -> float:  # noqa: N802
        """Time on the monotonic clock [ms]; the SDK's own follows steps of the wall clock."""
        return time.monotonic() * 1000.0

    # ---- errors ----

    def _read(self, count: int, timeout_ms: float) -> bytes:
        fd = self._open_fd()
        try:
            ready = self._poll.poll(max(0.0, timeout_ms))
            if not ready:
                return b''
            if ready[0][1] & _GONE:
                raise OSError(errno.EIO, 'the line was hung up')
            return os.read(fd, count)
        except BlockingIOError:
            return b''
        except OSError as error:
            raise self._lost(error) from error

    def _open_fd(self) -> int:
        if self._fd < 0:
            raise PortError(
                f'{self.port_name} is not open; call open(), or reconnect() after it was unplugged.'
            )
        return self._fd

    def _lost(self, error: OSError) -> PortError:
        self.closePort()
        return PortError(
            f'{self.port_name} is gone ({error.strerror or error}); is the USB cable plugged in?'
        )

    def _why_not(self, error: Exception) -> str:
        found = sorted(
            glob.glob('/dev/serial/by-id/*') + glob.glob('/dev/ttyACM*') + glob.glob('/dev/ttyUSB*')
        )
        number = getattr(error, 'errno', None)
        if not os.path.exists(self.port_name):
            return f'{self.port_name} does not exist; serial ports here: {", ".join(found) or "none"}.'
        if number in {errno.EAGAIN, errno.EBUSY}:
            return f'{self.port_name} is used by another program; `fuser {self.port_name}` says which.'
        if number in {errno.EACCES, errno.EPERM}:
            return (
                f'{self.port_name} is not yours to open; add your user to the group dialout and log in again.'
            )
        return f'{self.port_name} cannot be opened as a serial port: {error}.'


_HIGHEST_ERROR = 0x7F  # bit 7 of the error byte is never set


@dataclass
class Answers:
    """What came after one request.

    Attributes:
        good: servo id -> (error byte, payload).
        late: whole answers to some other request.
        damaged: estimated number of answers whose bytes are broken.
        broken: servos whose answer came broken, as far as its first bytes say so; none of theirs can come
        late.
    """

    good: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    late: int = 0
    damaged: int = 0
    broken: set[int] = field(default_factory=set)


class AnswerCollector:
    """Takes the bytes after one request in pieces, resynchronises on noise, and says when enough has come.

    Args:
        ids: the servos that were asked, in this order.
        size: number of bytes that were asked for.
        known_ids: all servos whose answers can turn up; those that were asked by default.
    """

    def __init__(self, ids: Sequence[int], size: int, known_ids: Collection[int] | None = None) -> None:
        self._ids = ids
        self._known_ids = ids if known_ids is None else known_ids
        self._size = size
        self._step = size + OVERHEAD
        self._total = self._step * len(ids)
        self._last_header = HEADER + bytes((ids[-1], size + 2))
        self._buffer = bytearray()
        self._answers: Answers | None = None

    def feed(self, data: bytes) -> bool:
        """Take bytes; True when no further answer is due.

        Servos answer in the order in which they were asked, so the answer of the last one is the end, whether
        or not the others came.
        """
        self._buffer += data
        if len(self._buffer) < self._step:
            return False
        if len(self._buffer) == self._total:
            self._answers = self._all_in_place()
            if self._answers is not None:
                return True
        start = self._buffer.rfind(self._last_header)
        if start < 0 or len(self._buffer) - start < self._step:
            return False
        return self._ids[-1] in self._sort().good

    @property
    def enough_bytes(self) -> bool:
        """Whether as many bytes came as all answers have, or the last answer has begun.

        After that only the rest of a begun answer can follow, so that a short wait is enough.
        """
        return len(self._buffer) >= self._total or self._last_header in self._buffer

    def result(self) -> Answers:
        """What came so far, sorted."""
        return self._answers if self._answers is not None else self._sort()

    def _all_in_place(self) -> Answers | None:
        """The usual case: every answer, whole, in order, and nothing else; None in any other case."""
        buffer, step, good = self._buffer, self._step, {}
        start = 0
        for servo_id in self._ids:
            end = start + step
            if (
                buffer[start] != 0xFF
                or buffer[start + 1] != 0xFF
                or buffer[start + 2] != servo_id
                or buffer[start + 3] != self._size + 2
                or buffer[start + 4] > _HIGHEST_ERROR
                or sum(buffer[start + 2 : end]) & 0xFF != 0xFF
            ):
                return None
            good[servo_id] = (buffer[start + 4], bytes(buffer[start + 5 : end - 1]))
            start = end
        return Answers(good)

    def _sort(self) -> Answers:
        answers = Answers()
        position = 0
        for start, frame in self._candidates():
            self._sort_rest(answers, self._buffer[position:start])
            if frame.servo_id in answers.good:
                answers.late += 1  # answers come in the order of the requests: the last one is the fresh one
            answers.good[frame.servo_id] = (frame.code, frame.payload)
            position = start + self._step
        self._sort_rest(answers, self._buffer[position:])
        return answers

    def _candidates(self) -> list[tuple[int, Frame]]:
        """Every place at which an answer of the right servo, size and checksum lies, and nothing else."""
        found = []
        start = self._buffer.find(HEADER)
        while start >= 0:
            frame = frame_at(self._buffer, start)
            if isinstance(frame, Frame) and self._fits(frame) and not self._swallowed_another(start):
                found.append((start, frame))
                start += self._step - 1
            start = self._buffer.find(HEADER, start + 1)
        return found

    def _fits(self, frame: Frame) -> bool:
        return (
            frame.servo_id in self._ids and len(frame.payload) == self._size and frame.code <= _HIGHEST_ERROR
        )

    def _swallowed_another(self, start: int) -> bool:
        """Whether another answer begins before this one ends.

        An answer that lost bytes takes the first ones of the next for its own, and in one of 256 cases its
        checksum fits all the same.
        """
        end = start + self._step
        inside = self._buffer.find(HEADER, start + 2, end + 1)
        while inside >= 0:
            if inside + 2 < len(self._buffer) and self._buffer[inside + 2] in self._known_ids:
                return True
            inside = self._buffer.find(HEADER, inside + 1, end + 1)
        return False

    def _sort_rest(self, answers: Answers, rest: bytes | bytearray) -> None:
        """Count what lies between good answers: whole frames are late, other bytes are damaged answers."""
        position = broken = 0
        while position < len(rest):
            headed = rest.startswith(HEADER, position)
            frame = frame_at(rest, position) if headed else None
            if isinstance(frame, Frame):
                answers.late += 1
                position += len(frame.payload) + OVERHEAD
            else:
                if headed and rest[position + 3 : position + 4] == bytes((self._size + 2,)):
                    answers.broken.add(rest[position + 2])
                broken += 1
                position += 1
        answers.damaged += -(-broken // self._step)


class AnswerTimer:
    """How long to wait for answers, learnt from how long they usually take.

    A fixed time-out is either too short for a slow USB adapter or wastes a control period on every lost
    packet. This is the estimate of TCP: the mean of what an answer takes beyond its time on the wire, and
    four times its deviation.

    Args:
        floor_s: shortest wait beyond the time on the wire [s].
        ceiling_s: longest wait beyond the time on the wire [s].
    """

    _GAIN = 0.125
    _DEVIATION_GAIN = 0.25
    _PATIENCE = 3  # unfinished answers in a row after which the line counts as having become slower

    def __init__(self, floor_s: float, ceiling_s: float) -> None:
        self._ceiling_s = ceiling_s
        self._floor_s = floor_s
        self._mean_s = ceiling_s
        self._deviation_s = 0.0
        self._learnt = False
        self._unfinished = 0

    def timeout_s(self, wire_s: float) -> float:
        """Time to wait for answers that need `wire_s` on the wire [s]."""
        margin = max(self._floor_s, self._mean_s + 4.0 * self._deviation_s)
        margin *= 2.0 ** max(0, min(10, self._unfinished - self._PATIENCE))
        return wire_s + min(margin, self._ceiling_s)

    def finished(self, extra_s: float) -> None:
        """The last answer came, `extra_s` later than the time of all on the wire [s]."""
        self._unfinished = 0
        if not self._learnt:
            self._learnt = True
            self._mean_s, self._deviation_s = extra_s, extra_s / 2.0
            return
        self._deviation_s += self._DEVIATION_GAIN * (abs(extra_s - self._mean_s) - self._deviation_s)
        self._mean_s += self._GAIN * (extra_s - self._mean_s)

    def unfinished(self) -> None:
        """The last answer did not come."""
        self._unfinished += 1
