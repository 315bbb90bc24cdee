# SPDX-License-Identifier: Apache-2.0
"""Give new motors their IDs and their speed on the bus, one motor at a time.

Every motor leaves the factory with ID 1, so only one may hang on the bus. What is left to do is read from the
motor itself: when the program or the power ends in the middle, the same call goes on where it was. `SetupState` keeps
in a file which motors are done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
import json
import os
from pathlib import Path
import time

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import BusError, CorruptAnswer, ServoTimeout
from so101_driver.bus.handshake import check_servos
from so101_driver.bus.registers import BAUD_RATES, MAX_ID, MULTI_TURN_PHASE_BIT, Reg
from so101_driver.calibration.calibration import SERVO_IDS
from so101_interfaces_py.files import read_text

SETUP_ORDER = tuple(reversed(JOINT_NAMES))
"""Gripper first: the order in which the motors are reached when the arm is put together."""


class SetupState:
    """The joints whose motors are done.

    Args:
        path: where to keep it; None keeps it in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._done: list[str] = self._load()

    @classmethod
    def of_arm(cls, arm: str) -> SetupState:
        """The state of an arm, in the place that the XDG rules give for such."""
        base = Path(os.environ.get('XDG_STATE_HOME') or Path.home() / '.local' / 'state')
        return cls(base / 'so101' / f'setup_motors_{arm}.json')

    @property
    def done(self) -> tuple[str, ...]:
        """Joints whose motors are done, in the order in which they were."""
        return tuple(self._done)

    @property
    def next_joint(self) -> str | None:
        """The joint whose motor comes next; None when all are done."""
        return next((name for name in SETUP_ORDER if name not in self._done), None)

    def mark_done(self, joint: str) -> None:
        """Note that a motor is done."""
        if joint not in self._done:
            self._done.append(joint)
        self._save()

    def forget(self) -> None:
        """Begin anew."""
        self._done = []
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _load(self) -> list[str]:
        if self._path is None:
            return []
        try:
            names = json.loads(read_text(self._path))['done']
            return [name for name in SETUP_ORDER if name in names]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return []  # what is done is found again by looking at each motor

    def _save(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix('.tmp')
        temporary.write_text(json.dumps({'done': self._done}), encoding='utf-8')
        temporary.replace(self._path)


_EEPROM_WRITE_S = 0.006  # programming one cell takes 3 to 5 ms
_ATTEMPTS = 3


def find_servos(
    bus: ServoBus, baud_rates: Iterable[int] = tuple(BAUD_RATES.values()), *, wait_s: float = 0.1
) -> dict[int, tuple[int, ...]]:
    """Baud rate [bit/s] -> ids of the servos that answer at it; rates without an answer are left out.

    Leaves the bus at the rate that it had. Meant for one servo on the wire.

    Args:
        bus: the open bus.
        baud_rates: the rates to try [bit/s].
        wait_s: for an answer at each rate [s].
    """
    before = bus.baud_rate
    found = {}
    try:
        for rate in baud_rates:
            bus.change_baud_rate(rate)
            if ids := bus.broadcast_ping(wait_s=wait_s):
                found[rate] = ids
    finally:
        bus.change_baud_rate(before)
    return found


def change_id(bus: ServoBus, old: int, new: int) -> None:
    """Give a servo another id, for good.

    Args:
        bus: the open bus.
        old: its id now.
        new: its id from now on, 0..253.

    Raises:
        ValueError: `new` is no id.
        BusError: another servo has the new id already, or the servo does not take it.
    """
    if not 0 <= new <= MAX_ID:
        raise ValueError(f'A servo id is 0..{MAX_ID}, got {new}; nothing was sent.')
    if old == new:
        return
    if new in bus.broadcast_ping() or new in bus.scan([new]):
        raise BusError(f'The id {new} is taken; connect only the servo that is to get it.')
    bus.ping(old)
    bus.write(old, Reg.LOCK, 0)
    _write_unseen(bus, Reg.ID, old, new, lambda: bus.read(new, Reg.ID))
    bus.write(new, Reg.LOCK, 1)


def change_baud_rate(bus: ServoBus, servo_id: int, baud_rate: int) -> None:
    """Give a servo another baud rate, for good, and follow it with the port.

    Args:
        bus: the open bus, with this servo only.
        servo_id: the servo.
        baud_rate: [bit/s], one of `BAUD_RATES`.

    Raises:
        ValueError: a servo does not know this rate.
        BusError: the servo does not answer at the new rate.
    """
    codes = {rate: code for code, rate in BAUD_RATES.items()}
    if baud_rate not in codes:
        raise ValueError(f'A servo knows the baud rates {", ".join(map(str, codes))}, got {baud_rate}.')
    bus.ping(servo_id)
    bus.write(servo_id, Reg.LOCK, 0)
    before = bus.baud_rate

    def follow() -> None:
        bus.change_baud_rate(baud_rate)
        try:
            bus.ping(servo_id)
        except ServoTimeout:
            bus.change_baud_rate(before)
            raise

    _write_unseen(bus, Reg.BAUD_RATE, servo_id, codes[baud_rate], follow)
    bus.write(servo_id, Reg.LOCK, 1)


def _write_unseen(
    bus: ServoBus, register: Reg, servo_id: int, value: int, check: Callable[[], object]
) -> None:
    """Write a register after which the servo is reached in another way, so that only `check` can tell.

    A sync write is used: its acknowledgement, which would come in the old way, does not exist.
    """
    for attempt in range(_ATTEMPTS):
        bus.write_all(register, {servo_id: value})
        time.sleep(_EEPROM_WRITE_S)
        try:
            check()
            return
        except ServoTimeout as error:
            if attempt == _ATTEMPTS - 1:
                raise BusError(
                    f'Servo {servo_id} does not take {value} as its {register.name}; switch it off and on '
                    'and try again.'
                ) from error


BUS_RATE = BAUD_RATES[0]
PROBES = 12
"""Reads by which two motors with one ID betray themselves: they stand at different positions."""

ATTEMPTS = 3

BROADCAST_WAIT_S = 0.05
PING_WAIT_S = 0.012
"""Waits for answers while a motor is looked for; a slow USB adapter needs about 10 ms [s]."""


class SetupError(BusError):
    """The motor on the bus cannot be set up as it is; the message says what to change."""


@dataclass(frozen=True)
class FoundMotor:
    """The one motor on the bus.

    Attributes:
        servo_id: its ID now.
        baud_rate: its speed now [bit/s].
    """

    servo_id: int
    baud_rate: int


@dataclass(frozen=True)
class SetUpMotor:
    """What became of a motor.

    Attributes:
        joint: the joint it is for.
        servo_id: its ID.
        found: how it was found.
        changed: whether anything had to be changed.
    """

    joint: str
    servo_id: int
    found: FoundMotor
    changed: bool


class MotorSetup:
    """Sets up the motors of one arm over an open bus.

    Args:
        bus: the bus; its speed is changed while a motor is looked for.
        state: which motors are done.
    """

    def __init__(self, bus: ServoBus, state: SetupState | None = None) -> None:
        self._bus = bus
        self.state = SetupState() if state is None else state

    def find_motor(self) -> FoundMotor:
        """Find the one motor on the bus, whatever its ID and speed.

        Raises:
            SetupError: there is none, or more than one.
        """
        found: list[FoundMotor] = []
        damaged = False
        for rate in BAUD_RATES.values():
            self._bus.change_baud_rate(rate)
            before = self._bus.counters.corrupt
            ids = set(self._bus.broadcast_ping(wait_s=BROADCAST_WAIT_S))
            # Two motors may answer a broadcast at once and drown each other; asked one by one they do not.
            ids |= set(self._bus.scan(range(len(SERVO_IDS) + 1), timeout_s=PING_WAIT_S))
            damaged |= self._bus.counters.corrupt > before
            found += [FoundMotor(servo_id, rate) for servo_id in sorted(ids)]
        if len(found) == 1:
            self._bus.change_baud_rate(found[0].baud_rate)
            self._require_alone(found[0].servo_id)
            return found[0]
        self._bus.change_baud_rate(BUS_RATE)
        if found:
            which = ', '.join(f'ID {motor.servo_id} at {motor.baud_rate} bit/s' for motor in found)
            raise SetupError(
                f'expected one motor on the bus, found {len(found)} ({which}); unplug all but the one that '
                f'is to be set up'
            )
        if damaged:
            raise SetupError(
                'expected one motor on the bus, got only damaged answers: two motors probably share an ID; '
                'unplug all but the one that is to be set up'
            )
        raise SetupError(
            f'expected one motor on the bus, found none at any speed on {self._bus.port}; switch the power '
            f'supply on, and check the 3-pin cable and the jumpers of the adapter (both on B)'
        )

    def set_up(self, joint: str, *, force: bool = False) -> SetUpMotor:
        """Make the one motor on the bus that of `joint`. Repeating this is harmless.

        Args:
            joint: which joint the motor is for.
            force: take it even if it looks like one that was set up before.

        Raises:
            SetupError: there is not exactly one motor, or it is one that was set up before.
            HandshakeError: it is of another model, or on a wrong voltage.
            BusError: it does not take a setting.
        """
        target = SERVO_IDS[joint]
        found = self.find_motor()
        check_servos(self._bus.port, (found.servo_id,), self._bus.read_available)
        if not force:
            self._require_new(joint, found)
        changed = self._apply(found, target)
        self._bus.change_baud_rate(BUS_RATE)
        self._verify(joint, target)
        self.state.mark_done(joint)
        return SetUpMotor(joint, target, found, changed)

    def _apply(self, found: FoundMotor, target: int) -> bool:
        where = found
        for attempt in range(ATTEMPTS):
            try:
                return self._write_settings(where, target) or where != found
            except SetupError:
                raise
            except BusError:
                # The motor may or may not have taken the ID or the speed: look where it is now.
                if attempt == ATTEMPTS - 1:
                    raise
                where = self.find_motor()
        raise AssertionError('the last attempt returns or raises')

    def _write_settings(self, motor: FoundMotor, target: int) -> bool:
        bus, servo_id = self._bus, motor.servo_id
        bus.change_baud_rate(motor.baud_rate)
        bus.write_torque([servo_id], False)
        phase = bus.read(servo_id, Reg.PHASE)
        changed = False
        for register, value in (
            (Reg.RESPONSE_STATUS_LEVEL, 1),  # first: the other writes wait for their acknowledgement
            (Reg.RETURN_DELAY_TIME, 0),
            (Reg.OPERATING_MODE, 0),
            (Reg.PHASE, phase & ~MULTI_TURN_PHASE_BIT),
        ):
            if bus.read(servo_id, register) != value:
                bus.write(servo_id, register, value)
                changed = True
        if servo_id != target:
            change_id(bus, servo_id, target)
            changed = True
        if motor.baud_rate != BUS_RATE:
            change_baud_rate(bus, target, BUS_RATE)
            changed = True
        if bus.read(target, Reg.LOCK) != 1:  # an earlier run was cut off between unlocking and locking
            bus.write(target, Reg.LOCK, 1)
        return changed

    def _require_new(self, joint: str, found: FoundMotor) -> None:
        for other in self.state.done:
            if other != joint and SERVO_IDS[other] == found.servo_id and found.baud_rate == BUS_RATE:
                raise SetupError(
                    f'expected the motor of {joint}, got one with ID {found.servo_id}, which {other} got '
                    f'before; unplug that one and connect the motor of {joint} (or use --force)'
                )

    def _require_alone(self, servo_id: int) -> None:
        counters = self._bus.counters
        before = counters.corrupt + counters.lost
        try:
            for _ in range(PROBES):
                self._bus.read(servo_id, Reg.PRESENT_POSITION)
        except (CorruptAnswer, ServoTimeout):
            damaged = PROBES
        else:
            damaged = counters.corrupt + counters.lost - before
        if damaged > PROBES // 4:
            raise SetupError(
                f'expected one motor on the bus, but the answers of ID {servo_id} are damaged: two motors '
                f'probably share that ID, as new ones do; unplug all but the one that is to be set up'
            )

    def _verify(self, joint: str, target: int) -> None:
        expected = {Reg.ID: target, Reg.BAUD_RATE: 0, Reg.RETURN_DELAY_TIME: 0, Reg.LOCK: 1}
        for register, value in expected.items():
            found = self._bus.read(target, register)
            if found != value:
                raise SetupError(
                    f'{joint}: expected {register.name} to be {value}, got {found}; run setup-motors again'
                )


def next_step(state: SetupState) -> str:
    """Say what has to be done next."""
    joint = state.next_joint
    if joint is None:
        return 'All six motors are set up: connect them in a chain, from shoulder_pan to gripper.'
    done = f' ({", ".join(state.done)} done)' if state.done else ''
    number = SETUP_ORDER.index(joint) + 1
    return f'Motor {number} of 6: connect the motor of {joint}, and no other, to the adapter{done}.'
