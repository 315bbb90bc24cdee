# SPDX-License-Identifier: Apache-2.0
"""One arm: bus, calibration and safety gate, joined into one cycle. No ROS, no thread, no sleep.

The way up is bytes -> `ServoReading` [ticks] -> `ArmReading` [rad] -> `ArmState`, the way down a goal [rad] of the
gate -> ticks -> bytes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
import logging

import numpy as np

from so101_contract.errors import VelocityError
from so101_contract.joints import JOINT_NAMES, VelocityEstimator
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import BusError, PortError
from so101_driver.bus.readings import BusReading
from so101_driver.bus.registers import LOAD_FULL_SCALE, MULTI_TURN_PHASE_BIT, Reg
from so101_driver.calibration.calibration import ArmCalibration, ArmReading
from so101_driver.calibration.checks import Difference, differences
from so101_driver.calibration.servo import read_servo_values
from so101_driver.gate.gate import SafetyGate
from so101_driver.gate.types import GateOutput, Vector
from so101_interfaces_py.params import check_bounds, param

logger = logging.getLogger(__name__)

# A servo that restarts is silent for longer; on a wire that loses every fifth answer this is rare.
SILENT_CYCLES = 3
# Without smoothing, one encoder tick between two cycles at 100 Hz reads as 0.15 rad/s.
VELOCITY_SMOOTHING_S = 0.03
# What every servo is set to at each connect, in RAM alone: the EEPROM cells are spared.
SERVO_SETTINGS: Mapping[Reg, int] = {
    Reg.RETURN_DELAY_TIME: 0,
    Reg.OPERATING_MODE: 0,
    Reg.P_COEFFICIENT: 16,
    Reg.I_COEFFICIENT: 0,
    Reg.D_COEFFICIENT: 32,
    Reg.ACCELERATION: 254,
    Reg.GOAL_VELOCITY: 0,
}


@dataclass(frozen=True, kw_only=True)
class DriverConfig:
    """Which arm, how fast, and how it starts and ends."""

    port: str = param('/dev/so101', doc='Serial device of the servo bus; a by-id or by-path link is best.')
    calibration: str = param(
        '', doc='Calibration: a file, or the name of an arm; empty: the only one that there is.'
    )
    rate_hz: float = param(100.0, doc='Control rate.', unit='Hz', lo=10.0, hi=200.0)
    enable_at_start: bool = param(
        False, doc='Switch torque on as soon as the arm answers, without a request.'
    )
    connect_timeout_s: float = param(
        10.0, doc='How long to wait at start for the arm to answer.', unit='s', lo=0.0, hi=300.0
    )
    exit_timeout_s: float = param(
        3.0,
        doc='Longest time for parking at exit; what has not arrived then is released where it is.',
        unit='s',
        lo=0.0,
        hi=30.0,
    )
    frame_id: str = param('base_link', doc='frame_id of joint_states.')
    frame_prefix: str = param(
        '', doc='Put before every frame that is published, so that two arms share a tree.'
    )
    status_rate_hz: float = param(10.0, doc='Rate of arm/status.', unit='Hz', lo=0.1, hi=50.0)

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)


class ArmMismatchError(Exception):
    """The arm on the bus is not the one that the calibration was made for."""


@dataclass(frozen=True)
class ArmState:
    """What one cycle found and did.

    Attributes:
        reading: the joints, with the time at which they were read.
        velocity_rad_s: joint velocities (6,) [rad/s], from positions and the times at which they were read.
        output: what the gate decided.
        mute: joints whose servo has been silent for longer than the gate believes a reading, while all others
            answered in this cycle.
    """

    reading: ArmReading
    velocity_rad_s: Vector
    output: GateOutput
    mute: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every joint was read in this cycle; else `reading` holds older values."""
        return self.reading.complete


