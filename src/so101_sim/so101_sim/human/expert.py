# SPDX-License-Identifier: Apache-2.0
"""A scripted expert that knows the ground truth and acts through the same actions as a policy.

What it does follows from where things are and how they moved since the last step, so it goes on from any state in
which a policy or a human leaves the arm. Distances are between the grip (the tip of the static finger) and the cube,
so that it does not matter which TCP the actions move.

Skill makes it human: an aim error per attempt, noise on each action, a hand that shakes, a speed limit, and pauses.
"""

from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from so101_contract.action import ActionSpec, EeDeltaValue
from so101_contract.orientation import unit_quat_to_matrix
from so101_sim.errors import PresetError
from so101_sim.human.traits import Traits
from so101_sim.scene.ground_truth import GroundTruth, Quaternion
from so101_sim.scene.surroundings import Vector3
from so101_sim.tasks import over_tray, Place, Push, Task, to_mark

FloatArray = npt.NDArray[np.float64]

CUBE_HALF = 0.015
"""Half an edge of the cube that the distances below are for [m]."""

CLEARANCE, MORE_CLEARANCE = 0.006, 0.004
"""Distance between the static finger and the cube before the gripper closes [m], and what is added to it after a
finger has landed on the cube."""

TOO_CLOSE = 0.001
"""Less than this between the static finger and the cube, and it would come down on the cube [m]."""

VARIATION = 0.003
"""Standard deviation of a change of aim after a failed attempt [m]: what has just failed would fail again."""

GRIP_HEIGHT = 0.014
"""Height of the grip above the table when it closes [m]."""

HOVER = 0.058
"""Height of the grip on its way to the cube [m]: the fingers clear the cube."""

LIFT_STEP = 0.05
"""How far up the grip is sent while it lifts [m]: more than one action can do, so it lifts at full speed."""

ALIGNED, NEARLY_ALIGNED = 0.008, 0.016
"""Horizontal distance at which it goes down, and at which it stops going down [m]."""

READY = 0.005
"""Distance at which it closes [m]."""

SAFE_ABOVE = 0.012
"""Height above the cube's top at which the grip waits while it is so far over the cube that it would land on it [m]."""

ON_TOP = 0.006
"""A finger that touches the cube this little below the cube's top, or higher, stands on it [m]."""

BESIDE = 0.09
"""Closer to the cube than this it goes up before it goes sideways [m]."""

WIDE_OPEN = 0.34
"""Opening on the way to the cube: the fingers are 65 mm apart."""

STILL_TO_COME, REMEMBERED, FARTHEST_AHEAD = 0.6, 0.9, 0.03
"""The expert aims from where the grip is going to be: between what a quick arm has not carried out yet of the last
action (this share of it) and what this arm has been told and has not done. Of that a tenth is forgotten in each step,
since an arm that is held up never does it, and it is never more than this along an axis [m]."""

FIRM_STEPS, STILL = 2, 0.012
"""Steps for which the cube must have been held, with the opening changing less than that, before it is lifted."""

LONGEST_CLOSING = 12
"""Steps after which closing without holding the cube counts as failed."""

CARRY_HEIGHT = 0.05
"""Height of the cube above which it is carried sideways [m]."""

OVER_TRAY = 0.03
"""Distance from the tray's centre along x and y at which the cube is lowered into it [m]."""

LONGEST_RELEASE = 6
"""Steps after which the gripper rises even if it still touches the cube: it may lean on it, or on the tray's wall."""

RETREAT_HEIGHT = 0.12
"""Height at which the gripper rests after placing [m]."""


PUSH_HEIGHT, PUSH_HOVER = 0.022, 0.10
"""Heights of the grip while it pushes a can, and on its way behind it: the fingers clear the can [m]."""

CAN_RADIUS, BEHIND, TOUCHING = 0.025, 0.035, 0.012
"""Radius of the can; how far behind its wall the grip comes down; and how close to it is beside it [m]."""

PUSH_STEP, AIMED = 0.016, 0.010
"""How far the grip is sent ahead in a step of pushing, and how far beside the line it may be [m]."""


