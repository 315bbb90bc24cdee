# SPDX-License-Identifier: Apache-2.0
"""The serial port of the arm: bytes out, bytes in.

`ArmPort` is a `scservo_sdk.PortHandler`, opened for one owner and made to wait without spinning; what the SDK's own
port gets wrong (shared opening, stale input, wall clock, busy waiting) is replaced here. A terminal is never taken for
a port.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
from pathlib import Path
import select
import stat
import termios
import time

from scservo_sdk import PortHandler
import serial

from so101_driver.bus.attention import Unheard
from so101_driver.bus.errors import PortError
from so101_driver.bus.protocol import wire_time_s
from so101_driver.bus.registers import BAUD_RATES

_READ_CHUNK = 4096
_WRITE_TIMEOUT_S = 0.5
STANDSTILL_S = 2.0
"""How long it is waited for a virtual arm that has not yet heard the question: it has no processor [s]."""
_LOOK_AGAIN_S = 0.001
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
        self._unheard: Unheard | None = None
        self._stood_still_s = 0.0
        self._standing_since: float | None = None

    def now(self) -> float:
        """Time of the arm [s]: monotonic, and it does not pass while a virtual arm stands still."""
        now = time.monotonic() if self._standing_since is None else self._standing_since
        return now - self._stood_still_s

    # ---- opening and closing ----

    def open(self) -> None:
        """Open the port for this process alone.

        Raises:
            PortError: the port is missing, taken or not permitted, or the baud rate is unknown.
        """
        try:
            opened = self.openPort()
        except PortError:
            raise
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
        refuse_terminal(self.port_name)
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
        self._unheard = Unheard.of(self.port_name)
        self.tx_time_per_byte = wire_time_s(1, cflag_baud) * 1000.0
        self.is_open = True
        self.is_using = False
        return True

    def closePort(self) -> None:  # noqa: N802
        """Close the port; does nothing when it is closed."""
        port, self.ser = self.ser, None
        self._fd = -1
        self._unheard = None
        self._moves_again()
        self.is_open = False
        self.is_using = False
        if port is not None:
            with contextlib.suppress(OSError):
                port.close()

    # ---- the control loop ----

    def send(self, data: bytes) -> None:
        """Write all of `data`; nothing to a virtual arm that stands still, which would hear it when it is old.

        Raises:
            PortError: the port is closed, gone or does not take the bytes in time.
        """
        if self._standing_since is not None and self._unheard:
            return
        deadline = time.monotonic() + _WRITE_TIMEOUT_S
        view = memoryview(data)
        while view:
            try:
                written = os.write(self._open_fd(), view)
                view = view[written:]
                if self._unheard is not None:
                    self._unheard.sent(written)
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
        return self._read(_READ_CHUNK, deadline_s)

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
        """Wait until everything that was sent is on the wire, and a virtual arm has heard it."""
        with contextlib.suppress(termios.error, OSError):
            termios.tcdrain(self._open_fd())
        give_up = time.monotonic() + STANDSTILL_S
        while self._unheard and time.monotonic() < give_up:
            time.sleep(_LOOK_AGAIN_S)

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
        deadline_ms = self.packet_start_time + self.packet_timeout
        return self._read(length, deadline_ms / 1000.0) if length > 0 else b''

    def setPacketTimeout(self, packet_length: int) -> None:  # noqa: N802
        """Start the time-out of an answer of `packet_length` bytes."""
        self.setPacketTimeoutMillis(self.tx_time_per_byte * packet_length + self.answer_margin_s * 1000.0)

    def getCurrentTime(self) -> float:  # noqa: N802
        """Time on the monotonic clock [ms]; the SDK's own follows steps of the wall clock."""
        return time.monotonic() * 1000.0

    # ---- errors ----

    def _read(self, count: int, deadline_s: float) -> bytes:
        fd = self._open_fd()
        try:
            ready = self._poll.poll(max(0.0, (deadline_s - time.monotonic()) * 1000.0))
            if not ready and self._unheard is not None and deadline_s > 0.0:
                ready = self._wait_for_virtual_arm()
            if not ready:
                return b''
            self._moves_again()
            if ready[0][1] & _GONE:
                raise OSError(errno.EIO, 'the line was hung up')
            return os.read(fd, count)
        except BlockingIOError:
            return b''
        except OSError as error:
            raise self._lost(error) from error

    def _wait_for_virtual_arm(self) -> list[tuple[int, int]]:
        """As the poll: what came of it once the virtual arm had the time to answer.

        It is waited for as long as it may need the first time, and looked at once more each time after that.
        """
        unheard, ready = self._unheard, list[tuple[int, int]]()
        if unheard is None or not unheard:
            self._moves_again()
            # An answer may still be between the two ends of the terminal.
            return self._poll.poll(_LOOK_AGAIN_S * 1000.0)
        patience_s = STANDSTILL_S if self._standing_since is None else 0.0
        self._standing_since = self._standing_since or time.monotonic()
        while unheard and not ready and time.monotonic() < self._standing_since + patience_s:
            ready = self._poll.poll(_LOOK_AGAIN_S * 1000.0)
        if ready or not unheard:
            self._moves_again()
        return ready or self._poll.poll(_LOOK_AGAIN_S * 1000.0)

    def _moves_again(self) -> None:
        """Count for how long the virtual arm has stood still."""
        if self._standing_since is not None:
            self._stood_still_s += time.monotonic() - self._standing_since
            self._standing_since = None

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
        if os.path.islink(self.port_name) and not os.path.exists(self.port_name):
            return f'{self.port_name} is the link of an arm that is gone; start the virtual arm, or plug the arm in.'
        if not os.path.exists(self.port_name):
            return f'{self.port_name} does not exist; serial ports here: {", ".join(found) or "none"}.'
        if number in {errno.EAGAIN, errno.EBUSY}:
            return f'{self.port_name} is used by another program; `fuser {self.port_name}` says which.'
        if number in {errno.EACCES, errno.EPERM}:
            return (
                f'{self.port_name} is not yours to open; add your user to the group dialout and log in again.'
            )
        return f'{self.port_name} cannot be opened as a serial port: {error}.'


