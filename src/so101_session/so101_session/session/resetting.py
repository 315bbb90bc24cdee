# SPDX-License-Identifier: Apache-2.0
"""One reset from beginning to end: quieten the controller, lead the arm back, arrange the scene, look afresh.

The controller and the session both send joint goals, so one of them must be silent. A controller that has been
told to forget its setpoint sends nothing before the next action, and there is none during a reset.
"""

from collections.abc import Callable
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from so101_session.session.clock import Senses
from so101_session.session.config import ResetConfig
from so101_session.session.effects import Effect, MoveTo, Quieten, ResetScene
from so101_session.session.errors import SessionError
from so101_session.session.reset import StartPlanner, Way
from so101_sim.task_messages import TaskReport

FloatArray = npt.NDArray[np.float64]

ASK_AGAIN_S = 1.0
SETTLE_S = 0.2
"""A scene that was arranged anew has come to rest after this time."""

NANOSECONDS = 1_000_000_000


class Stage(StrEnum):
    """What is going on, for people."""

    QUIETEN = 'waiting for kinematics_node to let go of the arm'
    MOVE = 'going back to the start'
    SCENE = 'waiting for a new scene (sim/reset)'
    LOOK = 'waiting for new joint readings and images'
    DONE = 'at the start'


class ResetRun:
    """Follows one reset; `stuck` says why it failed."""

    def __init__(
        self, config: ResetConfig, planner: StartPlanner, *, scene: bool, task: TaskReport | None
    ) -> None:
        """Prepare.

        Args:
            config: how the arm comes back.
            planner: draws the start and finds the way.
            scene: have the simulated scene arranged anew.
            task: what the simulation says, where there is one.
        """
        self.stage = Stage.QUIETEN
        self.stuck = ''
        self._config, self._planner, self._scene = config, planner, scene
        self._start = planner.arm_start(task.preset, task.task) if task is not None else planner.arm_start()
        self._way: Way | None = None
        self._ask_s = -np.inf
        self._resets: int | None = None
        self._look_ns = 0

    def quiet(self) -> None:
        """Take note that the controller is silent."""
        if self.stage is Stage.QUIETEN:
            self.stage = Stage.MOVE

    def motion(self, now_s: float, q: FloatArray) -> list[Effect]:
        """Lead the arm; called several times per step."""
        if self.stage in (Stage.QUIETEN, Stage.DONE) or self.stuck:
            return []
        if self._way is None:
            try:
                ways = self._planner.way(q, self._start)
            except SessionError as error:
                self.stuck = str(error)
                return []
            self._way = Way(self._config, self._planner.fk, ways)
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
    ) -> list[Effect]:
        """Advance what is not motion; called once per step."""
        if self.stage is Stage.QUIETEN:
            return [Quieten()] if self._ask_again(now_s) else []
        if self.stage is Stage.SCENE:
            known = report()
            if known is None:
                return []
            if self._resets is None:
                self._resets = known.state.resets
            elif known.state.resets > self._resets:
                self._enter(Stage.LOOK)
                return []
            return [ResetScene()] if self._ask_again(now_s) else []
        if self.stage is Stage.LOOK:
            if not self._look_ns:
                pause_s = max(SETTLE_S, self._config.reset_pause_s)
                self._look_ns = now_ns + round(pause_s * NANOSECONDS)
            elif senses.newer_than(self._look_ns):
                self.stage = Stage.DONE
        return []

    def _enter(self, stage: Stage) -> None:
        self.stage, self._ask_s = stage, -np.inf

    def _ask_again(self, now_s: float) -> bool:
        if now_s - self._ask_s < ASK_AGAIN_S:
            return False
        self._ask_s = now_s
        return True
