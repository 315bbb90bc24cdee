# SPDX-License-Identifier: Apache-2.0
"""What one cycle of the bus tells about the arm."""

from __future__ import annotations

from dataclasses import dataclass
import math

from so101_driver.bus.registers import NO_FAULT, ServoError, wrap_ticks


@dataclass(frozen=True, slots=True)
class ServoReading:
    """Last good state of one servo.

    Attributes:
        servo_id: id on the bus.
        ok: whether this state came in the present cycle; False means that it is `age_s` old.
        age_s: time since this state was measured [s]; infinity where none ever came.
        position_ticks: position as the servo says it, signed [ticks]; outside 0..4095 in multi-turn only.
        velocity_ticks_s: speed [ticks/s].
        load: duty of the motor -1..1, positive with positive speed. Not a torque.
        voltage_v: supply voltage [V].
        temperature_c: temperature [degC].
        current_a: motor current [A].
        status: faults in register 65.
        error: faults in the error byte of the answer.
        moving: whether the servo says that it moves.
    """

    servo_id: int
    ok: bool = False
    age_s: float = math.inf
    position_ticks: int = 0
    velocity_ticks_s: int = 0
    load: float = 0.0
    voltage_v: float = 0.0
    temperature_c: float = 0.0
    current_a: float = 0.0
    status: ServoError = NO_FAULT
    error: ServoError = NO_FAULT
    moving: bool = False

    @property
    def faults(self) -> ServoError:
        """Every fault that the servo reports, in the error byte or in register 65."""
        return self.status | self.error

    @property
    def wrapped_ticks(self) -> int:
        """Position on one turn, 0..4095, the same angle as `position_ticks`."""
        return wrap_ticks(self.position_ticks)

    @property
    def known(self) -> bool:
        """Whether a state ever came."""
        return math.isfinite(self.age_s)


@dataclass(frozen=True, slots=True)
class BusReading:
    """State of all servos after one cycle.

    Attributes:
        stamp_s: time on the monotonic clock at which the cycle began [s].
        duration_s: how long the cycle took, retries included [s].
        servos: one entry per expected servo, in the order of the bus's ids.
    """

    stamp_s: float
    duration_s: float
    servos: tuple[ServoReading, ...]

    @property
    def ok(self) -> bool:
        """Whether every servo answered in this cycle."""
        return all(servo.ok for servo in self.servos)

    @property
    def missing(self) -> tuple[int, ...]:
        """Ids of the servos that did not answer in this cycle."""
        return tuple(servo.servo_id for servo in self.servos if not servo.ok)

    @property
    def worst_age_s(self) -> float:
        """Age of the oldest state [s]; infinity where one servo never answered."""
        return max((servo.age_s for servo in self.servos), default=math.inf)

    def servo(self, servo_id: int) -> ServoReading:
        """Reading of one servo.

        Raises:
            KeyError: the bus does not expect this id.
        """
        for servo in self.servos:
            if servo.servo_id == servo_id:
                return servo
        raise KeyError(f'Servo {servo_id} is not among the expected ids {[s.servo_id for s in self.servos]}.')
