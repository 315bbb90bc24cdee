# SPDX-License-Identifier: Apache-2.0
"""VirtualArm: six virtual servos on a pseudo-terminal that speaks the protocol of the real ones.

`WriteLog` keeps what was written to them and when, so that a test can prove what was not written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
import math
from pathlib import Path
import threading
import time
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from so101_contract.joints import GRIPPER, JOINT_LIMITS_RAD, JOINT_NAMES
from so101_driver.bus.protocol import build, Frame, Instruction
from so101_driver.bus.registers import BROADCAST_ID, Reg, REG_AT, TICKS_PER_TURN
from so101_driver.calibration.calibration import ArmCalibration, JointCalibration, RAD_PER_TICK, SERVO_IDS
from so101_driver.emulator.dynamics import MotionLimits, ServoDynamics, SimpleDynamics
from so101_driver.emulator.faults import FaultInjector
from so101_driver.emulator.line import Answer, PtyLine
from so101_driver.emulator.servo import Behaviour, ServoMemory, VirtualServo
from so101_driver.gate.config import GateConfig
from so101_interfaces_py.scratch import Scratch

_LENGTH = 200_000


@dataclass(frozen=True)
class WriteEvent:
    """One register of one servo was written over the bus.

    Attributes:
        time_s: on the monotonic clock, which all processes of a machine share [s].
        servo_id: the servo.
        register: the register.
        value: decoded value.
    """

    time_s: float
    servo_id: int
    register: Reg
    value: int

    @property
    def energises(self) -> bool:
        """Whether this write switches the torque on: a goal does so as well as a torque write."""
        if self.register is Reg.TORQUE_ENABLE:
            return self.value == 1
        return self.register is Reg.GOAL_POSITION


class WriteLog:
    """Bounded log of writes. Reading and adding from different threads is safe."""

    def __init__(self) -> None:
        # Plain numbers: the garbage collector does not look through tuples of them, and a collection that
        # looked through the whole log would stop the arm for longer than a control period.
        self._events: deque[tuple[float, int, int, int]] = deque(maxlen=_LENGTH)

    def add(self, event: WriteEvent) -> None:
        """Append."""
        self._events.append((event.time_s, event.servo_id, event.register.address, event.value))

    def clear(self) -> None:
        """Forget everything."""
        self._events.clear()

    def events(
        self, register: Reg | None = None, *, servo_id: int | None = None, after_s: float = 0.0
    ) -> list[WriteEvent]:
        """Events in the order of time.

        Args:
            register: only writes of this one.
            servo_id: only writes to this servo.
            after_s: only writes later than this time on the monotonic clock [s].
        """
        return [
            WriteEvent(time_s, to, REG_AT[address], value)
            for time_s, to, address, value in self._events.copy()
            if time_s > after_s
            and (register is None or address == register.address)
            and (servo_id is None or to == servo_id)
        ]

    def energising(self, after_s: float = 0.0) -> list[WriteEvent]:
        """Writes after a time that switch torque on; empty is what an e-stop must leave."""
        return [event for event in self.events(after_s=after_s) if event.energises]


_LONGEST_CATCH_UP_S = 0.1  # after a pause of the process the motors do not jump


class VirtualArm:
    """An arm for tests and for the twin; a context manager that serves until its end.

    Args:
        ids: ids of the servos. The same id twice makes their answers collide, as on a real wire.
        link: path under which the arm appears; a temporary one by default.
        positions: encoder angles at the start [ticks]; the middle by default.
        dynamics: what moves the motors; a simple model by default.
        pacing: take the time that the bytes need on a real wire.
        auto_step: step the dynamics in real time; otherwise call `step`.
        behaviour: firmware variant.
        seed: of the random faults.

    Attributes:
        servos: the servos, in the order of `ids`.
        dynamics: what moves the motors.
        faults: what goes wrong on the wire.
        log: what was written over the bus.
        lock: held while servos change; take it to look at several values of one moment.
    """

    def __init__(
        self,
        ids: Sequence[int] = (1, 2, 3, 4, 5, 6),
        *,
        link: str | Path | None = None,
        positions: Sequence[float] | None = None,
        dynamics: ServoDynamics | None = None,
        pacing: bool = True,
        auto_step: bool = True,
        behaviour: Behaviour | None = None,
        seed: int = 0,
    ) -> None:
        start = [2048.0] * len(ids) if positions is None else [float(position) for position in positions]
        if len(start) != len(ids):
            raise ValueError(f'One position per servo: {len(ids)} ids, got {len(start)} positions.')
        self.lock = threading.RLock()
        self.log = WriteLog()
        self.faults = FaultInjector(seed)
        self.servos = [
            VirtualServo(servo_id, position, behaviour, self._note_write)
            for servo_id, position in zip(ids, start, strict=True)
        ]
        self.dynamics = dynamics or SimpleDynamics(start)
        self._auto_step = auto_step
        self._stepping = threading.Lock()
        self._scratch = Scratch() if link is None else None
        self._link = self._scratch.path / 'arm' if self._scratch is not None else Path(str(link))
        self._line = PtyLine(self._link, self._handle, self.faults, self._tick, pacing=pacing)

    # ---- life --------------------------------------------------------------------------------------------

    @property
    def port(self) -> str:
        """Path to open as a serial port; the same after `unplug` and `replug`."""
        return str(self._link)

    def start(self) -> None:
        """Begin to serve."""
        self._line.start()

    def stop(self) -> None:
        """End serving and remove the port."""
        self._line.stop()
        if self._scratch is not None:
            self._scratch.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ---- what happens to an arm --------------------------------------------------------------------------

    def servo(self, servo_id: int) -> VirtualServo:
        """The servo with an id.

        Raises:
            KeyError: no servo has it.
        """
        for servo in self.servos:
            if servo.servo_id == servo_id:
                return servo
        raise KeyError(f'The virtual arm has the servos {[s.servo_id for s in self.servos]}, not {servo_id}.')

    def unplug(self) -> None:
        """Pull the USB cable: the port vanishes, the servos keep their power and their torque."""
        self._line.unplug()

    def replug(self) -> None:
        """Put the USB cable back."""
        self._line.plug_in()

    def power(self, on: bool, ids: Iterable[int] | None = None) -> None:
        """Switch the supply of all or some servos."""
        with self.lock:
            for servo in self.servos if ids is None else [self.servo(servo_id) for servo_id in ids]:
                if on:
                    servo.power_on()
                else:
                    servo.power_off()

    def power_cycle(self, ids: Iterable[int] | None = None) -> None:
        """Switch the supply off and on."""
        wanted = None if ids is None else list(ids)
        self.power(False, wanted)
        self.power(True, wanted)

    def set_environment(
        self, servo_id: int, *, voltage_v: float | None = None, temperature_c: float | None = None
    ) -> None:
        """Change the supply [V] or the temperature [degC] of a servo."""
        with self.lock:
            servo = self.servo(servo_id)
            servo.voltage_v = servo.voltage_v if voltage_v is None else voltage_v
            servo.temperature_c = servo.temperature_c if temperature_c is None else temperature_c
            servo.check_environment()

    def set_position(self, servo_id: int, encoder: float) -> None:
        """Turn a joint by hand to an encoder angle [ticks]; for the simple dynamics only."""
        dynamics, index = self._simple(servo_id)
        with self._stepping, self.lock:
            dynamics.positions[index] = encoder
            dynamics.velocities[index] = 0.0
            self.servos[index].moved(encoder, 0.0, 0.0, 0.0)

    def set_load(self, servo_id: int, share: float) -> None:
        """Load a joint with a share of its full torque, -1..1; for the simple dynamics only."""
        dynamics, index = self._simple(servo_id)
        dynamics.external[index] = share

    def set_stops(self, servo_id: int, lower: float, upper: float) -> None:
        """Put things in the way of a joint at two encoder angles [ticks]; for the simple dynamics only."""
        dynamics, index = self._simple(servo_id)
        dynamics.lower[index], dynamics.upper[index] = lower, upper

    def _simple(self, servo_id: int) -> tuple[SimpleDynamics, int]:
        if not isinstance(self.dynamics, SimpleDynamics):
            raise TypeError(f'The motors are moved by {type(self.dynamics).__name__}; change the pose there.')
        return self.dynamics, self.servos.index(self.servo(servo_id))

    # ---- time --------------------------------------------------------------------------------------------

    def step(self, dt: float) -> None:
        """Advance the motors by `dt` [s]."""
        with self._stepping:
            with self.lock:
                goals = np.array([servo.goal for servo in self.servos])
                torque = np.array([servo.torque_on for servo in self.servos])
                limits = MotionLimits(
                    duty=np.array([servo.duty_limit for servo in self.servos]),
                    speed=np.array([servo.speed_limit for servo in self.servos]),
                    acceleration=np.array([servo.acceleration_limit for servo in self.servos]),
                )
            motion = self.dynamics.step(dt, goals, torque, limits)
            with self.lock:
                states = zip(motion.positions, motion.velocities, motion.loads, strict=True)
                for servo, (position, velocity, load) in zip(self.servos, states, strict=True):
                    servo.moved(float(position), float(velocity), float(load), dt)

    def advance(self, duration_s: float, dt: float = 0.01) -> None:
        """Let time pass for the motors, as fast as the computer can [s]."""
        for _ in range(round(duration_s / dt)):
            self.step(dt)

    def _tick(self, elapsed_s: float) -> None:
        if self._auto_step:
            self.step(min(elapsed_s, _LONGEST_CATCH_UP_S))

    # ---- requests ----------------------------------------------------------------------------------------

    def _note_write(self, servo: ServoMemory, register: Reg, value: int) -> None:
        self.log.add(WriteEvent(time.monotonic(), servo.servo_id, register, value))

    def _handle(self, frame: Frame, baud_rate: int) -> list[Answer]:
        with self.lock:
            listening = [
                servo
                for servo in self.servos
                if servo.powered and servo.baud_rate == baud_rate and not self.faults.is_muted(servo.servo_id)
            ]
            if frame.code == Instruction.SYNC_READ:
                return self._sync_read(listening, frame.payload)
            if frame.code == Instruction.SYNC_WRITE:
                self._sync_write(listening, frame.payload)
                return []
            called = [servo for servo in listening if frame.servo_id in {servo.servo_id, BROADCAST_ID}]
            if frame.code == Instruction.PING:
                return _on_one_wire([(servo, _status(servo)) for servo in called])
            answers = [(servo, self._execute(servo, frame)) for servo in called]
            if frame.servo_id == BROADCAST_ID:
                return []
            return _on_one_wire([(servo, data) for servo, data in answers if data])

    def _execute(self, servo: VirtualServo, frame: Frame) -> bytes:
        """Carry out a request to one servo; empty when it does not answer."""
        payload, name = frame.payload, servo.servo_id
        if frame.code == Instruction.READ and len(payload) == 2:
            return _status(servo, servo.read_block(payload[0], payload[1]))
        speaks = servo.answers_writes
        if frame.code == Instruction.WRITE and len(payload) >= 2:
            servo.write_block(payload[0], payload[1:])
        elif frame.code == Instruction.REG_WRITE and len(payload) >= 2:
            servo.reg_write(payload[0], payload[1:])
        elif frame.code == Instruction.ACTION:
            servo.action()
        else:
            return b''
        # The acknowledgement of a new id still comes under the old one.
        return build(name, int(servo.latched)) if speaks else b''

    def _sync_read(self, listening: list[VirtualServo], payload: bytes) -> list[Answer]:
        if len(payload) < 3:
            return []
        answers = []
        for servo_id in payload[2:]:
            named = [servo for servo in listening if servo.servo_id == servo_id]
            answers += _on_one_wire(
                [(servo, _status(servo, servo.read_block(payload[0], payload[1]))) for servo in named]
            )
        return answers

    def _sync_write(self, listening: list[VirtualServo], payload: bytes) -> None:
        if len(payload) < 2:
            return
        address, size = payload[0], payload[1]
        for start in range(2, len(payload) - size, size + 1):
            row = payload[start + 1 : start + 1 + size]
            for servo in listening:
                if servo.servo_id == payload[start]:
                    servo.write_block(address, row)


def _status(servo: VirtualServo, data: bytes = b'') -> bytes:
    return build(servo.servo_id, int(servo.latched), data)


def _on_one_wire(answers: list[tuple[VirtualServo, bytes]]) -> list[Answer]:
    """Answers as they arrive: those of servos with one id overlap, and a zero bit of either wins."""
    merged: dict[int, Answer] = {}
    for servo, data in answers:
        before = merged.get(servo.servo_id)
        shared = data if before is None else _overlap(before.data, data)
        merged[servo.servo_id] = Answer(servo.servo_id, shared, servo.return_delay_s)
    return [merged[servo_id] for servo_id in sorted(merged)]


def _overlap(first: bytes, second: bytes) -> bytes:
    short, long = sorted((first, second), key=len)
    return bytes(a & b for a, b in zip(short, long, strict=False)) + long[len(short) :]


CENTRE = TICKS_PER_TURN // 2


def virtual_calibration() -> ArmCalibration:
    """Return the calibration of a perfectly assembled arm: each joint's middle is the model's zero."""
    joints = {}
    for name in JOINT_NAMES:
        lower, upper = JOINT_LIMITS_RAD[name]
        # The middle of the range is zero, so the range is symmetric; the gripper's begins where it is closed.
        half = math.ceil(((upper - lower) / 2.0 if name == GRIPPER else max(-lower, upper)) / RAD_PER_TICK)
        joints[name] = JointCalibration(
            id=SERVO_IDS[name],
            drive_mode=0,
            homing_offset=0,
            range_min=CENTRE - half,
            range_max=CENTRE + half,
        )
    return ArmCalibration(joints)


def calibrated_arm(
    calibration: ArmCalibration,
    pose_rad: npt.ArrayLike | None = None,
    *,
    link: Path | str | None = None,
    pacing: bool = True,
) -> VirtualArm:
    """Return a virtual arm whose servos hold a calibration.

    Args:
        calibration: What the servos' EEPROM shall hold.
        pose_rad: Joint positions at the start (6,) [rad]; the rest pose by default.
        link: Path under which the arm appears; a temporary one by default.
        pacing: Take the time that the bytes need on a real wire.
    """
    pose = GateConfig().rest_rad if pose_rad is None else pose_rad
    offsets = np.array([calibration[name].homing_offset for name in JOINT_NAMES])
    encoder = (calibration.rad_to_encoder_ticks(pose) + offsets) % TICKS_PER_TURN
    ids = [calibration[name].id for name in JOINT_NAMES]
    arm = VirtualArm(ids, link=link, positions=encoder.tolist(), pacing=pacing)
    for name in JOINT_NAMES:
        joint = calibration[name]
        servo = arm.servo(joint.id)
        servo.set(Reg.HOMING_OFFSET, joint.homing_offset)
        servo.set(Reg.MIN_POSITION_LIMIT, joint.range_min)
        servo.set(Reg.MAX_POSITION_LIMIT, joint.range_max)
    return arm
