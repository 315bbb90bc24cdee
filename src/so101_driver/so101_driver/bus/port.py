# SPDX-License-Identifier: Apache-2.0
"""The serial port of the arm, and one request at a time on it: everything that is built on the vendor's SDK.

`ArmPort` is a `scservo_sdk.PortHandler`, opened for one owner and made to wait without spinning; what the SDK's own
port gets wrong (shared opening, stale input, wall clock, busy waiting) is replaced here. `SingleTransactions` lets
the SDK's packet handler build and find the frames, and adds what that does not do: it matches an answer by id only,
so the size of every answer is checked too; late answers are waited out after a miss; the error byte is kept and is
not a failure; and an exception leaves nothing latched.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, replace
import errno
import fcntl
import glob
import os
import select
import termios
import time
from typing import Final, NamedTuple

from scservo_sdk import PortHandler, scservo_def
from scservo_sdk.protocol_packet_handler import protocol_packet_handler
import serial

from so101_driver.bus.errors import CorruptAnswer, PortError, ServoTimeout
from so101_driver.bus.protocol import Instruction, OVERHEAD, wire_time_s
from so101_driver.bus.registers import BAUD_RATES, Reg, ServoError

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


@dataclass(frozen=True)
class BusConfig:
    """Times and retries of the bus.

    Attributes:
        min_timeout_s: shortest wait for the answers to one sync read, beyond their time on the wire [s].
        timeout_s: longest such wait [s]; in between, the wait follows what the line usually takes.
        retries: how often missing servos are asked again within one cycle.
        budget_s: no retry begins later than this after the begin of the cycle [s].
        single_timeout_s: wait for the answers to requests outside the control loop [s].
        single_retries: how often such a request is sent again.
        late_window_s: how late an answer can come [s]; older ones are told apart or waited out.
        reconnect_interval_s: `reconnect` tries at most this often [s].
    """

    min_timeout_s: float = 0.002
    timeout_s: float = 0.025
    retries: int = 4
    budget_s: float = 0.007
    single_timeout_s: float = 0.020
    single_retries: int = 5
    late_window_s: float = 0.05
    reconnect_interval_s: float = 0.25

    def __post_init__(self) -> None:
        for name in ('min_timeout_s', 'timeout_s', 'single_timeout_s'):
            if not 0.0 < getattr(self, name) <= 10.0:
                raise ValueError(f'{name} must lie in 0..10 s, got {getattr(self, name)}.')
        for name in ('retries', 'single_retries', 'budget_s', 'late_window_s', 'reconnect_interval_s'):
            if not getattr(self, name) >= 0:
                raise ValueError(f'{name} must not be negative, got {getattr(self, name)}.')
        if self.min_timeout_s > self.timeout_s:
            raise ValueError(
                f'min_timeout_s is at most {self.timeout_s} (timeout_s), got {self.min_timeout_s}.'
            )


@dataclass(slots=True)
class BusCounters:
    """Counts since the bus was made; they survive a reconnect.

    Attributes:
        cycles: reads of the whole arm.
        full_cycles: those in which every servo answered.
        sent: requests sent, retries included.
        received: good answers taken.
        lost: answers that were due and did not come.
        corrupt: answers that came damaged.
        late: whole answers thrown away since they belong to an earlier request.
        retried: requests sent again.
        reconnects: times that the port was opened again after it was lost.
    """

    cycles: int = 0
    full_cycles: int = 0
    sent: int = 0
    received: int = 0
    lost: int = 0
    corrupt: int = 0
    late: int = 0
    retried: int = 0
    reconnects: int = 0

    def snapshot(self) -> BusCounters:
        """A copy that later traffic does not change."""
        return replace(self)

    def as_dict(self) -> dict[str, int]:
        """Name -> count."""
        return asdict(self)


_QUIET_S: Final = 0.003  # a damaged answer is over when the line has been quiet for this long


class _Request(NamedTuple):
    servo_id: int
    instruction: Instruction
    params: bytes
    answer_size: int
    name: str


class LateAnswers:
    """Remembers whose answer is still due, so that it is not taken for the answer to the next request.

    Args:
        window_s: how late an answer can come [s].
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._until_s: dict[int, float] = {}

    def missed(self, servo_id: int) -> None:
        """An answer of this servo did not come."""
        self._until_s[servo_id] = time.monotonic() + self._window_s

    def wait_out(self, port: ArmPort, ids: tuple[int, ...]) -> None:
        """Throw away what comes until no answer of these servos is due any more."""
        port.drain_until(max(self._until_s.pop(servo_id, 0.0) for servo_id in ids))


