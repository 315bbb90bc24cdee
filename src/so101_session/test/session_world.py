# SPDX-License-Identifier: Apache-2.0
"""A session with a simulated arm and clock, without ROS: seconds of a graph in milliseconds."""

from dataclasses import dataclass, field, replace

import numpy as np

from so101_contract.action import ActionSpec
from so101_contract.messages import ExecutedAction, StepRecord
from so101_contract.observation_spec import get_observation
from so101_contract.session import EventKind, Source
from so101_contract.task.reward import Evidence, Opinion
from so101_contract.task.spec import TaskSpec
from so101_contract.task_report import GroundTruth, Status, TaskReport, TaskState
from so101_session.session.clock import Senses
from so101_session.session.config import ResetConfig, SessionConfig
from so101_session.session.episode import Event
from so101_session.session.machine import Finish, Say, Session
from so101_session.session.reset import MoveTo, ReleaseController, ResetScene

NEEDS = (EventKind.NEED_RESET, EventKind.NEED_START, EventKind.NEED_OVER)
MOTION_S = 0.02
ARM_SPEED = 2.0  # [rad/s]


def truth():
    return GroundTruth(
        time_s=0.0,
        cube_position=(0.25, 0.0, 0.015),
        cube_quat_wxyz=(1.0, 0.0, 0.0, 0.0),
        cube_speed=0.0,
        tcp_position=(0.2, 0.0, 0.1),
        grip_position=(0.2, 0.0, 0.1),
        jaw_direction=(0.0, 1.0, 0.0),
        finger_position=(0.2, 0.0, 0.1),
        opening=0.5,
        touches_static=False,
        touches_moving=False,
        on_table=True,
        in_tray=False,
    )


def report_of(status=None, resets=0, stamp_ns=0, **fields):
    return TaskReport(stamp_ns, 'lift', 'easy', TaskState(truth(), status or Status(), 0.0, resets), **fields)


@dataclass
class World:
    """Everything around a session: arm, camera, scene, and what the session has done."""

    config: SessionConfig = field(default_factory=SessionConfig)
    reset: ResetConfig = field(default_factory=ResetConfig)
    task: TaskSpec | None = None

    def __post_init__(self):
        config = self.config
        self.now, self.q, self.goal = 10.0, np.zeros(6), None
        self.camera_runs = self.arm_runs = self.kinematics_runs = self.arm_moves = True
        self.resets, self.status, self.done = 0, Status(), []
        self.policy_answers, self.opening = True, 0.5
        self.evidence, self.sees = Evidence(), None
        self.senses = Senses.of(
            get_observation('compact').camera_names,
            joint_timeout_s=config.joint_timeout_s,
            camera_timeout_s=config.camera_timeout_s,
        )
        self.senses.arm = None
        self.session = Session(
            config, self.reset, ActionSpec(), self.senses, self.report, felt=self.felt, task=self.task
        )
        self.session.policy_alive = True

    @property
    def now_ns(self):
        return round(self.now * 1e9)

    def report(self):
        if not self.config.arranges_scene:
            return None
        return report_of(self.status, self.resets, self.now_ns)

    def felt(self):
        """What sources look at; a classifier, where there is one, says of each step what it sees."""
        episode = self.session.episode
        if self.sees is None or episode is None:
            return self.evidence
        newest = max(0, episode.index - 1)
        return replace(self.evidence, opinion=Opinion(episode.number, newest, float(self.sees), self.sees))

    def take(self, effects):
        for effect in effects:
            self.done.append(effect)
            if isinstance(effect, MoveTo):
                self.goal = effect.goal
            elif isinstance(effect, ReleaseController):
                self.session.controller_released()
            elif isinstance(effect, ResetScene):
                self.resets, self.status = self.resets + 1, Status()

    def advance(self, seconds, teleop=None, each_step=None):
        """Let time pass: ticks at the step rate, motion and measurements at 50 Hz."""
        for _ in range(round(seconds / MOTION_S)):
            self.now += MOTION_S
            if self.arm_runs:
                self.senses.joints.heard(self.now_ns, self.now)
            if self.camera_runs:
                self.senses.cameras[0].heard(self.now_ns, self.now)
            if self.kinematics_runs:
                self.senses.kinematics.heard(self.now_ns, self.now)
            if self.goal is not None and self.arm_moves:
                reach = ARM_SPEED * MOTION_S
                self.q = self.q + np.clip(self.goal - self.q, -reach, reach)
            if teleop is not None:
                self.take(self.session.teleop(teleop, self.now))
            self.take(self.session.poll(self.now))
            self.take(self.session.motion(self.now, self.q))
            if round(self.now / MOTION_S) % 5 == 0:
                before = len(self.done)
                self.take(self.session.tick(self.now, self.now_ns, self.q))
                if each_step is not None:
                    each_step(self)
                self._answer(self.done[before:])

    def _answer(self, effects):
        for step in [effect for effect in effects if isinstance(effect, StepRecord)]:
            if self.policy_answers and not step.ends:
                action = ExecutedAction(
                    step.episode, step.index, (0.01, 0.0, 0.0), self.opening, Source.POLICY
                )
                self.take(self.session.policy(action, self.now + 0.005))

    def start(self, skip_reset=False):
        """Ask for an episode, once everything that it needs has been seen."""
        self.advance(0.1)
        return self.session.start_episode(skip_reset)

    def stop_arm(self):
        """Stop the arm, and switch its motors on again at once: nothing of it lasts until the next tick."""
        self.session.arm_stopped('the arm was stopped')

    def until(self, state, timeout=300.0):
        """Let time pass until the session is in a state."""
        end = self.now + timeout
        while self.session.state.value != state:
            assert self.now < end, (self.session.state, self.session.sentence)
            self.advance(MOTION_S)

    @property
    def steps(self):
        return [effect for effect in self.done if isinstance(effect, StepRecord)]

    @property
    def actions(self):
        return [effect for effect in self.done if isinstance(effect, ExecutedAction)]

    @property
    def kinds(self):
        return [effect.kind.name for effect in self.events]

    @property
    def events(self):
        """What happens to episodes, and not what a human is needed for meanwhile."""
        return [effect for effect in self.done if isinstance(effect, Event) and effect.kind not in NEEDS]

    @property
    def sentences(self):
        return [effect.sentence for effect in self.done if isinstance(effect, Say)]

    @property
    def goals(self):
        return np.array([effect.goal for effect in self.done if isinstance(effect, MoveTo)])

    @property
    def finished(self):
        return any(isinstance(effect, Finish) for effect in self.done)


def world(**config):
    reset = {name: config.pop(name) for name in list(config) if name in ResetConfig.__dataclass_fields__}
    return World(replace(SessionConfig(autostart=True), **config), replace(ResetConfig(), **reset))
