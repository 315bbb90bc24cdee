# SPDX-License-Identifier: Apache-2.0
"""The arm's motors: how strong, stiff, fast, sluggish and loose they are, and what drives them in the simulation.

A motor is a position servo: torque = stiffness * (goal - joint) - damping * speed, cut to its stall torque times the
duty that is allowed. The speed at which friction and back-EMF use up the stall torque is the no-load speed. Between
the goal that is written and the one that the motor pursues lie, in this order: a lag, the servo's own limits of speed
and acceleration, and backlash.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import math
from types import MappingProxyType

import mujoco
import numpy as np
import numpy.typing as npt

from so101_contract.joints import JOINT_NAMES, NUM_JOINTS
from so101_description.model import ArmIndex
from so101_sim.errors import PresetError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_ENDLESS = 1e6  # an acceleration that limits nothing, and can be multiplied by zero [rad/s^2]
RPM = 2.0 * math.pi / 60.0


@dataclass(frozen=True, kw_only=True)
class ServoModel:
    """One kind of servo; all six joints have the same.

    Attributes:
        stall_torque: torque at full output without motion [N m].
        no_load_speed: speed at full output without load [rad/s].
        stiffness: torque per position error [N m/rad].
        damping: torque per speed that the controller adds against motion [N m s/rad].
        friction: dry friction [N m].
        lag_s: time constant with which the servo takes notice of a new goal [s].
        backlash_rad: play between motor and joint, end to end [rad].
    """

    stall_torque: float
    no_load_speed: float
    stiffness: float = 100.0
    damping: float = 2.5
    friction: float = 0.052
    lag_s: float = 0.0
    backlash_rad: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        positive = (self.stall_torque, self.no_load_speed, self.stiffness)
        others = (self.damping, self.friction, self.lag_s, self.backlash_rad)
        if not all(value > 0.0 for value in positive) or not all(value >= 0.0 for value in others):
            raise PresetError(
                f'expected positive torque, speed and stiffness and no negative value, got {self}'
            )
        if self.friction >= self.stall_torque:
            raise PresetError(
                f'expected dry friction below the stall torque of {self.stall_torque} N m, got {self.friction}; '
                f'such a servo never moves'
            )

    @property
    def drag(self) -> float:
        """Viscous friction of the joint, back-EMF included [N m s/rad]."""
        return (self.stall_torque - self.friction) / self.no_load_speed


SERVOS: Mapping[str, ServoModel] = MappingProxyType(
    {
        # Torque and speed are the vendor's data. Stiffness and damping are such that a step does not overshoot and a
        # stretched arm rests half a degree from its goal; with the official gains of 998 and 2.7 so weak a motor
        # brakes too late: a step of 0.1 rad overshoots by 39 %.
        'sts3215_7v4': ServoModel(stall_torque=1.91, no_load_speed=52 * RPM),
        'sts3215_6v': ServoModel(stall_torque=1.62, no_load_speed=42 * RPM),
        'sts3215_12v': ServoModel(stall_torque=2.94, no_load_speed=45 * RPM),
        # Stiffness that arms show: 20 to 30 ticks of droop under 1.5 N m with P = 32, half that stiffness with the 16
        # that the driver writes.
        'sts3215_7v4_soft': ServoModel(
            stall_torque=1.91, no_load_speed=52 * RPM, stiffness=20.0, damping=1.0, friction=0.06
        ),
        # As the vendor's MJCF has it; policies of pick-101 were trained with it.
        'official': ServoModel(
            stall_torque=3.35, no_load_speed=(3.35 - 0.052) / 0.60, stiffness=998.22, damping=2.731
        ),
    }
)
"""Servos by name."""


def get_servo(servo: str | ServoModel) -> ServoModel:
    """Return the servo of that name; a servo is returned as it is."""
    if isinstance(servo, ServoModel):
        return servo
    if servo not in SERVOS:
        raise PresetError(
            f'expected one of the servos {list(SERVOS)}, got {servo!r}; name one or make a ServoModel'
        )
    return SERVOS[servo]


def set_servos(spec: mujoco.MjSpec, servo: ServoModel) -> None:
    """Give all motors of a robot the properties of a servo."""
    for name in JOINT_NAMES:
        actuator, joint = spec.actuator(name), spec.joint(name)
        actuator.gainprm[0] = servo.stiffness
        actuator.biasprm[1], actuator.biasprm[2] = -servo.stiffness, -servo.damping
        actuator.forcerange = (-servo.stall_torque, servo.stall_torque)
        joint.damping[0] = servo.drag
        joint.frictionloss = servo.friction


@dataclass(frozen=True)
class ServoLimits:
    """What the registers of each servo allow its motor, (6,) each.

    Attributes:
        duty: largest share of the stall torque, 0..1.
        speed: largest speed [rad/s]; infinity for none.
        acceleration: largest acceleration [rad/s^2]; infinity for none.
    """

    duty: FloatArray
    speed: FloatArray
    acceleration: FloatArray

    @classmethod
    def none(cls) -> 'ServoLimits':
        """Return limits that limit nothing."""
        endless = np.full(NUM_JOINTS, np.inf)
        return cls(np.ones(NUM_JOINTS), endless, endless)


class ServoBank:
    """The six motors of one arm in a simulation."""

    def __init__(self, model: mujoco.MjModel, arm: ArmIndex, servo: ServoModel) -> None:
        """Prepare.

        Args:
            model: its torque limits are changed whenever a servo's duty or torque switch is.
            arm: where the arm is in the model.
            servo: what was given to `set_servos`.
        """
        self.servo = servo
        self._model, self._arm = model, arm
        self._heard = np.zeros(NUM_JOINTS)
        self._reference = np.zeros(NUM_JOINTS)
        self._speed = np.zeros(NUM_JOINTS)
        self._pursued = np.zeros(NUM_JOINTS)
        self._duty: FloatArray = np.full(NUM_JOINTS, np.nan)

    def reset(self, data: mujoco.MjData) -> None:
        """Start from where the joints are, at rest, with full torque."""
        position = data.qpos[self._arm.qpos]
        self._heard, self._reference, self._pursued = position.copy(), position.copy(), position.copy()
        self._speed = np.zeros(NUM_JOINTS)
        data.ctrl[self._arm.ctrl] = position
        self._set_duty(np.ones(NUM_JOINTS))

    def step(
        self,
        data: mujoco.MjData,
        steps: int,
        goals: FloatArray,
        torque: BoolArray | None = None,
        limits: ServoLimits | None = None,
    ) -> None:
        """Let the physics run for some steps with unchanged goals.

        Args:
            data: the state.
            steps: number of physics steps.
            goals: (6,) goals [rad].
            torque: (6,) whether each motor is driven; all by default.
            limits: what the registers allow; nothing is limited by default.
        """
        elapsed = steps * self._model.opt.timestep
        position = data.qpos[self._arm.qpos]
        self._follow(elapsed, goals, limits)
        if torque is not None and not torque.all():  # a motor that is off is where it is
            for values in (self._heard, self._reference, self._pursued):
                values[~torque] = position[~torque]
            self._speed[~torque] = 0.0
        duty = np.ones(NUM_JOINTS) if limits is None else limits.duty
        self._set_duty(duty if torque is None else np.where(torque, duty, 0.0))
        data.ctrl[self._arm.ctrl] = self._pursued
        mujoco.mj_step(self._model, data, steps)

    def loads(self, data: mujoco.MjData) -> FloatArray:
        """Return the output of each motor as a share of its stall torque (6,), -1..1."""
        return np.asarray(data.actuator_force[self._arm.ctrl] / self.servo.stall_torque)

    def _follow(self, elapsed: float, goals: FloatArray, limits: ServoLimits | None) -> None:
        """Bring the goal that the motor pursues closer to the one that was written."""
        servo = self.servo
        if servo.lag_s > 0.0:
            self._heard += (goals - self._heard) * -math.expm1(-elapsed / servo.lag_s)
        else:
            self._heard = goals.copy()
        if limits is None:
            self._reference = self._heard.copy()
        else:
            self._profile(elapsed, limits)
        if servo.backlash_rad > 0.0:
            half = servo.backlash_rad / 2.0
            self._pursued = np.clip(self._pursued, self._reference - half, self._reference + half)
        else:
            self._pursued = self._reference

    def _profile(self, elapsed: float, limits: ServoLimits) -> None:
        """Move the reference towards the goal, not faster than it can be braked in the distance that is left."""
        distance = self._heard - self._reference
        size = np.abs(distance)
        acceleration = np.minimum(limits.acceleration, _ENDLESS)
        fastest = np.minimum(np.minimum(limits.speed, np.sqrt(2.0 * acceleration * size)), size / elapsed)
        change = acceleration * elapsed
        self._speed += np.clip(np.copysign(fastest, distance) - self._speed, -change, change)
        self._reference = self._reference + self._speed * elapsed

    def _set_duty(self, duty: FloatArray) -> None:
        if not np.array_equal(duty, self._duty):
            self._duty = duty.copy()
            torque = duty * self.servo.stall_torque
            self._model.actuator_forcerange[self._arm.ctrl] = np.stack([-torque, torque], axis=1)