_PTS_MAJORS = range(136, 144)
_VT_MAJOR, _FIRST_SERIAL, _TTY_MAJOR = 4, 64, 5


def refuse_terminal(path: str) -> None:
    """Refuse a terminal: set raw and written servo packets into, it would be lost to whoever sits at it.

    A link may be older than what it points to, and the kernel gives the number of a terminal that was closed to the
    next one. A terminal is a console, what a session has as its own, or a pseudo-terminal that a program reads or
    writes as standard stream; a virtual arm, ours or another, is none of these.

    Raises:
        PortError: it is one.
    """
    try:
        found = os.stat(path)
    except OSError:
        return  # opening it says why
    if not stat.S_ISCHR(found.st_mode):
        return
    major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
    user = 'this computer' if major == _TTY_MAJOR or (major == _VT_MAJOR and minor < _FIRST_SERIAL) else ''
    streams = ('0', '1', '2') if major in _PTS_MAJORS else ()
    for process in () if user else Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            name, _, fields = (process / 'stat').read_text().partition('(')[2].rpartition(')')
            number = int(fields.split()[4])  # tty_nr
            if number and _same_device(number, major, minor):
                user = f'{name} (process {process.name})'
                break
            if any(os.stat(process / 'fd' / stream).st_rdev == found.st_rdev for stream in streams):
                user = f'{name} (process {process.name})'
                break
    if user:
        raise PortError(
            f'{path} is the terminal {os.path.realpath(path)} of {user}, not a servo bus; give the port of the arm.'
        )


def _same_device(number: int, major: int, minor: int) -> bool:
    """Whether the kernel's old number of a terminal means this device."""
    return (number >> 8 & 0xFFF) == major and (number & 0xFF | number >> 12 & 0xFFF00) == minor
