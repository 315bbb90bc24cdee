# SPDX-License-Identifier: Apache-2.0
"""The wire of the virtual arm: a pseudo-terminal behind a link that comes and goes as udev's does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import contextlib
import errno
import fcntl
import heapq
import os
from pathlib import Path
import queue
import select
import struct
import threading
import time
import tty
from typing import Final, NamedTuple

from so101_driver.bus.attention import DealtWith
from so101_driver.bus.protocol import Frame, FrameStream, OVERHEAD, wire_time_s
from so101_driver.emulator.faults import FaultInjector

_TCGETS2: Final = 0x802C542A
_TERMIOS2 = struct.Struct('4IB19s2I')
_FRAME_GAP_S = 0.05  # a frame does not pause for longer
_CALL_TIMEOUT_S = 5.0
PATIENCE_S = 4.0
"""How long an interrupted arm waits for its driver to close the port [s]."""


class Answer(NamedTuple):
    """Answer of a servo.

    Attributes:
        servo_id: whose it is.
        data: the frame.
        delay_s: pause of the servo before it [s].
    """

    servo_id: int
    data: bytes
    delay_s: float = 0.0


Handler = Callable[[Frame, int], Iterable[Answer]]


class PtyLine:
    """Serves requests on a pseudo-terminal, in a thread of its own.

    Args:
        link: path of the symbolic link to the terminal. It leads by way of this process, so that it leads nowhere
            once that has ended, and never to whoever gets the number of the terminal next.
        handler: turns a request and the baud rate of the line [bit/s] into answers; called in the thread.
        faults: what goes wrong on the wire.
        on_tick: called in the thread with the time since its last call [s], between requests.
        tick_s: how often, about [s].
        pacing: take the time that the bytes need on a real wire.
    """

    def __init__(
        self,
        link: Path,
        handler: Handler,
        faults: FaultInjector,
        on_tick: Callable[[float], None],
        *,
        tick_s: float = 0.005,
        pacing: bool = True,
    ) -> None:
        self._link = link
        self._handler = handler
        self._faults = faults
        self._on_tick = on_tick
        self._tick_s = tick_s
        self._pacing = pacing
        self._master = self._slave = -1
        self._dealt_with: DealtWith | None = None
        self._stream = FrameStream()
        self._late: list[tuple[float, bytes]] = []
        self._busy_until = 0.0
        self._calls: queue.SimpleQueue[tuple[Callable[[], None], threading.Event]] = queue.SimpleQueue()
        self._wake_read, self._wake_write = os.pipe()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.plug_in()

    # ---- plugging ----------------------------------------------------------------------------------------

    @property
    def plugged(self) -> bool:
        """Whether the terminal is there."""
        return self._master >= 0

    def start(self) -> None:
        """Begin to serve."""
        self._thread = threading.Thread(target=self._run, name='virtual-arm', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and remove the terminal."""
        self._stopping = True
        os.write(self._wake_write, b'.')
        if self._thread is not None:
            self._thread.join(_CALL_TIMEOUT_S)
        self._pull()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def unplug(self) -> None:
        """Remove the terminal: who has it open gets input/output errors."""
        self._call(self._pull)

    def plug_in(self) -> None:
        """Make a new terminal behind the same link."""
        self._call(self._plug)

    @property
    def _target(self) -> str:
        return f'/proc/{os.getpid()}/fd/{self._slave}'

    def _plug(self) -> None:
        if self.plugged:
            return
        # The slave stays open here too, so that the terminal outlives its users.
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._stream.reset()
        self._dealt_with = DealtWith(self._link)
        aside = self._link.with_name(f'.{self._link.name}.{os.getpid()}')
        aside.unlink(missing_ok=True)
        aside.symlink_to(self._target)
        aside.replace(self._link)

    def _pull(self) -> None:
        if not self.plugged:
            return
        with contextlib.suppress(OSError):
            if os.readlink(self._link) == self._target:
                self._link.unlink()
                if self._dealt_with is not None:
                    self._dealt_with.close()
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1
        self._late.clear()

    def _call(self, function: Callable[[], None]) -> None:
        """Run a function in the thread, or here when the thread does not run."""
        if self._thread is None or not self._thread.is_alive() or self._thread is threading.current_thread():
            function()
            return
        done = threading.Event()
        self._calls.put((function, done))
        os.write(self._wake_write, b'.')
        if not done.wait(_CALL_TIMEOUT_S):
            raise TimeoutError(f'The thread of the virtual arm did not answer within {_CALL_TIMEOUT_S} s.')

    # ---- serving -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        last_tick = last_byte = time.monotonic()
        while not self._stopping:
            poll = select.poll()
            poll.register(self._wake_read, select.POLLIN)
            if self.plugged:
                poll.register(self._master, select.POLLIN)
            ready = dict(poll.poll(self._wait_ms(last_tick)))
            if self._wake_read in ready:
                os.read(self._wake_read, 64)
                self._run_calls()
            if self._master in ready and ready[self._master] & select.POLLIN:
                last_byte = self._serve(last_byte)
            now = time.monotonic()
            while self._late and self._late[0][0] <= now:
                self._write(heapq.heappop(self._late)[1])
            if now - last_tick >= self._tick_s:
                self._on_tick(now - last_tick)
                last_tick = now

    def _wait_ms(self, last_tick: float) -> float:
        until = last_tick + self._tick_s
        if self._late:
            until = min(until, self._late[0][0])
        return max(0.0, until - time.monotonic()) * 1000.0

    def _run_calls(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                function, done = self._calls.get_nowait()
                function()
                done.set()

    def _serve(self, last_byte: float) -> float:
        try:
            data = os.read(self._master, 4096)
        except OSError:
            return last_byte
        now = time.monotonic()
        if self._stream.pending and now - last_byte > _FRAME_GAP_S:
            self._stream.reset()
        for frame in self._stream.feed(data):
            self._answer(frame, now)
        if self._dealt_with is not None:
            self._dealt_with.add(len(data))
        return now

    def _answer(self, frame: Frame, arrived: float) -> None:
        if self._faults.request_is_lost():
            return
        baud = line_baud_rate(self._slave)
        due = max(arrived, self._busy_until) + wire_time_s(len(frame.payload) + OVERHEAD, baud or 1)
        for answer in self._handler(frame, baud):
            due += answer.delay_s + wire_time_s(len(answer.data), baud)
            for delivery in self._faults.answer(answer.servo_id, answer.data):
                if delivery.delay_s > 0.0:
                    heapq.heappush(self._late, (due + delivery.delay_s, delivery.data))
                    continue
                if self._pacing:
                    time.sleep(max(0.0, due - time.monotonic()))
                self._write(delivery.data)
        self._busy_until = due if self._pacing else 0.0

    def _write(self, data: bytes) -> None:
        try:
            os.write(self._master, data)
        except OSError as error:
            # A full buffer means that nobody reads; a wire forgets such bytes too.
            if error.errno not in {errno.EAGAIN, errno.EIO, errno.EBADF}:
                raise


def line_baud_rate(terminal: int) -> int:
    """Rate to which the user of a terminal has set it [bit/s], odd rates included."""
    fields = _TERMIOS2.unpack(fcntl.ioctl(terminal, _TCGETS2, bytes(_TERMIOS2.size)))
    return int(fields[-1])


def port_in_use(path: Path) -> bool:
    """Return whether a driver has the port open; it opens it for itself alone and locks it."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:  # opened exclusively
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
