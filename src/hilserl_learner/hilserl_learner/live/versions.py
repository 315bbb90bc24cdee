# SPDX-License-Identifier: Apache-2.0
"""Versions of the policy that the learner gives away."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import pack
from hilserl_learner.agents.common import Agent
from hilserl_learner.agents.on_base import OnBaseAgent
from hilserl_learner.training.on_base import LiveShare


@dataclass(frozen=True)
class PolicyVersion:
    """A version of the policy, as it is given away.

    Attributes:
        manifest: policy manifest as JSON.
        payload: bytes of a safetensors file.
        version: counts up.
        step: gradient updates so far.
    """

    manifest: str
    payload: bytes
    version: int
    step: int


class PolicyVersions:
    """Makes versions of an agent's policy: the first one at once, later ones only where it has learned something.

    Attributes:
        version: of the last one; 0 before the first.
    """

    def __init__(
        self,
        agent: Agent,
        fields: Mapping[str, Any],
        *,
        period_s: float,
        version: int = 0,
        share: LiveShare | None = None,
    ) -> None:
        """Prepare.

        Args:
            agent: whose policy it is.
            share: how often it is heard on top of a base; None where there is no base.
            fields: what `Policy.create` wants to know, without name, version and noise schedule.
            period_s: time between two versions [s].
            version: the last one of an earlier life.
        """
        self._agent, self._fields, self._period_s = agent, dict(fields), period_s
        self.version = version
        self._share = share
        self._updates, self._last_s = -1, float('-inf')

    def begins_at(self, pose: tuple[float, ...]) -> None:
        """Note where the episodes that it learns from begin (6,) [rad]; the policy's manifest says it."""
        self._fields['reset_pose'] = pose

    def due(self, now_s: float) -> bool:
        """Whether it is time for a version, by a clock that never jumps [s]."""
        return self._agent.updates != self._updates and now_s - self._last_s >= self._period_s

    def make(self, now_s: float, std: float) -> PolicyVersion:
        """Return the next version; the exploration noise of this moment goes with it."""
        self.version += 1
        self._updates, self._last_s = self._agent.updates, now_s
        # The policy node does not know how many steps were made, so it is told the noise, not the schedule.
        policy = self.policy(f'{std:.6g}')
        return PolicyVersion(*pack(policy), version=self.version, step=self._agent.updates)

    def policy(self, std_schedule: str) -> Policy:
        """Return the present policy."""
        said = {'name': 'live', 'version': max(self.version, 0), 'std_schedule': std_schedule, **self._fields}
        if self._share is not None and isinstance(self._agent, OnBaseAgent):
            return self._agent.policy_on_base(self._share.now, self._share.alone, **said)
        return self._agent.policy(**said)

    def forget(self) -> None:
        """Let the next version be due although nothing was learned: the weights came from elsewhere."""
        self._updates = -1
