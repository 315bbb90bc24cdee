# SPDX-License-Identifier: Apache-2.0
"""MuJoCo behind the servo bus: the simulated arm moves the motors that the virtual servos report."""

import threading
import time

import numpy as np

from so101_contract.joints import JOINT_NAMES
from so101_driver.calibration.calibration import ArmCalibration
from so101_driver.emulator.dynamics import Motion, MotionLimits
from so101_sim.servo import BoolArray, FloatArray, ServoLimits
from so101_sim.simulation import Simulation

RATE_WINDOW_S = 2.0


class MujocoDynamics:
    """`ServoDynamics` of the virtual arm, with a scene around the arm.

    The bus calls `step` from its own thread. Whoever else touches the simulation holds `lock`.

    Attributes:
        lock: held while the simulation changes.
    """

    def __init__(self, simulation: Simulation, calibration: ArmCalibration) -> None:
        """Prepare.

        Args:
            simulation: the arm and what is around it.
            calibration: what the servos' EEPROM holds: it says which encoder angle is which joint position.
        """
        self.lock = threading.Lock()
        self._simulation = simulation
        middle = (calibration.range_min + calibration.range_max) // 2
        at_middle, beside = calibration.ticks_to_rad(middle), calibration.ticks_to_rad(middle + 1)
        self._rad_per_tick = beside - at_middle
        offsets = np.array([calibration[name].homing_offset for name in JOINT_NAMES])
        self._zero_ticks = middle + offsets - at_middle / self._rad_per_tick
        self._left_s = 0.0
        self._clock = RateClock(RATE_WINDOW_S)

    @property
    def real_time_factor(self) -> float:
        """Simulated time per time, over the last seconds; 1.0 keeps up."""
        return self._clock.rate

    def step(self, dt: float, goals: FloatArray, torque: BoolArray, limits: MotionLimits) -> Motion:
        """Advance by `dt`; see `ServoDynamics`. What is shorter than a physics step is made up for next time."""
        self._left_s += dt
        steps = int(self._left_s / self._simulation.timestep_s)
        self._left_s -= steps * self._simulation.timestep_s
        scale = np.abs(self._rad_per_tick)
        bounds = ServoLimits(limits.duty, limits.speed * scale, limits.acceleration * scale)
        with self.lock:
            if steps:
                self._simulation.step(steps, self.to_rad(goals), torque, bounds)
            position = self._simulation.joint_positions.copy()
            velocity = self._simulation.joint_velocities.copy()
            load = self._simulation.servos.loads(self._simulation.data)
        self._clock.advance(steps * self._simulation.timestep_s)
        sign = np.sign(self._rad_per_tick)
        return Motion(self.to_ticks(position), velocity / self._rad_per_tick, load * sign)

    def to_rad(self, ticks: FloatArray) -> FloatArray:
        """Turn encoder angles (6,) [ticks] into joint positions [rad]."""
        return np.asarray((ticks - self._zero_ticks) * self._rad_per_tick)

    def to_ticks(self, rad: FloatArray) -> FloatArray:
        """Turn joint positions (6,) [rad] into encoder angles [ticks]."""
        return np.asarray(rad / self._rad_per_tick + self._zero_ticks)


class RateClock:
    """Measures how fast simulated time passes."""

    def __init__(self, window_s: float) -> None:
        """Measure over windows of that length [s]."""
        self._window_s = window_s
        self._start: float | None = None
        self._simulated = 0.0
        self.rate = 1.0
        """Simulated time per time in the last whole window; 1 before the first."""

    def advance(self, simulated_s: float, now: float | None = None) -> None:
        """Count simulated time that has passed [s]."""
        now = time.monotonic() if now is None else now
        if self._start is None:
            self._start = now
            return
        self._simulated += simulated_s
        elapsed = now - self._start
        if elapsed >= self._window_s:
            self.rate = self._simulated / elapsed
            self._start, self._simulated = now, 0.0
