# SPDX-License-Identifier: Apache-2.0
"""How the motors of the virtual arm move: an interface for a physics engine, and a small model of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

TOP_SPEED = 3400.0  # no-load speed of an STS3215 at 7.4 V [ticks/s]


@dataclass(frozen=True)
class MotionLimits:
    """What each servo allows its motor, shape (servos,) each.

    Attributes:
        duty: largest share of the full duty, 0..1.
        speed: largest speed [ticks/s]; infinity for none.
        acceleration: largest acceleration [ticks/s^2]; infinity for none.
    """

    duty: FloatArray
    speed: FloatArray
    acceleration: FloatArray


@dataclass(frozen=True)
class Motion:
    """Where each motor is after a step, shape (servos,) each.

    Attributes:
        positions: encoder angle before the homing offset, counted on beyond a turn [ticks].
        velocities: [ticks/s].
        loads: duty of the motor, -1..1.
    """

    positions: FloatArray
    velocities: FloatArray
    loads: FloatArray


class ServoDynamics(Protocol):
    """Moves the motors. A physics engine implements this to stand behind the virtual bus."""

    def step(self, dt: float, goals: FloatArray, torque: BoolArray, limits: MotionLimits) -> Motion:
        """Advance by `dt`.

        Args:
            dt: time step [s].
            goals: target angle of each motor, in the unit of `Motion.positions` [ticks], shape (servos,).
            torque: whether each motor is driven, shape (servos,).
            limits: what each servo allows.
        """
        ...


class SimpleDynamics:
    """Independent motors with a position controller, friction, load and mechanical stops.

    Args:
        positions: where the motors are at the start [ticks].
        stiffness_ticks: error that gives full duty [ticks].
        substep_s: longest step of the integration [s].

    Attributes:
        positions: encoder angles [ticks]; may be set, as a hand moves a joint.
        velocities: speeds [ticks/s].
        external: load on each motor as a share of its full torque, -1..1, e.g. the weight of the arm.
        lower: mechanical stops or things in the way [ticks].
        upper: the same, above.
    """

    # Chosen for a settled step without overshoot: time constant to top speed 50 ms, critical damping.
    _INERTIA = 0.05 / TOP_SPEED
    _DRAG = 1.0 / TOP_SPEED

    def __init__(
        self, positions: Sequence[float], stiffness_ticks: float = 100.0, substep_s: float = 0.002
    ) -> None:
        count = len(positions)
        self.positions: FloatArray = np.array(positions, dtype=np.float64)
        self.velocities: FloatArray = np.zeros(count)
        self.external: FloatArray = np.zeros(count)
        self.lower: FloatArray = np.full(count, -np.inf)
        self.upper: FloatArray = np.full(count, np.inf)
        self._reference = self.positions.copy()
        self._reference_speed: FloatArray = np.zeros(count)
        self._substep_s = substep_s
        self._stiffness = 1.0 / stiffness_ticks
        self._damping = max(0.0, 2.0 * np.sqrt(self._stiffness * self._INERTIA) - self._DRAG)

    def step(self, dt: float, goals: FloatArray, torque: BoolArray, limits: MotionLimits) -> Motion:
        """Advance by `dt`; see `ServoDynamics`."""
        loads = np.zeros_like(self.positions)
        steps = max(1, int(np.ceil(dt / self._substep_s)))
        for _ in range(steps):
            loads = self._substep(dt / steps, goals, torque, limits)
        return Motion(self.positions.copy(), self.velocities.copy(), loads)

    def _substep(self, dt: float, goals: FloatArray, torque: BoolArray, limits: MotionLimits) -> FloatArray:
        self._profile(dt, goals, torque, limits)
        error = self._reference - self.positions
        wanted = self._stiffness * error + self._damping * (self._reference_speed - self.velocities)
        wanted += self._DRAG * self._reference_speed
        duty = np.where(torque, np.clip(wanted, -limits.duty, limits.duty), 0.0)
        acceleration = (duty + self.external - self._DRAG * self.velocities) / self._INERTIA
        self.velocities = np.clip(self.velocities + acceleration * dt, -TOP_SPEED, TOP_SPEED)
        moved = self.positions + self.velocities * dt
        self.positions = np.clip(moved, self.lower, self.upper)
        self.velocities = np.where(self.positions == moved, self.velocities, 0.0)
        return duty

    def _profile(self, dt: float, goals: FloatArray, torque: BoolArray, limits: MotionLimits) -> None:
        """Move the reference towards the goal within the limits of speed and acceleration."""
        distance = goals - self._reference
        # not faster than what can be braked in the distance that is left
        braking = np.sqrt(2.0 * np.minimum(limits.acceleration, 1e9) * np.abs(distance))
        speed = np.minimum(np.minimum(limits.speed, TOP_SPEED), np.minimum(braking, np.abs(distance) / dt))
        change = np.minimum(limits.acceleration, 1e9) * dt
        target_speed = np.sign(distance) * speed
        self._reference_speed += np.clip(target_speed - self._reference_speed, -change, change)
        self._reference += self._reference_speed * dt
        # a motor that is off is where it is
        self._reference = np.where(torque, self._reference, self.positions)
        self._reference_speed = np.where(torque, self._reference_speed, 0.0)
