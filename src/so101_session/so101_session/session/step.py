# SPDX-License-Identifier: Apache-2.0
"""One step of a running episode: end the step before, look how the episode goes on, begin the next one.

An episode ends by the ground truth of the twin, by a human's word, at its time limit, or because it cannot go on; its
last step carries what that is worth.
"""

from collections.abc import Callable
from dataclasses import dataclass

from so101_contract.messages import StepRecord
from so101_contract.session import Driver, Outcome
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


def judge(report: TaskReport | None, resets: int) -> Verdict | None:
    """Return how the episode ends by the ground truth of the twin, or None where it goes on.

    Args:
        report: the newest one.
        resets: of the scene, when the episode began; an older report is of the episode before.
    """
    if report is None or report.state.resets < resets:
        return None
    status = report.state.status
    if status.success:
        return Verdict(Outcome.SUCCESS, 'the task is done')
    if status.failure:
        return Verdict(Outcome.FAILURE, status.reason)
    return None


class Stepper:
    """Makes the steps of one episode after the other."""

    def __init__(
        self, config: SessionConfig, arbiter: Arbiter, senses: Senses, report: Callable[[], TaskReport | None]
    ) -> None:
        self._config, self._arbiter, self._senses, self._report = config, arbiter, senses, report
        self._rewards = Rewards(
            success=config.success_reward, failure=config.failure_reward, step=config.step_reward
        )
        self._stamp_ns = 0

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
        done: list[Answer | StepRecord] = [*self._arbiter.close_step()]
        verdict = episode.verdict or self._verdict(episode, now_s, problem)
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

    def _verdict(self, episode: Episode, now_s: float, problem: Problem | None) -> Verdict | None:
        if problem is not None:
            return Verdict(Outcome.ABORT, str(problem))
        if self._config.reward_source == 'sim':
            found = judge(self._report(), episode.resets)
            if found is not None:
                return found
        if episode.index >= episode.limit:
            return Verdict(Outcome.TIME_LIMIT, f'{episode.limit} steps')
        waited_s = self._arbiter.unanswered * self._config.period_s
        if waited_s >= self._config.no_answer_s and self._arbiter.takeover.driver(now_s) is Driver.POLICY:
            reason = f'the policy has not answered for {waited_s:.1f} s'
            return Verdict(Outcome.ABORT, reason, policy_silent=True)
        return None