class Phase(StrEnum):
    """What the expert is doing."""

    APPROACH = 'approach'
    DESCEND = 'descend'
    CLOSE = 'close'
    LIFT = 'lift'
    CARRY = 'carry'
    LOWER = 'lower'
    RELEASE = 'release'
    RETREAT = 'retreat'
    PUSH = 'push'


@dataclass(frozen=True, kw_only=True)
class Skill:
    """How well the expert acts; the default is as well as it can.

    Attributes:
        noise: standard deviation of noise on each displacement, as a share of the largest one.
        aim_error_m: standard deviation of a horizontal aim error, drawn for each attempt [m].
        speed: largest displacement per step, as a share of the largest one, above 0 .. 1.
        hesitation: probability of not moving in a step.
        tremor_m: standard deviation of the shaking of the hand about where it would be, along each axis [m].
    """

    noise: float = 0.0
    aim_error_m: float = 0.0
    speed: float = 1.0
    hesitation: float = 0.0
    tremor_m: float = 0.0

    @classmethod
    def of(cls, traits: Traits) -> 'Skill':
        """Return how well a human of these traits acts."""
        return cls(**{each.name: getattr(traits, each.name) for each in fields(cls)})

    def __post_init__(self) -> None:
        """Check the numbers."""
        errors = (self.noise, self.aim_error_m, self.tremor_m)
        if not (min(errors) >= 0.0 and 0.0 < self.speed <= 1.0):
            raise PresetError(
                f'expected noise, aim error and tremor >= 0 and a speed in (0, 1], got {self}; correct them'
            )
        if not 0.0 <= self.hesitation < 1.0:
            raise PresetError(f'expected a hesitation in [0, 1), got {self.hesitation}; correct it')