class Arm:
    """One arm on one bus. One thread owns it; `gate.request_e_stop` alone may come from another.

    Args:
        bus: The servos, port closed.
        calibration: Of this arm.
        gate: Decides what is written.
        clock: Monotonic time [s].
    """

    def __init__(
        self, bus: ServoBus, calibration: ArmCalibration, gate: SafetyGate, clock: Callable[[], float]
    ) -> None:
        self.bus = bus
        self.calibration = calibration
        self.gate = gate
        self._clock = clock
        self._velocity = VelocityEstimator(smoothing_s=VELOCITY_SMOOTHING_S)
        self._position = np.full(len(JOINT_NAMES), np.nan)
        self._power = PowerWatch(bus, SERVO_SETTINGS[Reg.ACCELERATION])
        self._torque_limit: Vector | None = None
        self._mute: tuple[str, ...] = ()
        self._ready = False
        self._restarted: tuple[int, ...] = ()

    def connect(self) -> None:
        """Open the port, check that this is the calibrated arm, and configure the servos. Nothing moves.

        Raises:
            BusError: the port or a servo does not answer, or the servos are not as expected.
            ArmMismatchError: the servos' offsets and limits differ from the calibration.
        """
        try:
            self._check_and_configure()
        except (BusError, ArmMismatchError):
            self.bus.close(
                torque_off=False
            )  # the next attempt looks anew at what the name of the port leads to
            raise

    def _check_and_configure(self) -> None:
        self.bus.open()
        self.bus.handshake()
        wrong = self._differences()
        if wrong:
            raise ArmMismatchError(
                f'the servos on {self.bus.port} do not hold calibration {self.calibration.calibration_id}: '
                f'{"; ".join(map(str, wrong))}. Calibrate this arm, or name its own calibration file.'
            )
        self._configure()
        self._ready = True

    def _differences(self) -> tuple[Difference, ...]:
        """Return in what the servos differ from the calibration, where two readings say so.

        Raises:
            BusError: the two differ: one late answer shall not send anybody to calibrate.
        """
        first = differences(self.calibration, read_servo_values(self.bus))
        again = differences(self.calibration, read_servo_values(self.bus)) if first else ()
        if first != again:
            raise BusError(
                f'expected the same from two readings of the servos on {self.bus.port}, got '
                f'{"; ".join(map(str, first))} once only; answers come late or damaged: try again, check the cables'
            )
        return first

    def cycle(self) -> ArmState:
        """Read all joints, let the gate decide, write what it says. A lost port is opened again by and by."""
        reading = self._read()
        output = self.gate.tick(self._clock(), reading)
        for event in output.events:
            logger.info('%s', event)
        if self.bus.is_open:
            try:
                self._write(output)
            except PortError as error:
                self._lost(error)
        mute = self._mute_joints(reading)
        return ArmState(reading, self._velocity_at(reading, mute), output, mute)

    def close(self) -> None:
        """Close the port; torque goes off unless the exit policy is to hold. Safe to call twice."""
        hold = self.gate.config.exit_policy == 'hold'
        self.bus.close(torque_off=not hold)

    # --- reading ---

    def _read(self) -> ArmReading:
        try:
            if not self._ready and not self._reconnected():
                raise PortError('the port is closed')
            bus_reading = self.bus.cycle_read()
            self._restarted = self._power.restarted(bus_reading)
        except PortError as error:
            self._lost(error)
            return ArmReading.nothing(self._clock())
        if self._restarted:
            # Nothing is written, nor the arm enabled, before it is set up again, which the next cycle does.
            self._ready = False
            return ArmReading.nothing(self._clock())
        return self._decode(bus_reading)

    def _decode(self, bus_reading: BusReading) -> ArmReading:
        servos = bus_reading.servos
        if all(servo.known for servo in servos):
            self._position = self.calibration.ticks_to_rad([servo.position_ticks for servo in servos])

        def column(name: str) -> Vector:
            return np.array([getattr(servo, name) for servo in servos], dtype=np.float64)

        return ArmReading(
            position_rad=self._position,
            velocity_rad_s=self.calibration.velocity_to_rad_s([servo.velocity_ticks_s for servo in servos]),
            temperature_c=column('temperature_c'),
            voltage_v=column('voltage_v'),
            current_a=column('current_a'),
            load=column('load'),
            error=np.array([int(servo.faults) for servo in servos]),
            age_s=column('age_s'),
            fresh=np.array([servo.ok for servo in servos]),
            stamp_s=bus_reading.stamp_s,
        )

    def _mute_joints(self, reading: ArmReading) -> tuple[str, ...]:
        """Return the joints of which nothing is heard any longer; none where the others were not heard either."""
        mute = ~(reading.age_s <= self.gate.config.reading_max_age_s)
        if mute.all() or not reading.fresh[~mute].all() or not np.isfinite(reading.position_rad).all():
            return ()  # nor before all were heard once: there is no angle of any of them yet
        return tuple(name for name, silent in zip(JOINT_NAMES, mute, strict=True) if silent)

    def _velocity_at(self, reading: ArmReading, mute: tuple[str, ...]) -> Vector:
        if mute != self._mute:  # between its last angle and the one that it comes back with lies no speed
            self._mute = mute
            self._velocity.reset()
        if reading.complete or mute:
            try:
                return self._velocity.update(round(reading.stamp_s * 1e9), reading.position_rad)
            except VelocityError:
                pass
        return np.zeros(len(JOINT_NAMES))

    # --- writing ---

    def _write(self, output: GateOutput) -> None:
        sure = self._ready and not self._power.unsure
        if sure:
            self._write_goals(output)
        # Whatever is wrong with a servo: torque that is to go off goes off.
        if output.write_torque and (sure or not output.torque):
            self.bus.write_all(Reg.TORQUE_ENABLE, dict.fromkeys(self.bus.ids, int(output.torque)))

    def _write_goals(self, output: GateOutput) -> None:
        if self._torque_limit is None or not np.array_equal(output.torque_limit, self._torque_limit):
            limits = {
                servo_id: round(float(limit) * LOAD_FULL_SCALE)
                for servo_id, limit in zip(self.bus.ids, output.torque_limit, strict=True)
            }
            self.bus.write_all(Reg.TORQUE_LIMIT, limits)
            self._torque_limit = output.torque_limit
        if output.goal_rad is not None:
            ticks = self.calibration.rad_to_ticks(output.goal_rad)
            self.bus.write_goals(dict(zip(self.bus.ids, map(int, ticks), strict=True)))

    # --- connecting ---

    def _configure(self) -> None:
        for servo_id, phase in self.bus.read_all(Reg.PHASE).items():
            if phase & MULTI_TURN_PHASE_BIT:
                self.bus.write(servo_id, Reg.PHASE, phase & ~MULTI_TURN_PHASE_BIT)
        for register, value in SERVO_SETTINGS.items():
            self.bus.write_all(register, dict.fromkeys(self.bus.ids, value))
        limits = zip(self.bus.ids, self.gate.config.torque_limit, strict=True)
        self.bus.write_torque_limit(dict(limits))
        self._torque_limit = None
        self._velocity.reset()
        self._power.reset()

    def _lost(self, error: PortError) -> None:
        if self._ready:
            logger.error('%s', error)
        self._ready = False

    def _reconnected(self) -> bool:
        """Try once to bring a lost arm back; it may have lost its power, so everything is checked again."""
        if not self.bus.reconnect():
            return False
        try:
            self.connect()
            limp = {servo_id for servo_id, on in self.bus.read_all(Reg.TORQUE_ENABLE).items() if not on}
        except (BusError, ArmMismatchError) as error:
            logger.warning('the port is back, the arm is not: %s', error)
            self.bus.close(torque_off=False)
            return False
        limp |= set(self._restarted)
        self._restarted = ()
        if limp and self.gate.permits_goals:
            # They were without power: the arm has fallen, and an old goal would make it jump.
            # After a fault no goal is written anyway, and the other servos had better go on holding.
            which = ', '.join(map(str, sorted(limp)))
            self.gate.request_disable(self._clock(), f'servo {which} was without power; enable to go on')
        self.gate.reconnected(self._clock())
        logger.info('the arm is back on %s', self.bus.port)
        return True


