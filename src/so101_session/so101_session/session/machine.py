# SPDX-License-Identifier: Apache-2.0
"""The session as a pure state machine: no clock of its own, no ROS. It is told what comes, and says what to do.

| state | what happens | leaves |
|---|---|---|
| WAITING | something is missing, or nobody has asked for an episode since the arm was stopped last | to RESETTING |
| RESETTING | the arm goes back, the scene is arranged | to READY, or WAITING when stuck, paused or stopped |
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
from so101_contract.session import (
    Driver,
    EventKind,
    NO_EPISODE,
    Outcome,
    SessionState,
    SessionStatus,
    Source,
)
from so101_contract.task.reward import Evidence
from so101_contract.task.spec import TaskSpec
from so101_contract.task_report import TaskReport
from so101_session.session.arbiter import Answer, arbiter_of, events_of, Stop
from so101_session.session.clock import Jitter, Problem, Senses
from so101_session.session.config import FAREWELL_S, PATIENCE_S, PAUSED, ResetConfig, RETRY_S, SessionConfig
from so101_session.session.dialogue import Needs, Requests, Say, Speech, with_hold
from so101_session.session.episode import Account, Episode, Event, outcome_name, SessionError, Verdict
from so101_session.session.put_back import in_the_way, restorer_of
from so101_session.session.reset import MoveTo, opening_of, ResetEffect, ResetRun, Stage, StartPlanner
from so101_session.session.status import status_of
from so101_session.session.step import Stepper
from so101_session.session.word import HumanWord

FloatArray = npt.NDArray[np.float64]


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
        *,
        task: TaskSpec | None = None,
        felt: Callable[[], Evidence] = Evidence,
    ) -> None:
        """Prepare.

        Args:
            config: clock, drivers and episodes.
            reset: the way back.
            action: the largest action.
            senses: what is observed; kept up to date by the caller.
            report: the newest ground truth of a simulation.
            task: what is to be done; None where nobody says.
            felt: the newest of what sources of the reward look at beside the ground truth.
        """
        self.state = SessionState.WAITING
        self.account = Account()
        self.arbiter = arbiter_of(config, action, closed=task is not None and task.keeps_closed)
        """Chooses the action of each step."""
        self.senses = senses
        self.episode: Episode | None = None
        self.policy_alive = False
        """Whether a policy is there that can answer; kept up to date by the caller."""
        self.policy_holds = ''
        """Why a policy is there and does not answer; empty where none does so. Kept up to date by the caller."""
        self._speech = Speech()
        self.paused = False
        self._config, self._reset_config, self._report = config, reset, report
        self._planner = StartPlanner(reset, config.tcp, task)
        self._stepper = Stepper(config, self.arbiter, senses, report, task=task, felt=felt)
        self._word = HumanWord(self.account, self._stepper.jury)
        self._reset: ResetRun | None = None
        self._at_start = False
        self._requests = Requests.of(config, task)
        self._needs = Needs()
        self._restorer = restorer_of(config, reset, task)
        self._not_before_s = self._armed_s = 0.0
        self._now_s = math.inf

    @property
    def sentence(self) -> str:
        """What goes on, for people."""
        return self._speech.sentence

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
        now = (self.state, self.sentence, self.driver, self.paused)
        return status_of(now, self.episode, self.account, self.arbiter, config=self._config, jitter=jitter)

    # --- what people ask for ---

    def start_episode(self, skip_reset: bool) -> int:
        """Ask for the next episode and return its number; one that runs is cut short.

        Raises:
            SessionError: the arm cannot move, or the session is over.
        """
        if self.episode is not None and self.state is SessionState.ARMED and self.episode.verdict is None:
            return self.episode.number  # it waits for whoever drives, and that is all that is missing
        self._ask('the next episode was asked for', episode=True)
        self._at_start |= skip_reset
        return self.account.started + 1

    def reset_scene(self) -> None:
        """Ask for a reset without an episode; one that runs is cut short.

        Raises:
            SessionError: the arm cannot move, or the session is over.
        """
        self._ask('a reset was asked for', episode=False)
        self._at_start = False
        if self.state is SessionState.READY:
            self.state = SessionState.WAITING

    def arm_stopped(self, why: str) -> None:
        """Take note that the arm was stopped, for however short a time: at once nothing moves any more.

        Args:
            why: as a clause, `ArmWatch.hear`.
        """
        self._requests.stop(why)

    def end_episode(self, outcome: Outcome, number: int, reason: str) -> list[Effect]:
        """Take a human's label: of the running episode, or a late one; see `HumanWord.label`."""
        return [*self._word.label(self.episode, outcome, number, reason)]

    def see(self, success: bool) -> list[Effect]:
        """Take a human's word about what can be seen now; see `HumanWord.see`."""
        return [*self._word.see(self.episode, success)]

    def intervene(self, wanted: bool, now_s: float) -> list[Effect]:
        """Take over, or give back."""
        if self.episode is None and not wanted:
            self.arbiter.takeover.let_go()
        return self._effects(self.arbiter.intervene(wanted, now_s))

    # --- who acts ---

    def policy(self, action: ExecutedAction, now_s: float) -> list[Effect]:
        """Take what the policy says."""
        if self._requests.stopped:
            return []
        return self._effects(self.arbiter.policy(action, now_s))

    def teleop(self, action: ExecutedAction, now_s: float) -> list[Effect]:
        """Take what the human says."""
        if self._requests.stopped and action.source is not Source.NONE:
            return []
        return self._effects(self.arbiter.teleop(action, now_s))

    def poll(self, now_s: float) -> list[Effect]:
        """Look whether the human's last word has to count again; called several times per step."""
        return [] if self._requests.stopped else self._effects(self.arbiter.poll(now_s))

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
        self._needs.now = None
        effects = self._tick(now_s, now_ns, q)
        over, begun = self._needs.events(self.sentence)
        return [*over, *effects, *begun]

    def _tick(self, now_s: float, now_ns: int, q: FloatArray | None) -> list[Effect]:
        stalled, gap_s, self._now_s = self._stalled(now_s), now_s - self._now_s, now_s
        problem = self._requests.look(self.senses.problem(now_s), self.senses.arm)
        if stalled:
            # This process was stopped: what was done last and what is seen now do not belong together.
            problem = Problem('the control clock stood still', gap_s)
        if self.state in (SessionState.RUNNING, SessionState.PAUSED):
            if self._restorer is not None and q is not None:
                self._restorer.grip.feel(q, self.arbiter.ramp.opening)
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
        if self._requests.stopped or self._stalled(now_s) or self._cannot_put_back():
            return []
        return [MoveTo(q.copy())] if self.paused else [*self._reset.motion(now_s, q)]

    # --- states ---

    def _stalled(self, now_s: float) -> bool:
        return now_s - self._now_s > self._config.stall_steps * self._config.period_s

    def _give_up(self, problem: Problem) -> list[Effect]:
        effects: list[Effect] = []
        if self.episode is not None:
            effects = self._end(self.episode, Verdict(Outcome.ABORT, str(problem)))
        elif self.state is SessionState.RESETTING:
            effects = [Event(EventKind.RESET_DONE, NO_EPISODE, 0, str(problem))]
            if self._reset is not None and self._reset.stage is Stage.PUT_BACK:
                self._ask_human(str(problem))
        self.state, self._reset, self._at_start = SessionState.WAITING, None, False
        return effects + self._say(str(problem), warning=True, topic=problem.what)

    def _wait(self, now_s: float) -> list[Effect]:
        if now_s < self._not_before_s:
            return []
        takeover = self.arbiter.takeover
        if self.paused:
            self._needs.now = EventKind.NEED_START
            return self._say(PAUSED)
        if not self._requests.any:
            return self._say_start()
        if takeover.intervening and takeover.silent(now_s):
            self._needs.now = EventKind.NEED_START
            return self._say('the human that took over is silent: act, or give back', warning=True)
        return self._begin_reset()

    def _begin_reset(self) -> list[Effect]:
        if self._at_start:
            self.state = SessionState.READY
            return []
        report, scene = self._report(), self._config.arranges_scene
        if scene and report is None:
            return self._say('waiting for the ground truth of the twin (sim/task)')
        restorer = self._restorer
        put_back = None
        if restorer is not None:
            restorer.helped()  # whoever was asked has pressed Start
            put_back = restorer.run()
            # What a human still does from before takes nothing over; who acts anew does.
            self.arbiter.takeover.begin_episode(put_back is not None)
        keeps = restorer is not None and restorer.keeps
        self._reset = ResetRun(
            self._reset_config, self._planner, scene=scene, task=report, put_back=put_back, keeps=keeps
        )
        self.state = SessionState.RESETTING
        return [Event(EventKind.RESET_START, NO_EPISODE, 0)]

    def _return(self, now_s: float, now_ns: int) -> list[Effect]:
        assert self._reset is not None
        if lost := self._cannot_put_back():
            self._ask_human(lost)
            self.state, self._reset = SessionState.WAITING, None
            return [Event(EventKind.RESET_DONE, NO_EPISODE, 0, lost), *self._say(lost, warning=True)]
        stuck = self._reset.stuck or (PAUSED if self.paused else '')
        if stuck:
            self.state, self._reset, self._not_before_s = SessionState.WAITING, None, now_s + RETRY_S
            said = self._say(stuck, warning=not self.paused)
            return [Event(EventKind.RESET_DONE, NO_EPISODE, 0, stuck), *said]
        effects: list[Effect] = [*self._reset.tick(now_s, now_ns, self.senses, self._report)]
        self._speech.note(self._reset.sentence)
        if self._reset.for_human:
            self._needs.now = EventKind.NEED_RESET
        if self._reset.stage is Stage.DONE:
            if self._reset.put_back is not None:
                effects.append(Event(EventKind.PUT_BACK, NO_EPISODE, 0))
            self.state, self._reset, self._at_start = SessionState.READY, None, True
            self._requests.reset = False
            effects.append(Event(EventKind.RESET_DONE, NO_EPISODE, 0))
        return effects

    def _begin(self, q: FloatArray) -> list[Effect]:
        if self.paused or not self._requests.episode:
            self._needs.now = EventKind.NEED_START
            return self._say(PAUSED) if self.paused else self._say_start()
        report = self._report()
        limit = self._stepper.limit(report)
        self.episode = self.account.start(limit, 0 if report is None else report.state.resets)
        self.arbiter.forget()
        self._stepper.jury.begin()
        self.arbiter.takeover.begin_episode(self.policy_alive)
        self.arbiter.ramp.begin(opening_of(q))
        self.state, self._at_start = SessionState.ARMED, False
        self._requests.begun()
        if self._restorer is not None:
            self._restorer.begin()
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
            waits = f'episode {self._number} waits for a policy or a human'
            return [*self._speech.say_hold(waits, self.policy_holds)]
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
        episode.policy_was_there |= self.policy_alive
        done, verdict = self._stepper.step(episode, now_s, now_ns, problem, self.paused)
        if verdict is not None and verdict.policy_silent:
            verdict = replace(verdict, reason=with_hold(verdict.reason, self.policy_holds))
        effects += self._effects(done)
        if verdict is not None:
            return effects + self._end(episode, verdict)
        # A step now and then without an answer is not worth a word.
        idle = self.arbiter.unanswered * self._config.period_s > PATIENCE_S and not self.policy_alive
        effects += self._speech.while_it_runs(
            episode, self.policy_holds, self._stepper.mute(episode), idle=idle
        )
        if self.paused:
            self.state = SessionState.PAUSED
            effects.append(Event(EventKind.PAUSE, episode.number, episode.index - 1))
            effects += self._say(PAUSED)
        return effects

    def _end(self, episode: Episode, verdict: Verdict) -> list[Effect]:
        """Close the episode."""
        effects: list[Effect] = []
        number, index = episode.number, episode.index
        if self.arbiter.takeover.end_episode(self._now_s):
            effects.append(Event(EventKind.INTERVENTION_END, number, index))
        self.account.close(episode, verdict.outcome)
        kind = EventKind(verdict.outcome.value)
        effects.append(Event(kind, number, index, verdict.reason, by_human=verdict.by_human))
        if self._restorer is not None:
            self._restorer.end(verdict.outcome)
            if self._restorer.asks and not verdict.asked:
                self._ask_human(self._restorer.why)
        because = f' ({verdict.reason})' if verdict.reason else ''
        truth = self.account.contradiction(number)
        sentence = f'episode {number}: {outcome_name(verdict.outcome)}{because}{truth}; {self.account}'
        effects += self._say(sentence, warning=bool(truth) or verdict.outcome is Outcome.ABORT)
        if self.policy_alive and (advice := episode.advice(self._config.long_intervention_steps)):
            effects.append(Say(advice, warning=True))
        self.episode, self.state = None, SessionState.WAITING
        if 0 < self._config.episodes <= self.account.counted:
            self.state, self._not_before_s = SessionState.DONE, self._now_s + FAREWELL_S
        return effects

    # --- helpers ---

    @property
    def _number(self) -> int:
        return NO_EPISODE if self.episode is None else self.episode.number

    def _effects(self, answers: Sequence[Answer | StepRecord]) -> list[Effect]:
        return [*events_of(answers, self.episode)]

    def _say(self, sentence: str, warning: bool = False, topic: str = '') -> list[Effect]:
        return [*self._speech.say(sentence, warning, topic)]

    def _cannot_put_back(self) -> str:
        run = self._reset
        if run is None or run.stage is not Stage.PUT_BACK or run.put_back is None:
            return ''
        return run.put_back.lost or in_the_way(claimed=self.arbiter.takeover.claimed, paused=self.paused)

    def _ask_human(self, why: str) -> None:
        """Have a human arrange the scene before the next Start."""
        assert self._restorer is not None
        self._restorer.ask(why)
        self._requests.withdraw(why)

    def _say_start(self) -> list[Effect]:
        """Say that Start is waited for."""
        if self._restorer is not None:
            self._requests.human = self._restorer.told(self._config.arranges_scene)
        self._needs.now = EventKind.NEED_RESET if self._requests.human else EventKind.NEED_START
        policy_drives = self.policy_alive and not self.arbiter.takeover.claimed
        return self._say(self._requests.waiting(self.state, policy_drives))

    def _ask(self, why: str, *, episode: bool) -> None:
        """Take a request that moves the arm: it cuts an episode short, with its next step, and ends a pause."""
        if self.state is SessionState.DONE:
            raise SessionError('expected a session that goes on, but it has ended; start it again')
        self._requests.ask(episode=episode)
        if self.episode is not None:
            self.episode.end(Verdict(Outcome.ABORT, why, asked=True))
        if episode and self._reset is not None:
            self._reset.ready()
        self.paused, self._not_before_s = False, 0.0