class Expert:
    """Solves a task through actions; one instance per arm, `reset` at the start of each episode."""

    def __init__(self, task: Task, spec: ActionSpec | None = None, skill: Skill | None = None) -> None:
        """Prepare.

        Args:
            task: what is to be done.
            spec: how large a displacement may be.
            skill: how well it acts.
        """
        self.task = task
        self.spec = ActionSpec() if spec is None else spec
        self.skill = Skill() if skill is None else skill
        self.reset(np.random.default_rng(0))

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode; all that is left to chance comes from `rng`."""
        self._rng = rng
        self._clearance = CLEARANCE
        self._last: GroundTruth | None = None
        self._last_step, self._to_come = np.zeros(3), np.zeros(3)
        self._shaken = np.zeros(3)
        self._firm_steps = self._attempts = self._releasing = 0
        self._try_again()

    def observe(self, truth: GroundTruth) -> None:
        """Watch a step in which another one acts."""
        self._follow(truth)
        self._last_step, self._to_come = np.zeros(3), np.zeros(3)
        self._shaken = np.zeros(3)
        self.phase = Phase.APPROACH
        self._closing = self._releasing = 0

    def act(self, truth: GroundTruth) -> EeDeltaValue:
        """Return the next action, as it goes onto the wire."""
        ahead = self._follow(truth)
        target, opening = self._decide(truth, ahead)
        scale = np.array(self.spec.translation_scale_m)
        step = (target - ahead) / scale
        step *= self.skill.speed / max(self.skill.speed, float(np.max(np.abs(step))))
        pause, shake = self._rng.random(), self._rng.normal(0.0, 1.0, 3)
        if pause < self.skill.hesitation:
            step = np.zeros(3)
        displacement = (step + self.skill.noise * shake) * scale + self._tremor()
        action = self.spec.limit(EeDeltaValue(displacement, opening))
        self._last_step = action.translation
        return action

    def _tremor(self) -> FloatArray:
        """Return by how much the shaking hand moves in this step [m]: it shakes about a place, and goes nowhere."""
        if self.skill.tremor_m == 0.0:
            return np.zeros(3)
        before, self._shaken = self._shaken, self._rng.normal(0.0, self.skill.tremor_m, 3)
        return self._shaken - before

    def network_action(self, truth: GroundTruth) -> FloatArray:
        """Return the next action in network units (4,)."""
        action = self.act(truth)
        return self.spec.from_wire(action.translation, action.opening).values

    def _follow(self, truth: GroundTruth) -> FloatArray:
        """Remember the step and return where the grip will be without another action [m]."""
        last, self._last = self._last, truth
        firm = truth.held and last is not None and abs(truth.opening - last.opening) < STILL
        self._firm_steps = self._firm_steps + 1 if firm else 0
        grip = np.array(truth.grip_position)
        if last is not None:
            left = self._to_come + self._last_step - (grip - last.grip_position)
            self._to_come = np.clip(REMEMBERED * left, -FARTHEST_AHEAD, FARTHEST_AHEAD)
        return grip + 0.5 * (self._to_come + STILL_TO_COME * self._last_step)

    def _decide(self, truth: GroundTruth, ahead: FloatArray) -> tuple[FloatArray, float]:
        """Return where the grip should be [m], and the opening."""
        if isinstance(self.task, Push):
            return self._push(self.task, truth, ahead), 0.0
        if isinstance(self.task, Place) and (truth.in_tray or over_tray(truth, OVER_TRAY)):
            placing = self._put_down(truth, ahead)
            if placing is not None:
                return placing
        if truth.held:
            if self._firm_steps >= FIRM_STEPS or self.phase in (Phase.LIFT, Phase.CARRY):
                return self._carry(truth, ahead)
            self.phase = Phase.CLOSE
            return ahead, 0.0
        return self._grasp(truth, ahead)

    def _grasp(self, truth: GroundTruth, ahead: FloatArray) -> tuple[FloatArray, float]:
        place = self._grip_place(truth)
        off = float(np.linalg.norm((place - ahead)[:2]))
        above = truth.grip_position[2] - truth.cube_position[2]
        if self.phase is Phase.CLOSE and self._closing < LONGEST_CLOSING and above < CUBE_HALF:
            self._closing += 1
            return ahead, 0.0
        stands_on_it = self.phase is Phase.DESCEND and above > CUBE_HALF - ON_TOP
        if self.phase is Phase.DESCEND and stands_on_it and (truth.touches_static or truth.touches_moving):
            self._clearance += MORE_CLEARANCE
            self._try_again()
        if self.phase not in (Phase.APPROACH, Phase.DESCEND):
            self._try_again()
        hover = truth.cube_position[2] - CUBE_HALF + HOVER
        if off < (NEARLY_ALIGNED if self.phase is Phase.DESCEND else ALIGNED):
            return self._descend(truth, ahead, place, hover)
        self.phase = Phase.APPROACH
        if above < CUBE_HALF and off < BESIDE:
            return np.array([ahead[0], ahead[1], hover + 0.01]), WIDE_OPEN
        place[2] = hover
        return place, WIDE_OPEN

    def _descend(
        self, truth: GroundTruth, ahead: FloatArray, place: FloatArray, hover: float
    ) -> tuple[FloatArray, float]:
        open_enough = truth.opening > 0.75 * WIDE_OPEN
        above = truth.grip_position[2] - truth.cube_position[2]
        self.phase = Phase.DESCEND
        if not open_enough and truth.grip_position[2] > place[2] + READY:
            place[2] = hover  # the jaw would come down on the cube
        elif float(np.max(np.abs(place - truth.grip_position))) < READY and open_enough:
            self.phase, self._closing = Phase.CLOSE, 0
            return ahead, 0.0
        elif above > CUBE_HALF and self._would_land(truth):
            place[2] = max(place[2], truth.cube_position[2] + CUBE_HALF + SAFE_ABOVE)
        return place, WIDE_OPEN

    def _would_land(self, truth: GroundTruth) -> bool:
        """Return whether the static finger, going straight down from where it is, lands on the cube."""
        offset = np.subtract(truth.cube_position, truth.grip_position)[:2]
        jaw = _horizontal(truth.jaw_direction)
        return bool(offset @ jaw < _reach_of_cube(truth.cube_quat_wxyz, jaw) + TOO_CLOSE)

    def _carry(self, truth: GroundTruth, ahead: FloatArray) -> tuple[FloatArray, float]:
        if (
            truth.tray_position is None
            or not isinstance(self.task, Place)
            or truth.cube_position[2] < CARRY_HEIGHT
        ):
            self.phase = Phase.LIFT
            return np.add(ahead, (0.0, 0.0, LIFT_STEP)), 0.0
        self.phase = Phase.CARRY
        offset = np.array(truth.tray_position) - np.array(truth.cube_position)
        return np.array([*(truth.grip_position[:2] + offset[:2]), truth.grip_position[2]]), 0.0

    def _put_down(self, truth: GroundTruth, ahead: FloatArray) -> tuple[FloatArray, float] | None:
        """Return what to do above or in the tray; None where the cube has to be gripped first."""
        if truth.in_tray and over_tray(truth, OVER_TRAY):
            touched = truth.touches_static or truth.touches_moving
            if touched and self._releasing < LONGEST_RELEASE:
                self.phase = Phase.RELEASE
                self._releasing += 1
                return ahead, WIDE_OPEN
            self.phase = Phase.RETREAT
            height = max(ahead[2], RETREAT_HEIGHT)
            return np.array([ahead[0], ahead[1], height]), WIDE_OPEN
        if truth.held and not truth.in_tray:
            self.phase, self._releasing = Phase.LOWER, 0
            return ahead - (0.0, 0.0, LIFT_STEP), 0.0
        return None

    def _push(self, task: Push, truth: GroundTruth, ahead: FloatArray) -> FloatArray:
        """Go round the can to behind it, come down, and push it along the line to the mark."""
        assert truth.tray_position is not None
        can = np.array(truth.cube_position[:2])
        left = to_mark(truth)
        line = (np.array(truth.tray_position[:2]) - can) / max(left, 1e-6)
        offset = ahead[:2] - can
        along = float(offset @ line)
        beside = float(np.linalg.norm(offset - along * line))
        low = truth.grip_position[2] < PUSH_HEIGHT + 2.0 * CAN_RADIUS
        down = truth.grip_position[2] < PUSH_HEIGHT + AIMED
        if down and along < -CAN_RADIUS + READY and beside < AIMED * (1 + (self.phase is Phase.PUSH)):
            self.phase = Phase.PUSH
            if left < 0.3 * task.radius_m:
                return ahead  # it stands where it shall
            reach = along + min(PUSH_STEP, left)
            return np.array([*(can + line * reach), PUSH_HEIGHT])
        behind = can - line * (CAN_RADIUS + BEHIND) + self._aim
        if low and along < -CAN_RADIUS:  # back from the can before aside or up, which would tip it over
            self.phase = Phase.DESCEND
            return np.array([*behind, PUSH_HEIGHT])
        if float(np.linalg.norm(behind - ahead[:2])) < AIMED:
            self.phase = Phase.DESCEND
            return np.array([*behind, PUSH_HEIGHT])
        self.phase = Phase.APPROACH
        if low and along > -CAN_RADIUS - TOUCHING:
            return np.array([*ahead[:2], PUSH_HOVER])
        return np.array([*behind, PUSH_HOVER])

    def _grip_place(self, truth: GroundTruth) -> FloatArray:
        """Return where the grip goes to close [m]: on the near side of the cube, seen along the jaw's direction."""
        jaw = _horizontal(truth.jaw_direction)
        behind = jaw * (_reach_of_cube(truth.cube_quat_wxyz, jaw) + self._clearance)
        x, y, z = truth.cube_position
        return np.array(
            [x - behind[0] + self._aim[0], y - behind[1] + self._aim[1], z - CUBE_HALF + GRIP_HEIGHT]
        )

    def _try_again(self) -> None:
        """Begin another attempt."""
        self.phase = Phase.APPROACH
        self._closing = 0
        spread = float(np.hypot(self.skill.aim_error_m, VARIATION if self._attempts else 0.0))
        self._aim = self._rng.normal(0.0, 1.0, 2) * spread
        self._attempts += 1


def _horizontal(direction: Vector3) -> FloatArray:
    """Return the horizontal part of a direction as a unit vector (2,)."""
    flat = np.array(direction[:2])
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-6))


def _reach_of_cube(quat_wxyz: Quaternion, direction: FloatArray) -> float:
    """Return how far the cube reaches from its centre along a horizontal unit vector (2,) [m]."""
    axes = unit_quat_to_matrix(quat_wxyz)[:2]  # horizontal parts of the cube's axes, in columns
    return float(CUBE_HALF * np.abs(direction @ axes).sum())