class PowerWatch:
    """Asks each servo that was silent for some cycles whether it still knows how it was set up.

    A servo that restarts forgets what is kept in RAM: its torque is off, and the joint falls. Its port is
    still there, and its next goal would switch the torque on again, far from where the joint now is.

    Args:
        bus: The servos.
        acceleration: What Acceleration was set to, another value than that of a new start.

    Attributes:
        unsure: A servo came back and did not answer the question; write nothing until it has.
    """

    def __init__(self, bus: ServoBus, acceleration: int) -> None:
        self.unsure = False
        self._bus = bus
        self._acceleration = acceleration
        self._silent = dict.fromkeys(bus.ids, 0)

    def reset(self) -> None:
        """Forget the silence: the servos have just been set up."""
        self.unsure = False
        self._silent = dict.fromkeys(self._bus.ids, 0)

    def restarted(self, reading: BusReading) -> tuple[int, ...]:
        """Ids of the servos that are back after a silence and have forgotten how they were set up.

        Raises:
            PortError: the port is gone.
        """
        back = []
        for servo in reading.servos:
            if not servo.ok:
                self._silent[servo.servo_id] += 1
            elif self._silent[servo.servo_id] >= SILENT_CYCLES:
                back.append(servo.servo_id)
            else:
                self._silent[servo.servo_id] = 0
        found = self._bus.read_available(Reg.ACCELERATION, back) if back else {}
        self._silent |= dict.fromkeys(found, 0)
        self.unsure = len(found) < len(back)
        return tuple(servo_id for servo_id, value in found.items() if value != self._acceleration)
