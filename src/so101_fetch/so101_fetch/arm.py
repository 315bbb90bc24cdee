# SPDX-License-Identifier: Apache-2.0
"""The arm between two observations: from an action on the wire to 40 ms of physics, in each of the kinematics."""

from dataclasses import dataclass
from functools import lru_cache

import mujoco
import numpy as np

from so101_contract.action import Displacement
from so101_contract.orientation import matrix_to_euler
from so101_fetch.model import (
    ARM_JOINTS,
    build_model,
    COUPLING,
    DRIVEN,
    FINGERS,
    GOAL,
    GRIP,
    HAND,
    LIFT,
    OBJECT,
    ROLL,
    Variant,
    WIDEST_M,
)
from so101_fetch.tasks import FetchTask, FloatArray

SUBSTEPS = 20
"""Of 2 ms, between two observations."""

HAND_DOWN = np.array([1.0, 0.0, 1.0, 0.0]) / np.sqrt(2.0)
"""Orientation wxyz of the hand that points down."""

FROM_STRETCHED = (-0.498, 0.005, -0.431)
"""From where the hand of the stretched arm is to where it begins [m]."""

SETTLING = 200
"""Steps of physics after which the hand is where it begins, as in Gymnasium-Robotics."""

LEASH_RAD = 0.2
"""How far the goal of a joint may be ahead of the joint [rad]."""


@dataclass(frozen=True)
class FetchTruth:
    """Where everything is: for rewards, experts and evaluation.

    Attributes:
        hand: between the finger tips (3,) [m].
        goal: of the episode (3,) [m].
        mover: what shall come to the goal: the object, or the hand where there is none (3,) [m].
        opening: of the fingers, 0 closed .. 1 open.
        mover_velocity: (3,) [m/s].
    """

    hand: FloatArray
    goal: FloatArray
    mover: FloatArray
    opening: float
    mover_velocity: FloatArray

    @property
    def distance(self) -> float:
        """How far it still is to the goal [m]."""
        return float(np.linalg.norm(self.mover - self.goal))

    @property
    def cube_position(self) -> tuple[float, float, float]:
        """Where the thing is that is to be moved, as the SO-101's truth calls it [m]."""
        x, y, z = self.mover.tolist()
        return x, y, z


@lru_cache(maxsize=8)
def start_joints(task: FetchTask) -> tuple[float, ...]:
    """Return the positions of the arm's joints in which the hand hangs where episodes begin [rad]."""
    model = build_model(task, Variant())
    data = mujoco.MjData(model)
    _stand(model, data, task)
    mujoco.mj_forward(model, data)
    weld_to_mocap(model)
    data.mocap_pos[0] = data.site(GRIP).xpos + FROM_STRETCHED + (0.0, 0.0, task.hand_height)
    data.mocap_quat[0] = HAND_DOWN
    mujoco.mj_step(model, data, nstep=SETTLING)
    return tuple(float(data.joint(name).qpos[0]) for name in ARM_JOINTS)


def weld_to_mocap(model: mujoco.MjModel) -> int:
    """Let the weld hold the hand in the mocap body's own frame; return its number."""
    (weld,) = (k for k in range(model.neq) if model.eq_type[k] == int(mujoco.mjtEq.mjEQ_WELD))
    model.eq_data[weld, :10] = (0, 0, 0, 0, 0, 0, 1, 0, 0, 0)  # anchor, position, quaternion wxyz
    return weld


def _stand(model: mujoco.MjModel, data: mujoco.MjData, task: FetchTask) -> None:
    data.joint('robot0:slide0').qpos[0], data.joint('robot0:slide1').qpos[0] = task.base
    if task.object_start is not None:
        data.joint(f'{OBJECT}:joint').qpos[:] = (*task.object_start, 1.0, 0.0, 0.0, 0.0)


