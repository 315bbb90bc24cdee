# SPDX-License-Identifier: Apache-2.0
"""One step of a running episode: end the step before, look how the episode goes on, begin the next one.

An episode ends by the word of its reward sources (`so101_contract.task.reward`), by a human's word, at its time
limit, or because it cannot go on; its last step carries what that is worth. Where a simulation knows the truth, it
measures: what an episode is called stands beside what it was.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from so101_contract.messages import StepRecord
from so101_contract.session import Driver, Outcome
from so101_contract.task.reward import Evidence, Grip, Jury, RewardSource, sources_of, Word
from so101_contract.task.spec import Ending, TaskReward, TaskSpec
from so101_contract.task_report import TaskReport
from so101_session.session.arbiter import Answer, Arbiter
from so101_session.session.clock import Problem, Senses
from so101_session.session.config import SessionConfig
from so101_session.session.episode import Episode, Verdict


@dataclass(frozen=True, kw_only=True)
class Rewards:
    """What steps and outcomes are worth."""

    success: float = 1.0
    failure: float = 0.0
    step: float = 0.0

    def of(self, index: int, outcome: Outcome | None) -> float:
        """Return the reward that a step carries, earned by the step before it.

        Args:
            index: of the step; the first one has none.
            outcome: of the episode, if this is its last step.
        """
        if index == 0:
            return 0.0
        bonus = {Outcome.SUCCESS: self.success, Outcome.FAILURE: self.failure}
        return self.step + (0.0 if outcome is None else bonus.get(outcome, 0.0))


DEFAULT_LIMIT = 100
SILENT_STEPS = 10
"""A classifier that says nothing of so many steps is told of."""
EVERY_END = frozenset(Ending)


def verdict_of(word: Word, why: str, ends: Collection[Ending] = EVERY_END) -> Verdict | None:
    """Return how the episode ends by the word of the sources, or None where it goes on.

    Args:
        word: of all of them.
        why: for people.
        ends: what ends an episode of the task.
    """
    if word is Word.SUCCESS and Ending.SUCCESS in ends:
        return Verdict(Outcome.SUCCESS, why)
    if word is Word.FAILURE and Ending.FAILURE in ends:
        return Verdict(Outcome.FAILURE, why)
    return None


def jury_of(sources: str, rate_hz: float, task: TaskSpec | None = None) -> Jury:
    """Return who judges the episodes of a task, at so many steps per second [Hz].

    Raises:
        TaskError: there is no such source.
    """
    reward = TaskReward() if task is None else task.reward
    hold_steps = max(1, round(reward.hold_s * rate_hz))
    return Jury(sources_of(sources), hold_steps=hold_steps, grip=reward.grip or Grip())


class Stepper:
    """Makes the steps of one episode after the other."""

    def __init__(
        self,
        config: SessionConfig,
        arbiter: Arbiter,
        senses: Senses,
        report: Callable[[], TaskReport | None],
        *,
        task: TaskSpec | None = None,
        felt: Callable[[], Evidence] = Evidence,
    ) -> None:
        self._config, self._arbiter, self._senses, self._report = config, arbiter, senses, report
        self._felt = felt
        self._sources = sources_of(config.reward_source)
        self.jury = jury_of(config.reward_source, config.rate_hz, task)
        self._usual_limit = DEFAULT_LIMIT if task is None else task.steps(config.rate_hz)
        self._ends = EVERY_END if task is None else frozenset(task.ends)
        self._rewards = Rewards(
            success=config.success_reward, failure=config.failure_reward, step=config.step_reward
        )
        self._stamp_ns = 0

    def mute(self, episode: Episode) -> str:
        """Return why a source that is asked cannot tell, for people; empty where it can."""
        if RewardSource.CLASSIFIER not in self._sources:
            return ''
        opinion = self._felt().opinion
        newest = -1 if opinion is None or opinion.episode != episode.number else opinion.index
        if episode.index - newest > SILENT_STEPS:
            return 'the classifier is silent: see whether classifier_node runs'
        return '' if opinion is None else opinion.reason

    def limit(self, report: TaskReport | None) -> int:
        """Return the actions of an episode: as configured, as the simulation says, as the task says, or as usual."""
        told = 0 if report is None else report.max_steps
        return self._config.time_limit_steps or told or self._usual_limit

    def step(
        self,
        episode: Episode,
        now_s: float,
        now_ns: int,
        problem: Problem | None = None,
        pausing: bool = False,
    ) -> tuple[list[Answer | StepRecord], Verdict | None]:
        """Make the next step of an episode.

        Args:
            episode: the running one; its index counts up.
            now_s: the monotonic time [s].
            now_ns: the time of the graph [ns].
            problem: why it cannot go on, or None.
            pausing: the arm holds from this step on.

        Returns:
            What to publish, in order, and how the episode ends with this step, if it does.
        """
        aborted = self._arbiter.aborted
        report = self._report()
        episode.measure(report)
        done: list[Answer | StepRecord] = [*self._arbiter.close_step()]
        verdict = episode.verdict or self._verdict(episode, now_s, problem, report)
        if aborted and verdict is None:
            # Less was done than was said: without a next step the step gives no transition. A last step is said all
            # the same, since it carries the outcome.
            episode.index += 1
        # A clock that is set back must not make a step older than the one before.
        self._stamp_ns = max(now_ns, self._stamp_ns + 1)
        done.append(self._record(episode, None if verdict is None else verdict.outcome))
        if verdict is not None:
            return done, verdict
        index, episode.index = episode.index, episode.index + 1
        # Nobody answers the step of a pause, so that no transition spans it.
        done += (
            self._arbiter.open_held(episode.number, index)
            if pausing
            else self._arbiter.open_step(episode.number, index, now_s)
        )
        return done, None

    def _record(self, episode: Episode, outcome: Outcome | None) -> StepRecord:
        return StepRecord(
            episode=episode.number,
            index=episode.index,
            stamp_ns=self._stamp_ns,
            joint_stamp_ns=self._senses.joints.stamp_ns,
            image_stamps_ns=tuple(camera.stamp_ns for camera in self._senses.cameras),
            reward=self._rewards.of(episode.index, outcome),
            terminated=outcome is not None and outcome.terminal,
            truncated=outcome is not None and not outcome.terminal,
        )

    def _verdict(
        self, episode: Episode, now_s: float, problem: Problem | None, report: TaskReport | None
    ) -> Verdict | None:
        if problem is not None:
            return Verdict(Outcome.ABORT, str(problem))
        evidence = replace(
            self._felt(),
            episode=episode.number,
            index=episode.index,
            resets=episode.resets,
            report=report,
            commanded=self._arbiter.ramp.opening,
        )
        found = verdict_of(*self.jury.judge(evidence), self._ends)
        if found is not None:
            return found
        if episode.index >= episode.limit:
            return Verdict(Outcome.TIME_LIMIT, f'{episode.limit} steps')
        waited_s = self._arbiter.unanswered * self._config.period_s
        blames_policy = episode.policy_was_there and waited_s >= self._config.no_answer_s
        if blames_policy and self._arbiter.takeover.driver(now_s) is Driver.POLICY:
            reason = f'the policy has not answered for {waited_s:.1f} s'
            return Verdict(Outcome.ABORT, reason, policy_silent=True)
        return None
