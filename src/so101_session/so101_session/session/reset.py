# SPDX-License-Identifier: Apache-2.0
"""The way back to where an episode begins: release the controller, lead the arm, arrange the scene, look afresh.

The controller and the session both send joint goals, so one of them must be silent. A controller that has been
told to forget its setpoint sends nothing before the next action, and there is none during a reset.

The arm is led in joints, closed-loop, with limited speed. Where the straight way would go sideways while the hand is
low, the TCP first rises to a safe height; then the joints go straight to the start. The goal is led along, never far
ahead of the measured joints, and at the end what the arm hangs below the start is added. Joints that are locked stay.
The way ends where the TCP is within the tolerance, or with a sentence that says where it is stuck.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from so101_contract.joints import (
    ARM_JOINTS,
    gripper_opening_to_rad,
    JOINT_LIMITS_RAD,
    limits_arrays,
    NUM_JOINTS,
)
from so101_contract.task.spec import TaskSpec
from so101_contract.task_report import ArmStart, AtPoint, TaskReport
from so101_kinematics.fk import ForwardKinematics, NUM_ARM_JOINTS
from so101_kinematics.ik import InverseKinematics
from so101_session.session.clock import Senses
from so101_session.session.config import ResetConfig
from so101_session.session.episode import SessionError

FloatArray = npt.NDArray[np.float64]

DRAWS = 10
"""Starts that are tried before none is reachable."""

WAY_POINTS = 20
SIDEWAYS_M, SINKS_M = 0.05, 0.003
"""A straight way that goes less sideways below the safe height, and sinks less, needs no via point."""

LEAD_RAD = math.radians(10.0)
"""How far the goal may be ahead of the measured joint."""

GRIPPER_SPEED = 3.0
"""Largest speed of the gripper [rad/s]."""

PASS_RAD = 0.15
"""A via point is passed when every joint is this close to it."""

SLOW_RAD_S = 0.15
"""The arm has arrived when it is slower than this."""

DROOP_GAIN, DROOP_LIMIT = 3.0, 0.08
"""How fast [1/s] and how far [rad] sag is taken out at the end."""

STUCK_S = 1.5
CLOSER_RAD = 0.01
"""Without having come closer by this much for that long, it is stuck."""


class StartPlanner:
    """Draws starts and finds the way there."""

    def __init__(self, config: ResetConfig, tcp: str = 'so101', task: TaskSpec | None = None) -> None:
        self.fk = ForwardKinematics(tcp)
        self._usual = None if task is None else task.start.arm_start
        self._config = config
        self._ik = InverseKinematics(self.fk)
        self._rng = np.random.default_rng(config.seed)
        self._locks = config.locks()

    def arm_start(self, task: TaskReport | None = None) -> ArmStart:
        """Return how starts are drawn: as the simulation says where there is one, or the task, else as configured."""
        config = self._config
        if config.start_from == 'auto' and task is not None:
            return task.arm_start
        if config.start_from == 'auto' and self._usual is not None:
            return self._usual
        return AtPoint(
            centre=config.start_xyz,
            spread=config.start_spread_m,
            pitch=math.radians(config.start_pitch_deg),
            roll=math.radians(config.start_roll_deg),
            opening=(min(config.start_opening), max(config.start_opening)),
        )

    def way(
        self, q: FloatArray, start: ArmStart, cube: Sequence[float] = (0.25, 0.0, 0.015)
    ) -> list[FloatArray]:
        """Return via points and a start (6,) [rad] for an arm that is measured at q.

        Raises:
            SessionError: no start can be reached.
        """
        locks = self._lock_positions(q)
        goal = self._draw(start, np.array(cube), locks)
        if self._rises(q, goal):
            return [goal]
        tcp = self.fk.position(q[:NUM_ARM_JOINTS])
        above = np.array([tcp[0], tcp[1], self._config.safe_height_m])
        seed = np.append(q[:NUM_ARM_JOINTS], q[-1])
        found = self._ik.solve(above, seed, pitch=self.fk.pitch(q[:NUM_ARM_JOINTS]), locked=tuple(locks))
        if not found.success:
            found = self._ik.solve(above, seed, locked=tuple(locks))
        return [np.append(found.q[:NUM_ARM_JOINTS], q[-1]), goal] if found.success else [goal]

    def _rises(self, q: FloatArray, goal: FloatArray) -> bool:
        """Whether the straight way in joints rises, and hardly goes sideways while it is low.

        From the folded rest pose it does; straight up from there, the palm would graze the shoulder.
        """
        shares = np.linspace(0.0, 1.0, WAY_POINTS)[:, None]
        way = q[:NUM_ARM_JOINTS] + shares * (goal - q)[:NUM_ARM_JOINTS]
        points = np.array([self.fk.position(joints) for joints in way])
        low = points[points[:, 2] < self._config.safe_height_m]
        if not len(low):
            return True
        sideways = float(np.linalg.norm(low[:, :2] - points[0, :2], axis=1).max())
        sinks = float(points[0, 2] - points[:, 2].min())
        return sideways < SIDEWAYS_M and sinks < SINKS_M

    def _draw(self, start: ArmStart, cube: FloatArray, locks: Mapping[str, float]) -> FloatArray:
        for _ in range(DRAWS):
            drawn = start.sample(self._rng, self._ik, cube)
            if drawn is None:
                continue
            if not locks:
                return drawn
            seed = drawn.copy()
            for name, position in locks.items():
                seed[ARM_JOINTS.index(name)] = position
            found = self._ik.solve(self.fk.position(drawn[:NUM_ARM_JOINTS]), seed, locked=tuple(locks))
            if found.success:
                return np.append(found.q[:NUM_ARM_JOINTS], drawn[-1])
        raise SessionError(
            f'expected a start that the arm can reach, got none in {DRAWS} draws with {sorted(locks) or "nothing"} '
            f'locked; correct start_xyz or locked_joints'
        )

    def _lock_positions(self, q: FloatArray) -> dict[str, float]:
        """Return where each locked joint is held [rad]."""
        held = {}
        for name, position in self._locks.items():
            low, high = JOINT_LIMITS_RAD[name]
            here = float(q[ARM_JOINTS.index(name)])
            held[name] = min(max(here, low), high) if position is None else position
            # Wherever it was at the first time: it does not creep from one way to the next.
            self._locks[name] = held[name]
        return held


@dataclass(frozen=True)
class WayStep:
    """What to do in one control period of the way.

    Attributes:
        goal: (6,) joint goals [rad].
        arrived: the arm is where it shall be.
        stuck: why it does not get there, one sentence; or empty.
    """

    goal: FloatArray
    arrived: bool = False
    stuck: str = ''


class Way:
    """Leads the arm along; one instance for one way."""

    def __init__(
        self, config: ResetConfig, fk: ForwardKinematics, ways: Sequence[FloatArray], *, holds: bool = False
    ) -> None:
        """Prepare.

        Args:
            config: speeds and tolerances.
            fk: of the TCP.
            ways: via points and, last, the start (6,) [rad].
            holds: the hand is told to close already: led from where it is held open, it would let go for a moment.
        """
        self._config, self._fk, self._ways, self._holds = config, fk, list(ways), holds
        self._goal: FloatArray | None = None
        self._told = np.zeros(NUM_JOINTS)
        self._droop = np.zeros(NUM_JOINTS)
        self._began_s = self._closer_s = self._last_s = 0.0
        self._closest = math.inf
        self._last_q: FloatArray | None = None

    def go_on(self, ways: Sequence[FloatArray], rest: FloatArray | None = None) -> None:
        """Lead on to other points (6,) [rad] from the goal as it is, once the last ones are reached.

        Args:
            ways: via points and, last, the goal.
            rest: the arm has come to rest at these joints (6,) [rad]: and pushes on no further.
        """
        if rest is not None and self._goal is not None:
            self._goal[:NUM_ARM_JOINTS] = rest[:NUM_ARM_JOINTS]
            self._droop = np.zeros(NUM_JOINTS)
        self._ways, self._closest = list(ways), math.inf
        self._began_s = self._closer_s = self._last_s

    def update(self, now_s: float, q: FloatArray) -> WayStep:
        """Advance by one control period.

        Args:
            now_s: the time [s].
            q: (6,) measured joint positions [rad].
        """
        if self._goal is None:
            self._began_s = self._closer_s = self._last_s = now_s
            self._goal = np.clip(q, *limits_arrays())
            if self._holds:
                self._goal[-1] = self._ways[0][-1]
            self._told = self._goal.copy()
        dt = min(max(now_s - self._last_s, 0.0), 0.1)
        speed = 0.0 if self._last_q is None or dt == 0.0 else float(np.abs(q - self._last_q)[:5].max()) / dt
        self._last_s, self._last_q = now_s, q.copy()
        target = self._ways[0]
        self._lead(dt, q, target)
        error = float(np.abs(target - q)[:NUM_ARM_JOINTS].max())
        if len(self._ways) > 1:
            if error < PASS_RAD:
                self._ways.pop(0)
                self._closest, self._closer_s = math.inf, now_s
                return WayStep(self._command(dt))  # how far it is from there, the next update tells
            return WayStep(self._command(dt), stuck=self._stuck(now_s, error, q))
        distance = float(
            np.linalg.norm(self._fk.position(q[:NUM_ARM_JOINTS]) - self._fk.position(target[:NUM_ARM_JOINTS]))
        )
        if error < PASS_RAD:
            sag = self._droop + DROOP_GAIN * dt * (target - q)
            self._droop = np.clip(sag, -DROOP_LIMIT, DROOP_LIMIT)
            self._droop[-1] = 0.0
        if distance < self._config.reset_tolerance_m and speed < SLOW_RAD_S:
            return WayStep(self._command(dt), arrived=True)
        return WayStep(self._command(dt), stuck=self._stuck(now_s, error, q))

    def _lead(self, dt: float, q: FloatArray, target: FloatArray) -> None:
        """Move the goal towards the target, all joints of the arm in proportion."""
        assert self._goal is not None
        left = target - self._goal
        reach = self._reach(dt)
        largest = float(np.abs(left[:NUM_ARM_JOINTS]).max())
        self._goal[:NUM_ARM_JOINTS] += left[:NUM_ARM_JOINTS] * min(1.0, reach / max(largest, 1e-9))
        self._goal[-1] += np.clip(left[-1], -GRIPPER_SPEED * dt, GRIPPER_SPEED * dt)
        arm = slice(0, NUM_ARM_JOINTS)
        self._goal[arm] = np.clip(self._goal[arm], q[arm] - LEAD_RAD, q[arm] + LEAD_RAD)

    def _reach(self, dt: float) -> float:
        return math.radians(self._config.reset_step_deg) * 10.0 * dt

    def _command(self, dt: float) -> FloatArray:
        """Return the goal with what the arm hangs below it, no farther from the last one than allowed."""
        assert self._goal is not None
        reach = np.append(np.full(NUM_ARM_JOINTS, self._reach(dt)), GRIPPER_SPEED * dt)
        change = np.clip(self._goal + self._droop - self._told, -reach, reach)
        self._told = np.clip(self._told + change, *limits_arrays())
        return self._told.copy()

    def _stuck(self, now_s: float, error: float, q: FloatArray) -> str:
        if error < self._closest - CLOSER_RAD:
            self._closest, self._closer_s = error, now_s
        long = now_s - self._began_s > self._config.reset_timeout_s
        if not long and now_s - self._closer_s < STUCK_S:
            return ''
        off = np.abs(self._ways[0] - q)[:NUM_ARM_JOINTS]
        joint = int(np.argmax(off))
        return (
            f'the way back to the start is stuck: {ARM_JOINTS[joint]} is {math.degrees(off[joint]):.0f} degrees '
            f'from where it should be; see what is in the way'
        )


def opening_of(q: FloatArray) -> float:
    """Return the opening of the gripper (0 closed .. 1 open) at joint positions (6,) [rad]."""
    low, high = gripper_opening_to_rad(0.0), gripper_opening_to_rad(1.0)
    return float(np.clip((q[-1] - low) / (high - low), 0.0, 1.0))


ASK_AGAIN_S = 1.0
SETTLE_S = 0.2
"""A scene that was arranged anew has come to rest after this time."""

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class ReleaseController:
    """Have the controller forget its setpoint, so that it is silent while the session leads the joints."""


@dataclass(frozen=True)
class ResetScene:
    """Have the simulated scene arranged anew, or, where it `keeps` the object, judged anew as it lies."""

    keeps: bool = False


@dataclass(frozen=True, eq=False)
class MoveTo:
    """Send joint goals (6,) [rad]."""

    goal: FloatArray


ResetEffect = ReleaseController | ResetScene | MoveTo


class Stage(StrEnum):
    """What is going on, for people."""

    RELEASE = 'waiting for kinematics_node to let go of the arm'
    PUT_BACK = 'the arm puts the object back'
    MOVE = 'going back to the start'
    SCENE = 'waiting for a new scene (sim/reset)'
    LOOK = 'waiting for new joint readings and images'
    DONE = 'at the start'


class PutsBack(Protocol):
    """Leads the arm while it puts the object back: `put_back.PutBackRun`."""

    done: bool
    lost: str

    def update(self, now_s: float, q: FloatArray) -> FloatArray:
        """Advance by one control period and return the joint goals (6,) [rad]."""


class ResetRun:
    """Follows one reset; `stuck` says why it failed."""

    def __init__(
        self,
        config: ResetConfig,
        planner: StartPlanner,
        *,
        scene: bool,
        task: TaskReport | None,
        put_back: 'PutsBack | None' = None,
        keeps: bool = False,
    ) -> None:
        """Prepare.

        Args:
            config: how the arm comes back.
            planner: draws the start and finds the way.
            scene: have the simulated scene arranged anew.
            task: what the simulation says, where there is one.
            put_back: puts the object back first.
            keeps: the object stays where it is then.
        """
        self.stage, self.stuck = Stage.RELEASE, ''
        self.put_back = put_back
        self._config, self._planner, self._scene, self._keeps = config, planner, scene, keeps
        self._start = planner.arm_start(task)
        self._way: Way | None = None
        self._ask_s = -np.inf
        self._resets: int | None = None
        self._look_ns = self._now_ns = 0

    def ready(self) -> None:
        """Take note that the human has arranged the scene: what is left of the pause is given up."""
        if self.for_human and self._look_ns:
            self._look_ns = min(self._look_ns, self._now_ns + round(SETTLE_S * NANOSECONDS))

    @property
    def sentence(self) -> str:
        """What goes on, for people; while a human arranges the scene, for how many seconds they still may."""
        left_s = math.ceil((self._look_ns - self._now_ns) / NANOSECONDS) if self.for_human else 0
        return f'arrange the scene: {left_s} s left, or Start when ready' if left_s > 0 else self.stage.value

    def controller_released(self) -> None:
        """Take note that the controller is silent."""
        if self.stage is Stage.RELEASE:
            self.stage = Stage.MOVE if self.put_back is None else Stage.PUT_BACK

    def motion(self, now_s: float, q: FloatArray) -> list[ResetEffect]:
        """Lead the arm; called several times per step."""
        if self.stage in (Stage.RELEASE, Stage.DONE) or self.stuck:
            return []
        if self.stage is Stage.PUT_BACK:
            return self._put_back(now_s, q)
        if self._way is None:
            try:
                self._way = Way(self._config, self._planner.fk, self._planner.way(q, self._start))
            except SessionError as error:
                self.stuck = str(error)
                return []
        step = self._way.update(now_s, q)
        if self.stage is Stage.MOVE:
            self.stuck = step.stuck
            if step.arrived:
                self._enter(Stage.SCENE if self._scene else Stage.LOOK)
        # The goal is kept up to the end, so that one sender follows the other without a gap. An arm that is stuck
        # is told to stay where it is: a servo that pushes on for two seconds latches its overload.
        return [MoveTo(q.copy() if self.stuck else step.goal)]

    def tick(
        self, now_s: float, now_ns: int, senses: Senses, report: Callable[[], TaskReport | None]
    ) -> list[ResetEffect]:
        """Advance what is not motion; called once per step."""
        self._now_ns = now_ns
        if self.stage is Stage.RELEASE:
            return [ReleaseController()] if self._ask_again(now_s) else []
        if self.stage is Stage.SCENE:
            known = report()
            if known is None:
                return []
            if self._resets is None:
                self._resets = known.state.resets
            elif known.state.resets > self._resets:
                self._enter(Stage.LOOK)
                return []
            return [ResetScene(self._keeps)] if self._ask_again(now_s) else []
        if self.stage is Stage.LOOK:
            if not self._look_ns:
                pause_s = SETTLE_S if self._keeps else max(SETTLE_S, self._config.reset_pause_s)
                self._look_ns = now_ns + round(pause_s * NANOSECONDS)
            elif senses.newer_than(self._look_ns):
                self.stage = Stage.DONE
        return []

    @property
    def for_human(self) -> bool:
        """Whether a human has this time to arrange the scene."""
        arranged = self._scene or self._keeps or self._config.reset_pause_s <= 0.0
        return self.stage is Stage.LOOK and not arranged

    def _put_back(self, now_s: float, q: FloatArray) -> list[ResetEffect]:
        assert self.put_back is not None
        goal = self.put_back.update(now_s, q)
        if self.put_back.done:
            self.stage = Stage.MOVE
        # A hand that has lost the way keeps what it has: nobody sends it another goal.
        return [] if self.put_back.lost else [MoveTo(goal)]

    def _enter(self, stage: Stage) -> None:
        self.stage, self._ask_s = stage, -np.inf

    def _ask_again(self, now_s: float) -> bool:
        if now_s - self._ask_s < ASK_AGAIN_S:
            return False
        self._ask_s = now_s
        return True
