# SPDX-License-Identifier: Apache-2.0
"""The session as a pure state machine: no clock of its own, no ROS. It is told what comes, and says what to do.

| state | what happens | leaves |
|---|---|---|
| WAITING | something is missing, or nobody has asked for an episode | to RESETTING |
| RESETTING | the arm goes back, the scene is arranged | to READY, or WAITING when stuck |
| READY | at the start | to ARMED, at once if `auto` |
| ARMED | the episode has its number; policy or human must be there | to RUNNING with the first step |
| RUNNING | steps | to PAUSED, or to WAITING with the last step |
| PAUSED | no steps; the arm holds | to RUNNING |
| DONE | as many episodes as wanted | |

`tick` is called once per step, `motion` several times per step for the way back. Times are monotonic [s].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from so101_contract.action import ActionSpec
from so101_contract.messages import ExecutedAction, StepRecord
from so101_contract.session import Driver, EventKind, NO_EPISODE, Outcome, SessionState, SessionStatus
from so101_contract.task_report import TaskReport
from so101_session.session.arbiter import Answer, Arbiter, HandOver, Stop
from so101_session.session.clock import Jitter, Problem, Senses
from so101_session.session.config import ResetConfig, SessionConfig
from so101_session.session.episode import Account, Episode, Event, SessionError, Verdict
from so101_session.session.reset import opening_of, ResetEffect, ResetRun, Stage, StartPlanner
from so101_session.session.step import Stepper
from so101_session.session.takeover import GripperRamp, Takeover, TakeoverRules

FloatArray = npt.NDArray[np.float64]
DEFAULT_LIMIT = 100
RETRY_S = 3.0
"""A reset that got stuck is tried again after this time."""

FAREWELL_S = 1.5
"""Time between the last event and the end of the node, for those who listen."""

PATIENCE_S = 1.0
"""An episode that nobody drives is not spoken of before this time."""

STALL_PERIODS = 5
"""A control clock that is later than so many steps has stood still."""


@dataclass(frozen=True)
class Say:
    """Tell people, in one sentence."""

    sentence: str
    warning: bool = False


@dataclass(frozen=True)
class Finish:
    """End the node: the work is done."""


Effect: TypeAlias = StepRecord | ExecutedAction | Event | ResetEffect | Stop | Say | Finish
"""What the session wants to be done: its node carries these out, in order."""


class Session:
    """The session of one arm."""

    def __init__(
        self,
        config: SessionConfig,
        reset: ResetConfig,
        action: ActionSpec,
        senses: Senses,
        report: Callable[[], TaskReport | None] = lambda: None,
    ) -> None:
        """Prepare.

        Args:
            config: clock, drivers and episodes.
            reset: the way back.
            action: the largest action.
            senses: what is observed; kept up to date by the caller.
            report: the newest ground truth of a simulation.
        """
        self.state = SessionState.WAITING
        self.account = Account()
        rules = TakeoverRules(
            auto_takeover=config.auto_takeover,
            give_back_s=config.give_back_s,
            timeout_s=config.teleop_timeout_s,
            dwell_steps=config.dwell_steps,
        )
        ramp = GripperRamp(config.gripper_ramp, config.gripper_ramp_steps)
        self.arbiter = Arbiter(action, Takeover(rules), ramp, config.period_s)
        """Chooses the action of each step."""
        self.senses = senses
        self.episode: Episode | None = None
        self.policy_alive = False
        """Whether a policy is there that can answer; kept up to date by the caller."""
        self.policy_holds = ''
        """Why a policy is there and does not answer; empty where none does so. Kept up to date by the caller."""
        self.sentence = self._topic = 'starting'
        self._tells_hold = False
        self.paused = False
        self._config, self._reset_config, self._report = config, reset, report
        self._planner = StartPlanner(reset, config.tcp)
        self._stepper = Stepper(config, self.arbiter, senses, report)
        self._reset: ResetRun | None = None
        self._at_start = False
        self._wanted = config.auto
        self._reset_only = False
        self._not_before_s = self._armed_s = 0.0
        self._now_s = math.inf

    @property
    def driver(self) -> Driver:
        """Who moves the arm now."""
        if self.state is not SessionState.RUNNING:
            return Driver.NOBODY
        driver = self.arbiter.takeover.driver(self._now_s)
        idle = self.arbiter.unanswered > 0 or not self.policy_alive
        return Driver.NOBODY if driver is Driver.POLICY and idle else driver

    def status(self, jitter: Jitter) -> SessionStatus:
        """Return what there is to say about it; `jitter` is that of the control clock."""
        episode, account, arbiter = self.episode, self.account, self.arbiter
        return SessionStatus(
            state=self.state,
            sentence=self.sentence,
            driver=self.driver,
            intervening=arbiter.takeover.intervening,
            paused=self.paused,
            episode=NO_EPISODE if episode is None else episode.number,
            index=0 if episode is None else episode.index,
            limit=0 if episode is None else episode.limit,
            episodes=account.counted,
            wanted=self._config.episodes,
            outcomes=account.tally(),
            answers=dict(arbiter.counts),
            clipped=arbiter.clips.fraction,
            jitter_p50_s=jitter.quantile(0.5),
            jitter_p99_s=jitter.quantile(0.99),
            intervention_rate=account.intervention_rate,
            intervention_length=account.intervention_length,
        )

    # --- what people ask for ---

    def start_episode(self, skip_reset: bool) -> int:
        """Ask for the next episode and return its number.

        Raises:
            SessionError: one is running, or the session is over.
        """
        self._refuse_while_running()
        self._wanted, self._reset_only, self._not_before_s = True, False, 0.0
        self._at_start |= skip_reset
        return self.account.started + 1

    def reset_scene(self) -> None:
        """Ask for a reset without an episode.

        Raises:
            SessionError: an episode is running, or the session is over.
        """
        self._refuse_while_running()
        self._reset_only, self._at_start, self._not_before_s = True, False, 0.0
        if self.state is SessionState.READY:
            self.state = SessionState.WAITING

    def end_episode(self, outcome: Outcome, number: int, reason: str) -> list[Effect]:
        """Take a human's label: of the running episode, or a late one.

        Args:
            outcome: the label.
            number: of the episode; 0 for the running one, or else for the last one.
            reason: for people.

        Raises:
            SessionError: there is no such episode.
        """
        if self.episode is not None and number in (NO_EPISODE, self.episode.number):
            self.episode.end(Verdict(outcome, reason or f'the human says {_name(outcome)}'))
            return []
        number = self.account.relabel(number, outcome)
        event = Event(EventKind(outcome.value), number, 0, reason or 'late label')
        return [event, Say(f'episode {number} is relabelled: {_name(outcome)}')]

    def intervene(self, wanted: bool, now_s: float) -> list[Effect]:
        """Take over, or give back."""
        if self.episode is None and not wanted:
            self.arbiter.takeover.let_go()
        return self._effects(self.arbiter.intervene(wanted, now_s))

    # --- who acts ---

    def policy(self, action: ExecutedAction, now_s: float) -> list[Effect]:
        """Take what the policy says."""
        return self._effects(self.arbiter.policy(action, now_s))

    def teleop(self, action: ExecutedAction, now_s: float) -> list[Effect]:
        """Take what the human says."""
        return self._effects(self.arbiter.teleop(action, now_s))

    def poll(self, now_s: float) -> list[Effect]:
        """Look whether the human's last word has to count again; called several times per step."""
        return self._effects(self.arbiter.poll(now_s))

    def controller_released(self) -> None:
        """Take note that the controller has let go of the arm."""
        if self._reset is not None:
            self._reset.controller_released()

    # --- time passes ---

    def tick(self, now_s: float, now_ns: int, q: FloatArray | None) -> list[Effect]:
        """Advance by one step.

        Args:
            now_s: the monotonic time [s].
            now_ns: the time of the graph [ns].
            q: (6,) measured joint positions [rad], or None without any.
        """
        gap_s, self._now_s = now_s - self._now_s, now_s
        problem = self.senses.problem(now_s)
        if gap_s > STALL_PERIODS * self._config.period_s:
            # This process was stopped: what was done last and what is seen now do not belong together.
            problem = Problem('the control clock stood still', gap_s)
        if self.state in (SessionState.RUNNING, SessionState.PAUSED):
            return self._run(now_s, now_ns, problem)
        if self.state is SessionState.DONE:
            return [Finish()] if now_s >= self._not_before_s else []
        if problem is not None:
            return self._give_up(problem)
        effects: list[Effect] = []
        if self.state is SessionState.WAITING:
            effects += self._wait(now_s)
        if self.state is SessionState.RESETTING:
            effects += self._return(now_s, now_ns)
        if self.state is SessionState.READY and q is not None:
            effects += self._begin(q)
        if self.state is SessionState.ARMED:
            effects += self._arm(now_s, now_ns)
        return effects

    def motion(self, now_s: float, q: FloatArray) -> list[Effect]:
        """Lead the arm back, while that is on."""
        if self.state is not SessionState.RESETTING or self._reset is None:
            return []
        return [*self._reset.motion(now_s, q)]

    # --- states ---

    def _give_up(self, problem: Problem) -> list[Effect]:
        effects: list[Effect] = []
        if self.episode is not None:
            effects = self._end(self.episode, Verdict(Outcome.ABORT, str(problem)))
        elif self.state is SessionState.RESETTING:
            effects = [Event(EventKind.RESET_DONE, NO_EPISODE, 0, str(problem))]
        self.state, self._reset, self._at_start = SessionState.WAITING, None, False
        return effects + self._say(str(problem), warning=True, topic=problem.what)

    def _wait(self, now_s: float) -> list[Effect]:
        if now_s < self._not_before_s:
            return []
        takeover = self.arbiter.takeover
        if self.paused:
            return self._say('paused')
        if not self._wanted and not self._reset_only:
            return self._say('waiting for session/start_episode')
        if takeover.intervening and takeover.silent(now_s):
            return self._say('the human that took over is silent: act, or give back', warning=True)
        return self._begin_reset()

    def _begin_reset(self) -> list[Effect]:
        if self._at_start:
            self.state = SessionState.READY
            return []
        report, scene = self._report(), self._config.reward_source == 'sim'
        if scene and report is None:
            return self._say('waiting for the ground truth of the twin (sim/task)')
        self._reset = ResetRun(self._reset_config, self._planner, scene=scene, task=report)
        self.state = SessionState.RESETTING
        return [Event(EventKind.RESET_START, NO_EPISODE, 0)]

    def _return(self, now_s: float, now_ns: int) -> list[Effect]:
        assert self._reset is not None
        stuck = self._reset.stuck
        if stuck:
            self.state, self._reset, self._not_before_s = SessionState.WAITING, None, now_s + RETRY_S
            return [Event(EventKind.RESET_DONE, NO_EPISODE, 0, stuck), *self._say(stuck, warning=True)]
        effects: list[Effect] = [*self._reset.tick(now_s, now_ns, self.senses, self._report)]
        self.sentence = self._topic = self._reset.stage.value
        if self._reset.stage is Stage.DONE:
            self.state, self._reset, self._at_start, self._reset_only = SessionState.READY, None, True, False
            effects.append(Event(EventKind.RESET_DONE, NO_EPISODE, 0))
        return effects

    def _begin(self, q: FloatArray) -> list[Effect]:
        if self.paused or not self._wanted:
            return self._say('paused' if self.paused else 'at the start; waiting for session/start_episode')
        report = self._report()
        told = 0 if report is None else report.max_steps
        limit = self._config.time_limit_steps or told or DEFAULT_LIMIT
        self.episode = self.account.start(limit, 0 if report is None else report.state.resets)
        self.arbiter.forget()
        self.arbiter.ramp.begin(opening_of(q))
        self.state, self._at_start, self._wanted = SessionState.ARMED, False, self._config.auto
        self._armed_s = self._now_s
        return [Event(EventKind.START, self._number, 0)]

    def _arm(self, now_s: float, now_ns: int) -> list[Effect]:
        assert self.episode is not None
        takeover = self.arbiter.takeover
        if self.episode.verdict is not None:
            return self._end(self.episode, self.episode.verdict)
        if not (self.policy_alive or takeover.claimed):
            # A moment is usual: who waits for the START event has not heard it yet.
            if now_s - self._armed_s <= PATIENCE_S:
                return []
            return self._say_hold(f'episode {self._number} waits for a policy or a human')
        self.state = SessionState.RUNNING
        effects = self._say(f'episode {self._number} runs')
        if takeover.intervening:
            effects.append(Event(EventKind.INTERVENTION_START, self._number, 0))
        return effects + self._run(now_s, now_ns, None)

    def _run(self, now_s: float, now_ns: int, problem: Problem | None) -> list[Effect]:
        episode = self.episode
        assert episode is not None
        effects: list[Effect] = []
        if self.state is SessionState.PAUSED:
            if self.paused and problem is None and episode.verdict is None:
                return []
            self.state = SessionState.RUNNING
            effects = [Event(EventKind.RESUME, episode.number, episode.index)]
            effects += self._say(f'episode {episode.number} goes on')
        done, verdict = self._stepper.step(episode, now_s, now_ns, problem, self.paused)
        if verdict is not None and verdict.policy_silent:
            verdict = replace(verdict, reason=self._with_hold(verdict.reason))
        effects += self._effects(done)
        if verdict is not None:
            return effects + self._end(episode, verdict)
        runs = f'episode {episode.number} runs'
        # A step now and then without an answer is not worth a word.
        if self.policy_holds and self.arbiter.unanswered * self._config.period_s > PATIENCE_S:
            effects += self._say_hold(runs, warning=True)
        elif self._tells_hold:
            effects += self._say(runs)
        if self.paused:
            self.state = SessionState.PAUSED
            effects.append(Event(EventKind.PAUSE, episode.number, episode.index - 1))
            effects += self._say('paused; the arm holds')
        return effects

    def _end(self, episode: Episode, verdict: Verdict) -> list[Effect]:
        """Close the episode."""
        effects: list[Effect] = []
        number, index = episode.number, episode.index
        if self.arbiter.takeover.end_episode(self._now_s):
            effects.append(Event(EventKind.INTERVENTION_END, number, index))
        self.account.close(episode, verdict.outcome)
        effects.append(Event(EventKind(verdict.outcome.value), number, index, verdict.reason))
        because = f' ({verdict.reason})' if verdict.reason else ''
        sentence = f'episode {number}: {_name(verdict.outcome)}{because}; {self.account}'
        effects += self._say(sentence, warning=verdict.outcome is Outcome.ABORT)
        longest = max(episode.runs, default=0)
        if self.policy_alive and longest > self._config.long_intervention_steps:
            # A success at the end of a long one makes the learner believe in everything that came before it.
            warning = f'the human drove {longest} steps in a row; several short corrections teach more'
            effects.append(Say(warning, warning=True))
        self.episode, self.state = None, SessionState.WAITING
        if 0 < self._config.episodes <= self.account.counted:
            self.state, self._not_before_s = SessionState.DONE, self._now_s + FAREWELL_S
        return effects

    # --- helpers ---

    def _say_hold(self, sentence: str, warning: bool = False) -> list[Effect]:
        """Say a sentence, and why the policy holds where it does."""
        topic = f'{sentence}; the policy holds' if self.policy_holds else sentence
        effects = self._say(self._with_hold(sentence), warning, topic)
        self._tells_hold = True
        return effects

    def _with_hold(self, sentence: str) -> str:
        """Add why the policy holds, where it does."""
        return f'{sentence}; the policy holds: {self.policy_holds}' if self.policy_holds else sentence

    @property
    def _number(self) -> int:
        return NO_EPISODE if self.episode is None else self.episode.number

    def _effects(self, answers: Sequence[Answer | StepRecord]) -> list[Effect]:
        """Turn a change of hands into its event; steps and actions stay what they are."""
        for answer in answers:
            if isinstance(answer, ExecutedAction) and self.episode is not None:
                self.episode.note(answer.source)
        return [
            Event(answer.kind, self._number, answer.index) if isinstance(answer, HandOver) else answer
            for answer in answers
        ]

    def _say(self, sentence: str, warning: bool = False, topic: str = '') -> list[Effect]:
        """Keep the sentence, and say it if it is about something new.

        Args:
            sentence: for people.
            warning: it is worth one.
            topic: what it is about: the sentence without what grows in it, such as a time.
        """
        topic = topic or sentence
        news = topic != self._topic
        self.sentence, self._topic, self._tells_hold = sentence, topic, False
        return [Say(sentence, warning)] if news else []

    def _refuse_while_running(self) -> None:
        if self.state is SessionState.DONE:
            raise SessionError('expected a session that goes on, but it has ended; start it again')
        if self.episode is not None:
            raise SessionError(
                f'expected no episode to run, but episode {self._number} does; end it first (session/end_episode)'
            )


def _name(outcome: Outcome) -> str:
    return outcome.name.lower().replace('_', ' ')