class FetchArm:
    """The arm with its table; `reset`, then `run` once per step.

    Attributes:
        model: compiled.
        data: its state.
        start: where the hand is after a reset (3,) [m].
    """

    def __init__(self, task: FetchTask, variant: Variant) -> None:
        self.task, self.variant = task, variant
        self.model = build_model(task, variant)
        self.data = mujoco.MjData(self.model)
        joint = self.model.joint
        self.arm_q = np.array([joint(name).qposadr[0] for name in ARM_JOINTS])
        self._arm_v = np.array([joint(name).dofadr[0] for name in ARM_JOINTS])
        self._fingers = np.array([joint(name).qposadr[0] for name in FINGERS])
        self._driven = np.array([joint(name).qposadr[0] for name in DRIVEN])
        self._driven_v = np.array([joint(name).dofadr[0] for name in DRIVEN])
        self._columns = (int(joint(LIFT).dofadr[0]), int(joint(ROLL).dofadr[0]))
        self._motors = (
            np.array([self.model.actuator(name).id for name in DRIVEN])
            if variant.is_joint
            else np.zeros(0, int)
        )
        self._gripper = np.array(
            [] if task.keeps_closed else [self.model.actuator(name).id for name in FINGERS], dtype=int
        )
        limited = np.array([bool(joint(name).limited[0]) for name in DRIVEN])
        ranges = np.array([joint(name).range for name in DRIVEN])
        self._low = np.where(limited, ranges[:, 0], -np.inf)
        self._high = np.where(limited, ranges[:, 1], np.inf)
        self._weld = weld_to_mocap(self.model)
        self._couple()
        self._still = self._begin()

    def _couple(self) -> None:
        """Put the line of the coupling through the start."""
        if not self.variant.is_coupled:
            return
        start = dict(zip(ARM_JOINTS, start_joints(self.task), strict=True))
        ratio = self.variant.ratio
        number = self.model.equality(COUPLING).id
        self.model.eq_data[number, :5] = (start[ROLL] - ratio * start[LIFT], ratio, 0.0, 0.0, 0.0)

    def _begin(self) -> FloatArray:
        """Return the positions in which everything begins, and leave the hand there."""
        mujoco.mj_resetData(self.model, self.data)
        _stand(self.model, self.data, self.task)
        self.data.qpos[self.arm_q] = start_joints(self.task)
        mujoco.mj_forward(self.model, self.data)
        self.start = self.hand.copy()
        return np.array(self.data.qpos)

    def reset(self, place: FloatArray | None, goal: FloatArray) -> None:
        """Begin an episode.

        Args:
            place: where the object lies, x and y (2,) [m]; None where there is none.
            goal: of the episode (3,) [m].
        """
        model, data = self.model, self.data
        mujoco.mj_resetData(model, data)
        data.qpos[:] = self._still
        data.eq_active[self._weld] = not self.variant.is_joint
        if place is not None:
            data.joint(f'{OBJECT}:joint').qpos[:2] = place
        site = model.site(GOAL)
        site.pos[:] = goal - model.body(int(site.bodyid[0])).pos
        self._goal = np.array(goal)
        self._targets = data.qpos[self._driven].copy()
        data.ctrl[self._motors] = self._targets if self.variant.is_joint else ()
        mujoco.mj_forward(model, data)
        data.mocap_pos[0], data.mocap_quat[0] = data.body(HAND).xpos, HAND_DOWN
        mujoco.mj_forward(model, data)

    def run(self, wire: Displacement) -> None:
        """Let one step pass: a displacement of the hand (3,) [m], or increments of the six joints (6,) [rad]."""
        data = self.data
        if self.variant.is_joint:
            now = data.qpos[self._driven]
            wished = self._targets + wire.translation
            ahead = np.clip(wished, now - LEASH_RAD, now + LEASH_RAD)
            self._targets = np.clip(ahead, self._low, self._high)
            data.ctrl[self._motors] = self._targets
        else:
            data.mocap_pos[0] = data.body(HAND).xpos + wire.translation
            data.mocap_quat[0] = HAND_DOWN
        if len(self._gripper):
            data.ctrl[self._gripper] = wire.opening * WIDEST_M
        mujoco.mj_step(self.model, data, nstep=SUBSTEPS)
        mujoco.mj_forward(self.model, data)

    # ---- what is measured --------------------------------------------------------------------------------

    @property
    def hand(self) -> FloatArray:
        """Where the finger tips meet (3,) [m]."""
        return np.asarray(self.data.site(GRIP).xpos)

    @property
    def finite(self) -> bool:
        """Whether the physics holds."""
        return bool(np.isfinite(self.data.qpos).all())

    @property
    def coupling_error(self) -> float:
        """How far the roll is from where the coupling wants it [rad]; 0 without one."""
        if not self.variant.is_coupled:
            return 0.0
        lift, roll = (float(self.data.joint(name).qpos[0]) for name in (LIFT, ROLL))
        c0, c1 = self.model.eq_data[self.model.equality(COUPLING).id, :2]
        return float(abs(roll - c0 - c1 * lift))

    def truth(self) -> FetchTruth:
        """Return where everything is."""
        site = OBJECT if self.task.has_object else GRIP
        linear, _ = self._velocity(site)
        opening = float(np.mean(self.data.qpos[self._fingers])) / WIDEST_M
        return FetchTruth(
            self.hand.copy(), self._goal.copy(), self.data.site(site).xpos.copy(), opening, linear
        )

    def values(self) -> dict[str, FloatArray]:
        """Return every block of the state, see `observed`."""
        data, hand = self.data, self.hand
        hand_velocity, _ = self._velocity(GRIP)
        joints = np.array([self.model.joint(name).dofadr[0] for name in FINGERS])
        found = {
            'hand_pos': hand,
            'hand_vel': hand_velocity,
            'finger_pos': data.qpos[self._fingers],
            'finger_vel': data.qvel[joints],
            'arm_pos': data.qpos[self.arm_q],
            'arm_vel': data.qvel[self._arm_v],
            'goal_pos': self._goal,
            'goal_rel': self._goal - hand,
        }
        if self.task.has_object:
            place = data.site(OBJECT).xpos
            linear, spin = self._velocity(OBJECT)
            found |= {
                'object_pos': place,
                'object_rel': place - hand,
                'object_euler': matrix_to_euler(data.site(OBJECT).xmat.reshape(3, 3)),
                'object_vel': linear - hand_velocity,
                'object_spin': spin,
                'goal_rel': self._goal - place,
            }
        return found

    def jacobian(self) -> FloatArray:
        """Return how the hand moves and turns with each driven joint (6, 6); the roll goes along with the lift."""
        moves, turns = np.zeros((3, self.model.nv)), np.zeros((3, self.model.nv))
        mujoco.mj_jacSite(self.model, self.data, moves, turns, self.model.site(GRIP).id)
        whole = np.vstack([moves, turns])
        lift, roll = self._columns
        whole[:, lift] += self.variant.ratio * whole[:, roll]
        return whole[:, self._driven_v]

    def tilt(self) -> FloatArray:
        """Return the rotation that would bring the hand back to pointing down, as a vector (3,) [rad]."""
        turn, way = np.zeros(4), np.zeros(3)
        back = np.zeros(4)
        mujoco.mju_negQuat(back, self.data.body(HAND).xquat)
        mujoco.mju_mulQuat(turn, HAND_DOWN, back)
        mujoco.mju_quat2Vel(way, turn, 1.0)
        return way

    @property
    def ahead(self) -> FloatArray:
        """How far the goals of the driven joints are ahead of the joints (6,) [rad]."""
        return np.asarray(self._targets - self.data.qpos[self._driven])

    def _velocity(self, site: str) -> tuple[FloatArray, FloatArray]:
        """Return the linear and the angular velocity of a site [m/s, rad/s], in the world's axes."""
        found = np.zeros(6)
        number = self.model.site(site).id
        mujoco.mj_objectVelocity(self.model, self.data, mujoco.mjtObj.mjOBJ_SITE, number, found, 0)
        return found[3:], found[:3]
