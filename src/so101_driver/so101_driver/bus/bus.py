# SPDX-License-Identifier: Apache-2.0
"""ServoBus: the servos of one arm on one serial port.

Two paths share the port. Single transactions (setup, calibration) go through the vendor's SDK and are
verified. The control loop uses `cycle_read`, one sync read that brings state and faults of all servos, and
`write_goals`, one sync write. A damaged or missing packet never raises there: it costs one servo its
freshness, and the reading says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import os
import time
from types import TracebackType
from typing import Final, Self

from so101_driver.bus import protocol
from so101_driver.bus.config import BusConfig, BusCounters
from so101_driver.bus.errors import BusError, CorruptAnswer, PortError, ServoTimeout, WriteNotTaken
from so101_driver.bus.handshake import check_servos, ServoIdentity
from so101_driver.bus.port import ArmPort
from so101_driver.bus.readings import StateReader, SyncReads
from so101_driver.bus.registers import (
    Area,
    BROADCAST_ID,
    LOAD_FULL_SCALE,
    MAX_ID,
    MODEL_STS3215,
    Reg,
    ServoError,
    TICKS_PER_TURN,
)
from so101_driver.bus.single import LateAnswers, SingleTransactions

ARM_IDS: Final = (1, 2, 3, 4, 5, 6)
_PING_GAP_S = 0.03  # between the answers of several servos to one ping
_TORQUE_ATTEMPTS = 4
_EEPROM_WRITE_S = 0.006  # programming one cell takes 3 to 5 ms


class ServoBus:
    """The servos of one arm on one port. It has one owner: call it from one thread only.

    The constructor opens nothing. As a context manager it opens the port, and at the end switches the torque
    off and closes it.

    Args:
        port: path of the serial device; a link that udev keeps survives replugging.
        ids: ids of the servos, in the order of the joints.
        baud_rate: [bit/s].
        config: times and retries.

    Attributes:
        ids: ids of the servos.
        config: times and retries.
        counters: what happened so far.
    """

    def __init__(
        self,
        port: str,
        ids: Sequence[int] = ARM_IDS,
        *,
        baud_rate: int = 1_000_000,
        config: BusConfig | None = None,
    ) -> None:
        if not ids or len(set(ids)) != len(ids) or not all(0 <= servo_id <= MAX_ID for servo_id in ids):
            raise ValueError(f'Servo ids are different numbers in 0..{MAX_ID}, got {list(ids)}.')
        self.ids = tuple(ids)
        self.config = config or BusConfig()
        self.counters = BusCounters()
        self._port = ArmPort(port, baud_rate)
        late = LateAnswers(self.config.late_window_s)
        self._single = SingleTransactions(self._port, self.counters, late, self.config)
        self._sync = SyncReads(self._port, self.ids, counters=self.counters, late=late, config=self.config)
        self._states = StateReader(self._sync, self.ids, self.config)
        self.now = self._port.now
        """Time of the arm [s]: monotonic, and it does not pass while a virtual arm has no processor."""
        self.cycle_read = self._states.cycle
        """State and faults of all servos, in one transaction where nothing is lost."""
        self._next_attempt_s = 0.0

    # ---- the port ----------------------------------------------------------------------------------------

    @property
    def port(self) -> str:
        """Path of the serial device."""
        return str(self._port.port_name)

    @property
    def baud_rate(self) -> int:
        """Rate of the port [bit/s]."""
        return int(self._port.baudrate)

    @property
    def is_open(self) -> bool:
        """Whether the port is open; False after it was lost."""
        return bool(self._port.is_open)

    @property
    def errors(self) -> Mapping[int, ServoError]:
        """Faults in the last answer of each servo to a single request."""
        return self._single.errors

    def open(self) -> None:
        """Open the port for this process alone; does nothing when it is open.

        Raises:
            PortError: the port is missing, taken or not permitted.
        """
        if not self.is_open:
            self._port.open()

    def close(self, *, torque_off: bool = True) -> None:
        """Switch the torque off and close the port. Idempotent; a lost port or a mute servo raises nothing.

        Args:
            torque_off: False leaves the arm as it is, e.g. to hand it to another program.
        """
        try:
            if torque_off and self.is_open:
                self.release()
        finally:
            self._port.closePort()

    def reconnect(self) -> bool:
        """Try once, without waiting, to open a lost port again; True when the port is open.

        The servos may have lost their power meanwhile: do the handshake again and configure them before
        motion.
        """
        if self.is_open:
            return True
        now = time.monotonic()
        if now < self._next_attempt_s or not os.path.exists(self.port):
            return False
        self._next_attempt_s = now + self.config.reconnect_interval_s
        try:
            self._port.open()
        except PortError:
            return False
        self.counters.reconnects += 1
        return True

    def change_baud_rate(self, baud_rate: int) -> None:
        """Change the rate of the port, not of any servo [bit/s]; opens the port again if it is open."""
        if was_open := self.is_open:
            self._port.flush_output()  # what was sent goes out at the old rate
        self._port.closePort()
        self._port.baudrate = baud_rate
        if was_open:
            self._port.open()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- one servo ---------------------------------------------------------------------------------------

    def ping(self, servo_id: int) -> int:
        """Model number of a servo.

        Raises:
            ServoTimeout: the servo does not answer.
            CorruptAnswer: only damaged answers came.
            PortError: the port is gone.
        """
        self._single.ping(servo_id)
        return self.read(servo_id, Reg.MODEL_NUMBER)

    def scan(
        self, ids: Iterable[int] = range(MAX_ID + 1), *, timeout_s: float = 0.006
    ) -> dict[int, int | None]:
        """Model number of every servo that answers; None where the answers are damaged.

        Damaged answers usually mean that two servos share the id.

        Args:
            ids: the ids to try.
            timeout_s: wait per id [s].
        """
        found: dict[int, int | None] = {}
        for servo_id in ids:
            try:
                self._single.ping(servo_id, retries=0, timeout_s=timeout_s)
                found[servo_id] = self.read(servo_id, Reg.MODEL_NUMBER)
            except CorruptAnswer:
                found[servo_id] = None
            except ServoTimeout:
                continue
        return found

    def broadcast_ping(self, *, wait_s: float = 0.1) -> tuple[int, ...]:
        """Ids of all servos that answer a ping to everybody: the quick way to find one new servo.

        The answers of several servos may collide on a real wire; use `scan` there.

        Args:
            wait_s: for the first answer [s].
        """
        self._port.discard_input()
        self._port.send(protocol.ping(BROADCAST_ID))
        self.counters.sent += 1
        deadline = time.monotonic() + wait_s
        stream = protocol.FrameStream()
        frames: list[protocol.Frame] = []
        while data := self._port.receive(deadline):
            frames += stream.feed(data)
            deadline = min(deadline, time.monotonic() + _PING_GAP_S)
        return tuple(sorted({frame.servo_id for frame in frames if not frame.payload}))

    def read(self, servo_id: int, register: Reg) -> int:
        """Value of one register, signed where the register is; raises as `ping`."""
        return register.decode(self._single.read(servo_id, register))

    def write(
        self, servo_id: int, register: Reg, value: int, *, verify: bool = True, persist: bool = True
    ) -> None:
        """Write one register and read it back.

        Args:
            servo_id: the servo.
            register: any writable register but ID and BAUD_RATE, see `so101_driver.setup.motors`.
            value: decoded value.
            verify: read the register back.
            persist: unlock the EEPROM around the write, so that the value survives a power-off. Without it an
                EEPROM register takes effect at once and is forgotten at power-off, which spares the cell.

        Raises:
            ValueError: the register is not writable, or the value does not fit it.
            WriteNotTaken: the register reads back another value.
            BusError: as `ping`.
        """
        if not register.writable:
            raise ValueError(f'{register.name} is read-only; nothing was sent.')
        if register in {Reg.ID, Reg.BAUD_RATE}:
            raise ValueError(
                f'{register.name} changes how the servo is reached; so101_driver.setup.motors does that.'
            )
        if register.area is Area.EEPROM and persist:
            with self.unlocked(servo_id):
                self._store(servo_id, register, value, verify)
                time.sleep(_EEPROM_WRITE_S)
        else:
            self._store(servo_id, register, value, verify)

    @contextlib.contextmanager
    def unlocked(self, servo_id: int) -> Iterator[None]:
        """Context in which EEPROM writes of a servo survive a power-off."""
        self._store(servo_id, Reg.LOCK, 0, True)
        try:
            yield
        finally:
            self._store(servo_id, Reg.LOCK, 1, True)

    def _store(self, servo_id: int, register: Reg, value: int, verify: bool) -> None:
        data = register.encode(value)
        for attempt in range(2):
            try:
                self._single.write(servo_id, register, data)
            except (ServoTimeout, CorruptAnswer):
                if not verify:  # else reading it back tells whether only the acknowledgement was lost
                    raise
            if not verify:
                return
            found = self.read(servo_id, register)
            if found == value:
                return
            if attempt:
                raise WriteNotTaken(servo_id, register.name, value, found)

    def write_torque_limit(self, limits: Mapping[int, float]) -> None:
        """Torque limit of several servos, both at once and after the next power-on.

        Args:
            limits: servo id -> share of the full torque, 0..1.

        Raises:
            ValueError: a limit is outside 0..1.
            BusError: as `write`.
        """
        for servo_id, limit in limits.items():
            if not 0.0 <= limit <= 1.0:
                raise ValueError(
                    f'A torque limit is 0..1, got {limit} for servo {servo_id}; nothing was sent.'
                )
        for servo_id, limit in limits.items():
            counts = round(limit * LOAD_FULL_SCALE)
            self.write(servo_id, Reg.TORQUE_LIMIT, counts)
            if self.read(servo_id, Reg.MAX_TORQUE_LIMIT) != counts:  # spares the memory cell at every start
                self.write(servo_id, Reg.MAX_TORQUE_LIMIT, counts)

    # ---- all servos --------------------------------------------------------------------------------------

    def handshake(self, *, model: int = MODEL_STS3215) -> tuple[ServoIdentity, ...]:
        """Check that the expected servos are there, of one model and firmware, on the right voltage.

        Raises:
            HandshakeError: what is wrong, every problem with what to do about it.
            PortError: the port is closed or gone.
        """
        identities = check_servos(self.port, self.ids, self._sync.read_register, model)
        self._states.probe_windows()
        return identities

    def read_available(self, register: Reg, ids: Iterable[int] | None = None) -> dict[int, int]:
        """One register of several servos in one transaction: id -> value of those that answer.

        Missing ones are asked again. All servos are asked by default.
        """
        return self._sync.read_register(register, self.ids if ids is None else tuple(ids))

    def read_all(self, register: Reg, ids: Iterable[int] | None = None) -> dict[int, int]:
        """As `read_available`, but every servo must answer.

        Raises:
            ServoTimeout: a servo does not answer.
            PortError: the port is gone.
        """
        wanted = self.ids if ids is None else tuple(ids)
        values = self.read_available(register, wanted)
        for servo_id in wanted:
            if servo_id not in values:
                raise ServoTimeout(servo_id, register.name, 1 + self.config.single_retries)
        return values

    def write_all(self, register: Reg, values: Mapping[int, int]) -> None:
        """One register of several servos in one sync write, which no servo acknowledges.

        Args:
            register: the register.
            values: servo id -> decoded value.

        Raises:
            ValueError: a value does not fit the register; nothing is sent.
            PortError: the port is gone.
        """
        rows = {servo_id: register.encode(value) for servo_id, value in values.items()}
        self._port.send(protocol.sync_write(register.address, rows))
        self.counters.sent += 1

    def write_goals(self, goals: Mapping[int, int]) -> None:
        """Goal positions of several servos in one sync write.

        A goal is an enable: the servo switches its torque on when one comes. So stop writing goals before the
        torque is switched off, not after.

        Args:
            goals: servo id -> position, 0..4095 [ticks].

        Raises:
            ValueError: a goal is outside one turn or of an unknown servo; nothing is sent.
            PortError: the port is gone.
        """
        for servo_id, ticks in goals.items():
            if servo_id not in self.ids:
                raise ValueError(
                    f'Goals go to the servos {self.ids}, got one for {servo_id}; nothing was sent.'
                )
            if not 0 <= ticks < TICKS_PER_TURN:
                raise ValueError(
                    f'A goal is 0..{TICKS_PER_TURN - 1} ticks, got {ticks} for servo {servo_id}; '
                    "clamp it to the joint's range, nothing was sent."
                )
        self.write_all(Reg.GOAL_POSITION, goals)

    def write_torque(self, ids: Iterable[int], on: bool) -> tuple[int, ...]:
        """Switch the torque of several servos, and read it back.

        Returns:
            Ids of the servos that could not be confirmed; empty when all went well.

        Raises:
            PortError: the port is gone.
        """
        pending = tuple(ids)
        for _ in range(_TORQUE_ATTEMPTS):
            if not pending:
                break
            self.write_all(Reg.TORQUE_ENABLE, dict.fromkeys(pending, int(on)))
            found = self._sync.read_register(Reg.TORQUE_ENABLE, pending, retries=0)
            pending = tuple(servo_id for servo_id in pending if found.get(servo_id) != int(on))
        return pending

    def release(self) -> tuple[int, ...]:
        """Switch the torque of every servo on the wire off, known or not.

        Returns:
            Ids of the servos that could not be confirmed. A lost port gives all ids; nothing is raised.
        """
        try:
            off = Reg.TORQUE_ENABLE.encode(0)
            self._port.send(protocol.write(BROADCAST_ID, Reg.TORQUE_ENABLE.address, off))
            self.counters.sent += 1
            return self.write_torque(self.ids, False)
        except BusError:
            return self.ids
        finally:
            if self.is_open:
                self._port.flush_output()
