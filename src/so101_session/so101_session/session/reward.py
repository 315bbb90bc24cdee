# SPDX-License-Identifier: Apache-2.0
"""How an episode ends and what that is worth: by the twin's ground truth, or by the person's word."""

from dataclasses import dataclass

from so101_contract.episodes import Outcome
from so101_sim.task_messages import TaskReport


@dataclass(frozen=True)
class Verdict:
    """An outcome, and why.

    Attributes:
        outcome: how the episode ends.
        reason: for people, one sentence; may be empty.
        policy_silent: the policy is to blame, since it does not answer.
    """

    outcome: Outcome
    reason: str = ''
    policy_silent: bool = False


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