class SingleTransactions:
    """Requests to one servo at a time, with bounded retries: not for the control loop.

    Attributes:
        errors: faults in the last answer of each servo.
    """

    def __init__(self, port: ArmPort, counters: BusCounters, late: LateAnswers, config: BusConfig) -> None:
        self.errors: dict[int, ServoError] = {}
        self._port = port
        self._counters = counters
        self._late = late
        self._config = config
        self._handler = protocol_packet_handler()

    def ping(self, servo_id: int, *, retries: int | None = None, timeout_s: float | None = None) -> None:
        """Return when the servo answers.

        Raises:
            ServoTimeout: no answer.
            CorruptAnswer: only damaged answers.
            PortError: the port is gone.
        """
        request = _Request(servo_id, Instruction.PING, b'', 0, 'ping')
        self._exchange(request, retries, timeout_s)

    def read(self, servo_id: int, register: Reg) -> bytes:
        """Bytes of a register; raises as `ping`."""
        params = bytes((register.address, register.size))
        return self._exchange(_Request(servo_id, Instruction.READ, params, register.size, register.name))

    def write(self, servo_id: int, register: Reg, data: bytes) -> None:
        """Store the bytes of a register and wait for the acknowledgement; raises as `ping`."""
        params = bytes((register.address,)) + data
        self._exchange(_Request(servo_id, Instruction.WRITE, params, 0, register.name))

    def _exchange(
        self, request: _Request, retries: int | None = None, timeout_s: float | None = None
    ) -> bytes:
        attempts = 1 + (self._config.single_retries if retries is None else retries)
        wait_s = self._config.single_timeout_s if timeout_s is None else timeout_s
        damaged = False
        for attempt in range(attempts):
            self._counters.retried += attempt > 0
            self._late.wait_out(self._port, (request.servo_id,))
            result, answer = self._attempt(request, wait_s)
            if answer is not None:
                self._counters.received += 1
                return answer
            if result == scservo_def.COMM_RX_CORRUPT:
                damaged = True
                self._counters.corrupt += 1
                self._let_pass()
            else:
                self._counters.lost += 1
                self._late.missed(request.servo_id)
        if damaged:
            reason = f'no whole answer for {request.name} in {attempts} attempt(s)'
            raise CorruptAnswer(reason, request.servo_id)
        raise ServoTimeout(request.servo_id, request.name, attempts)

    def _attempt(self, request: _Request, wait_s: float) -> tuple[int, bytes | None]:
        port, handler = self._port, self._handler
        frame = [0] * (OVERHEAD + len(request.params))  # the SDK fills in the header and the checksum
        frame[2:5] = request.servo_id, len(request.params) + 2, request.instruction
        frame[5:-1] = request.params
        self._counters.sent += 1
        try:
            result = handler.txPacket(port, frame)
            if result != scservo_def.COMM_SUCCESS:
                return result, None
            wire_s = wire_time_s(len(frame) + OVERHEAD + request.answer_size, port.baudrate)
            port.setPacketTimeoutMillis(1000.0 * (wire_s + wait_s))
            while True:
                answer, result = handler.rxPacket(port)
                if result != scservo_def.COMM_SUCCESS:
                    return result, None
                if answer[2] == request.servo_id and answer[3] == request.answer_size + 2:
                    self.errors[request.servo_id] = ServoError(answer[4])
                    return result, bytes(answer[5:-1])
                self._counters.late += 1
        except BaseException:
            self._late.missed(request.servo_id)  # an interrupt leaves an answer on the way
            raise
        finally:
            port.is_using = False  # the SDK leaves it set when an exception passes through

    def _let_pass(self) -> None:
        """Throw away the rest of a damaged answer."""
        deadline = time.monotonic() + self._config.single_timeout_s
        while time.monotonic() < deadline and self._port.receive(time.monotonic() + _QUIET_S):
            pass
