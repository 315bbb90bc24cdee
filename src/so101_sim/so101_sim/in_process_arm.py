# SPDX-License-Identifier: Apache-2.0
"""From an action to the servos and back, in one process and in simulated time.

This is what kinematics_node and arm_node do in the ROS graph, made of the same parts: the end-effector controller at
50 Hz, the driver's goal follower at 100 Hz, goals and readings rounded to encoder ticks, velocities
from stamped positions. So what is learned here meets the same arm there.
"""

from dataclasses import dataclass

import numpy as np

from so101_contract.action import EeDeltaValue
from so101_contract.joints import NUM_JOINTS, VelocityEstimator
from so101_contract.messages import ExecutedAction
from so101_contract.session import NO_EPISODE, Source
from so101_driver.arm import DriverConfig, SERVO_SETTINGS, VELOCITY_SMOOTHING_S
from so101_driver.bus.registers import ACCELERATION_UNIT, Reg
from so101_driver.calibration.calibration import RAD_PER_TICK
from so101_driver.gate.config import GateConfig, GRIPPER_INDEX
from so101_driver.gate.follower import GoalFollower, Grip
from so101_kinematics.ee_controller import EeController
from so101_kinematics.fk import ForwardKinematics
from so101_sim.scene.presets import ArmControl
from so101_sim.scene.servo import FloatArray, ServoLimits
from so101_sim.scene.simulation import Simulation

DRIVER_RATE_HZ = DriverConfig().rate_hz
_CALM = np.zeros(NUM_JOINTS)


@dataclass(frozen=True)
class Reading:
    """What the arm says of its joints.

    Attributes:
        stamp_ns: when they were read, simulated [ns].
        position: (6,) [rad].
        velocity: (6,) [rad/s].
    """

    stamp_ns: int
    position: FloatArray
    velocity: FloatArray


class InProcessArm:
    """The arm of one simulation, as the ROS graph would move it."""

    def __init__(
        self, simulation: Simulation, control: ArmControl, fk: ForwardKinematics | None = None
    ) -> None:
        """Prepare.

        Args:
            simulation: whose arm is moved.
            control: how actions reach its servos.
            fk: forward kinematics of the control's TCP preset, which need not know the scene.
        """
        self._simulation, self._control = simulation, control
        config = control.kinematics
        self.fk = ForwardKinematics(config.tcp) if fk is None else fk
        self.controller = EeController(config, self.fk)
        self._driver = None if control.gate is None else _Driver(simulation, control.gate)
        tick_s = 1.0 / config.rate_hz
        self._steps_per_tick = round(tick_s / simulation.timestep_s)
        self._velocity = VelocityEstimator(
            smoothing_s=0.0 if control.gate is None else VELOCITY_SMOOTHING_S, max_gap_s=1.0
        )
        self._opening = 0.0
        self._reading = Reading(0, _CALM, _CALM)

    @property
    def reading(self) -> Reading:
        """The newest reading."""
        return self._reading

    @property
    def commanded_opening(self) -> float:
        """The opening asked for last."""
        return self._opening

    def reset(self, opening: float) -> Reading:
        """Start over from where the simulation stands.

        Args:
            opening: what counts as the opening asked for last.
        """
        self._opening = opening
        position = self._simulation.joint_positions
        if self._driver is not None:
            self._driver.reset(position)
        self._velocity.reset()
        self._read()
        # A new one, since the clock starts over too: nothing of the episode before may show in this one.
        self.controller = EeController(self._control.kinematics, self.fk)
        self.controller.reseed(self._reading.position, position)
        return self._reading

    def run(self, action: EeDeltaValue) -> Reading:
        """Let one step pass in which an action is executed; return the reading at its end."""
        for tick in range(self._control.ticks):
            executed = self._executed(action) if tick == self._control.latency_ticks else None
            now = self._simulation.data.time
            stamp = self._reading.stamp_ns * 1e-9
            command = self.controller.update(now, self._reading.position, stamp, executed)
            goal = command.q_goal
            if goal is None:  # not before the first action: reset has seeded the controller
                goal = self._reading.position
            self.drive(goal)
        return self._reading

    def drive(self, goal: FloatArray) -> Reading:
        """Let one controller period pass with joint goals (6,) [rad]; return the reading at its end."""
        if self._driver is None:
            self._simulation.step(self._steps_per_tick, goal)
            self._read()
            return self._reading
        for _ in range(self._driver.ticks_in(self._steps_per_tick)):
            self._driver.tick(goal, self._reading)
            self._read()
        return self._reading

    def _executed(self, action: EeDeltaValue) -> ExecutedAction:
        self._opening = action.opening
        now, said = self._simulation.data.time, (action.translation, action.opening)
        return ExecutedAction(NO_EPISODE, 0, *said, Source.POLICY, round(now * 1e9))

    def _read(self) -> None:
        stamp = round(self._simulation.data.time * 1e9)
        position = self._simulation.joint_positions
        if self._driver is None:
            velocity = self._simulation.joint_velocities
        else:
            position = np.rint(position / RAD_PER_TICK) * RAD_PER_TICK
            velocity = self._velocity.update(stamp, position)
        self._reading = Reading(stamp, position, velocity)


class _Driver:
    """The part of arm_node that decides about goals: its `GoalFollower`, at its rate."""

    def __init__(self, simulation: Simulation, config: GateConfig) -> None:
        self._simulation = simulation
        self.follower = GoalFollower(config)
        self._tick_s = 1.0 / DRIVER_RATE_HZ
        self._steps = round(self._tick_s / simulation.timestep_s)
        acceleration = SERVO_SETTINGS[Reg.ACCELERATION] * ACCELERATION_UNIT * RAD_PER_TICK
        self._limits = ServoLimits(
            duty=np.array(config.torque_limit),
            speed=np.full(NUM_JOINTS, np.inf),
            acceleration=np.full(NUM_JOINTS, acceleration),
        )

    def reset(self, position: FloatArray) -> None:
        self.follower.seed(position)
        self.follower.let_go()

    def ticks_in(self, physics_steps: int) -> int:
        return round(physics_steps / self._steps)

    def tick(self, target: FloatArray, reading: Reading) -> None:
        """Let one driver period pass with the goals led towards the target."""
        simulation = self._simulation
        load = float(simulation.servos.loads(simulation.data)[GRIPPER_INDEX])
        grip = Grip(float(simulation.joint_velocities[GRIPPER_INDEX]), load)
        goal = self.follower.lead(target, reading.position, self._tick_s, grip)
        simulation.step(self._steps, np.rint(goal / RAD_PER_TICK) * RAD_PER_TICK, limits=self._limits)
