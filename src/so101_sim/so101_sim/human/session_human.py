# SPDX-License-Identifier: Apache-2.0
"""The simulated human in a session, and demonstrations without one.

`SessionHuman` is told each event and each step of a session, and says what the human does: which steps it answers, and
when it takes over and gives back. Episodes begin and end by the session's events; the scene and the way home are the
session's business.

`Demonstrations` need no session: go home, have the cube put somewhere, do the task, let go, go home. Only the first way
home is made of joint goals; from then on the arm moves by the actions that a policy has, so that everything can be
recorded. Both are pure: they are told the ground truth once per control step, and say what to do.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from so101_contract.action import ActionSpec, EeDeltaValue
from so101_contract.session import EventKind, Outcome
from so101_contract.task_report import TaskState
from so101_sim.human.expert import Expert, Skill
from so101_sim.human.labels import Labeller
from so101_sim.human.operator import Habits, Operator
from so101_sim.scene.ground_truth import GroundTruth
from so101_sim.scene.presets import Preset
from so101_sim.scene.servo import FloatArray
from so101_sim.scene.start import AtPoint, HOME_TCP

ENDS = frozenset(
    {EventKind.SUCCESS, EventKind.FAILURE, EventKind.DISCARD, EventKind.TIME_LIMIT, EventKind.ABORT}
)
"""Events after which nothing of an episode follows; a late label names an episode that is over already."""

ARRIVED_RAD = 0.03
ARRIVED_M = 0.01
JOINT_SPEED_RAD_S = 1.0
LET_GO_STEPS = 4

SAFE_HEIGHT = 0.085
"""Height to which the TCP rises before it goes sideways [m]."""

HOME_OPENING = 0.5

HOME_TIMEOUT_STEPS = 80
"""Steps after which a way home is given up: something is in the way, or another node commands the joints."""

SETTLE_STEPS = 3


@dataclass(frozen=True)
class Turn:
    """What the human does in one step.

    Attributes:
        action: answers the step; None leaves it to the policy.
        intervene: True takes over before the action, False gives back after it, None leaves it as it is.
        why: for the log, where control changes hands.
        label: what it calls an episode; None where it says nothing.
        episode: the episode that the label is about.
    """

    action: EeDeltaValue | None = None
    intervene: bool | None = None
    why: str = ''
    label: Outcome | None = None
    episode: int = 0


NOTHING = Turn()


@dataclass
class Account:
    """What came of the episodes that the human took part in: how many there were, and how many succeeded."""

    episodes: int = 0
    successes: int = 0
    interventions: list[int] = field(default_factory=list)
    """Number of interventions in each."""

    def __str__(self) -> str:
        return (
            f'{self.successes} of {self.episodes} episodes succeeded, {sum(self.interventions)} interventions'
        )


class SessionHuman:
    """Watches and helps with an `Operator`, or does everything itself with an `Expert`."""

    def __init__(
        self, actor: Operator | Expert, rng: np.random.Generator, labels: Labeller | None = None
    ) -> None:
        """Prepare.

        Args:
            actor: an operator intervenes, an expert demonstrates.
            rng: everything that is left to chance.
            labels: gives the episodes their labels, where a human does.
        """
        self.account = Account()
        self._labels = labels
        self._actor, self._rng = actor, rng
        self._episode: int | None = None
        self._ended: int | None = None
        self._unannounced = False
        self._other = False
        self._interventions = 0

    @property
    def acting(self) -> bool:
        """Whether the human drives now."""
        if self._episode is None:
            return False
        return self._actor.intervening if isinstance(self._actor, Operator) else True

    def change(self, skill: Skill, habits: Habits) -> None:
        """Act with another skill, and when other habits say so, from the next step on."""
        if isinstance(self._actor, Operator):
            self._actor.habits = habits
            self._actor.expert.skill = skill
        else:
            self._actor.skill = skill

    def event(self, kind: EventKind, episode: int) -> Turn:
        """Take note of an event of the session."""
        if kind is EventKind.START:
            late, self._unannounced = self._unannounced and episode == self._episode, False
            return NOTHING if late else self._begin(episode)
        if kind in ENDS:
            return self._end(episode, kind) if episode == self._episode else NOTHING
        if kind is EventKind.INTERVENTION_START:
            self._other = not self.acting  # another human helps: two at one arm are one too many
        elif kind is EventKind.INTERVENTION_END:
            self._other = False
        return NOTHING

    def armed(self, episode: int) -> Turn:
        """Take note of an episode that waits for whoever drives it; its event may have come before anybody listened."""
        if episode in (self._episode, self._ended):
            return NOTHING
        self._unannounced = True
        return self._begin(episode)

    def step(self, episode: int, over: bool, truth: GroundTruth) -> Turn:
        """Answer a step.

        Args:
            episode: of the step.
            over: it is the last one of its episode, which nobody answers.
            truth: the scene.
        """
        begun = NOTHING
        if episode != self._episode:  # it came while one was running, or a step has overtaken the event
            begun, self._unannounced = self._begin(episode), True
        if over:
            return NOTHING
        turn = self._answer(begun, truth)
        looking = not isinstance(self._actor, Operator) or self._actor.looking
        label = None if self._labels is None else self._labels.see(truth, looking=looking)
        return turn if label is None else replace(turn, label=label, episode=episode)

    def _answer(self, begun: Turn, truth: GroundTruth) -> Turn:
        if isinstance(self._actor, Expert):
            return Turn(self._actor.act(truth), begun.intervene, begun.why)
        if self._other:
            self._actor.expert.observe(truth)
            return NOTHING
        decision = self._actor.update(truth)
        if decision.started:
            self._interventions += 1
            assert decision.reason is not None
            return Turn(decision.action, True, f'takes over: {decision.reason.value}')
        if decision.ended:
            return Turn(decision.action, False, 'hands back: it is right again')
        return Turn(decision.action)

    def _begin(self, episode: int) -> Turn:
        self._episode, self._other, self._interventions = episode, False, 0
        self._actor.reset(self._rng)
        if self._labels is not None:
            self._labels.reset(self._rng.spawn(1)[0])
        if isinstance(self._actor, Operator):
            return NOTHING
        self._interventions = 1
        return Turn(intervene=True, why=f'demonstrates episode {episode}')

    def _end(self, episode: int, kind: EventKind) -> Turn:
        acted = self.acting
        if isinstance(self._actor, Operator):
            self._actor.end_episode()
        self._episode, self._ended = None, episode
        self.account.episodes += kind in (EventKind.SUCCESS, EventKind.FAILURE, EventKind.TIME_LIMIT)
        self.account.successes += kind is EventKind.SUCCESS
        self.account.interventions.append(self._interventions)
        outcome = kind.outcome
        label = None if self._labels is None or outcome is None else self._labels.ended(outcome)
        turn = Turn(intervene=False, why=f'lets go: episode {episode} is over') if acted else NOTHING
        return turn if label is None else replace(turn, label=label, episode=episode)


class DemonstrationStage(StrEnum):
    """What is going on."""

    TO_HOME_POSE = 'to home pose'
    RESET = 'reset'
    ACT = 'act'
    LET_GO = 'let go'
    RETURN = 'return'
    DONE = 'done'


@dataclass(frozen=True)
class Order:
    """What to do in one control step.

    Attributes:
        action: to send as a displacement of the TCP; None for nothing.
        joint_goal: (6,) to send as joint goals [rad]; None for nothing.
        reset: have the cube put somewhere new.
    """

    action: EeDeltaValue | None = None
    joint_goal: FloatArray | None = None
    reset: bool = False


@dataclass
class Score:
    """What came of the demonstrations.

    Attributes:
        successes: episodes that succeeded.
        steps: their lengths [steps].
        failures: episodes that did not.
    """

    successes: int = 0
    steps: list[int] = field(default_factory=list)
    failures: int = 0

    @property
    def episodes(self) -> int:
        """Episodes that have ended."""
        return self.successes + self.failures

    def __str__(self) -> str:
        mean = sum(self.steps) / len(self.steps) if self.steps else float('nan')
        return f'{self.successes} of {self.episodes} episodes succeeded, in {mean:.1f} steps on average'


class Demonstrations:
    """Runs demonstrations; one instance drives one arm."""

    def __init__(
        self,
        preset: Preset,
        home: FloatArray,
        *,
        spec: ActionSpec | None = None,
        skill: Skill | None = None,
        episodes: int = 0,
        seed: int = 0,
    ) -> None:
        """Prepare.

        Args:
            preset: task, and where episodes begin.
            home: (6,) joint positions to begin with [rad].
            spec: how large an action may be.
            skill: how well it acts.
            episodes: how many; 0 for no end.
            seed: of everything that is left to chance.
        """
        self.preset = preset
        self.score = Score()
        self.stage = DemonstrationStage.TO_HOME_POSE
        self._home, self._episodes = home, episodes
        self._spec = ActionSpec() if spec is None else spec
        self._rng = np.random.default_rng(seed)
        self._expert = Expert(preset.task, self._spec, skill)
        self._goal: FloatArray | None = None
        self._count = self._resets = 0
        self._start = np.array(HOME_TCP)

    def change(self, skill: Skill) -> None:
        """Act with another skill from the next step on."""
        self._expert.skill = skill

    def update(self, state: TaskState, positions: FloatArray, dt: float) -> Order:
        """Advance by one control step.

        Args:
            state: ground truth and where the task stands.
            positions: (6,) joint positions [rad].
            dt: length of the step [s].
        """
        self._count += 1
        if self.stage is DemonstrationStage.TO_HOME_POSE:
            return self._to_home_pose(positions, dt)
        if self.stage is DemonstrationStage.RESET:
            return self._reset(state)
        if self.stage is DemonstrationStage.ACT:
            return self._act(state)
        if self.stage is DemonstrationStage.LET_GO:
            if self._count > LET_GO_STEPS:
                self._enter(DemonstrationStage.RETURN)
            return Order(EeDeltaValue(np.zeros(3), HOME_OPENING))
        if self.stage is DemonstrationStage.RETURN:
            return self._return(state.truth)
        return Order()

    def _to_home_pose(self, positions: FloatArray, dt: float) -> Order:
        # From the goal sent last, not from where the arm hangs: else it would creep.
        goal = positions if self._goal is None else self._goal
        reach = JOINT_SPEED_RAD_S * dt
        self._goal = goal + np.clip(self._home - goal, -reach, reach)
        if float(np.max(np.abs(positions - self._home))) < ARRIVED_RAD and self._count > SETTLE_STEPS:
            self._enter(DemonstrationStage.RESET)
        elif self._count > HOME_TIMEOUT_STEPS:
            self._enter(DemonstrationStage.RETURN)
        return Order(joint_goal=self._goal)

    def _reset(self, state: TaskState) -> Order:
        """Wait for the cube to be somewhere new, without losing the pose: an action of nothing holds it."""
        stay = EeDeltaValue(np.zeros(3), HOME_OPENING)
        if self._count == 1:
            self._resets = state.resets
            return Order(stay, reset=True)
        if state.resets == self._resets or self._count <= SETTLE_STEPS:
            return Order(stay, reset=self._count % 20 == 0)
        self._expert.reset(self._rng)
        self._enter(DemonstrationStage.ACT)
        return self._act(state)

    def _act(self, state: TaskState) -> Order:
        over = state.status.success or state.status.failure or self._count > self.preset.max_steps
        if not over:
            return Order(self._expert.act(state.truth))
        if state.status.success:
            self.score.successes += 1
            self.score.steps.append(self._count)
        else:
            self.score.failures += 1
        self._enter(
            DemonstrationStage.DONE if self.score.episodes == self._episodes else DemonstrationStage.LET_GO
        )
        self._start = self._draw_start()
        return Order(EeDeltaValue(np.zeros(3), HOME_OPENING))

    def _return(self, truth: GroundTruth) -> Order:
        """Go up, then to where the next episode begins."""
        error = self._start - truth.tcp_position
        if float(np.linalg.norm(error)) < ARRIVED_M or self._count > HOME_TIMEOUT_STEPS:
            self._enter(DemonstrationStage.RESET)
        if truth.tcp_position[2] < SAFE_HEIGHT:
            error[:2] = 0.0
        scale = np.array(self._spec.translation_scale_m)
        step = 0.6 * error / scale
        step /= max(1.0, float(np.max(np.abs(step))))
        return Order(self._spec.limit(EeDeltaValue(step * scale, HOME_OPENING)))

    def _draw_start(self) -> FloatArray:
        arm = self.preset.start.arm
        if not isinstance(arm, AtPoint):
            return np.array(HOME_TCP)
        return np.array(arm.centre) + self._rng.uniform(-1.0, 1.0, 3) * arm.spread

    def _enter(self, stage: DemonstrationStage) -> None:
        self.stage, self._count = stage, 0
