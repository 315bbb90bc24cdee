# SPDX-License-Identifier: Apache-2.0
"""A stored policy that acts: from the observation of a step to its action, with the noise of its schedule.

The observation is put together by the assembler that the learner uses, so both see the same bits; `Observed` is the
proof, a hash of what was seen. When there is an answer at all, `answering` says.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from drqv2_policy_node.answering import Answer, Answering, Hold, HoldReason, Mode
from drqv2_policy_node.robobase.schedule import Schedule
from so101_contract.action import ActionSpec
from so101_contract.assembly import Assembler
from so101_contract.base import BaseAction
from so101_contract.errors import ContractError, ObservationError
from so101_contract.manifest import StepUnit
from so101_contract.messages import StepRecord
from so101_contract.observation import Observation
from so101_contract.record import Record


class Decider(Protocol):
    """What decides: `drqv2_policy_node.policy.Policy`."""

    def act(
        self, observation: Observation, *, std: float = 0.0, rng: np.random.Generator | None = None
    ) -> npt.NDArray[np.float32]:
        """Return the action for one observation in network units (4,)."""


@dataclass(frozen=True)
class Installed:
    """A policy in use, and where it came from.

    Attributes:
        policy: what acts.
        action: what its numbers mean.
        name: for people.
        version: of the weights; 0 for those from disk.
        std: its exploration noise in network units.
        observation_hash: of the observation that it was trained with.
        stamp_ns: when its weights were published [ns]; None for those from disk.
    """

    policy: Decider
    action: ActionSpec
    name: str
    version: int
    std: float
    observation_hash: str
    stamp_ns: int | None = None


@dataclass(frozen=True, kw_only=True)
class Decision(Answer):
    """An answer of a stored policy.

    Attributes:
        observation: what was seen.
        by: who decided.
        std: noise that was added, in network units.
        seed: of the noise.
        base: what the base policy said; None where there is none, or it said nothing.
    """

    observation: Observation
    by: Installed
    std: float
    seed: int
    base: BaseAction | None = None


class Acting(Answering):
    """Has the installed policy answer the steps.

    Attributes:
        installed: the policy in use; None where there is none yet.
    """

    def __init__(self, assembler: Assembler, *, seed: int = 0, **how: Any) -> None:
        """Prepare.

        Args:
            assembler: of what the session observes; `LIMITS` are enough.
            seed: of the exploration noise.
            how: `timing` and `mode` of `Answering`.
        """
        super().__init__(assembler, **how)
        self.installed: Installed | None = None
        self._seed = seed

    @property
    def ready(self) -> bool:
        """Whether a policy is installed."""
        return self.installed is not None

    def _act(self, step: StepRecord, age_ns: int) -> Decision | Hold | None:
        installed = self.installed  # read once: whatever is assigned meanwhile counts from the next action on
        assert installed is not None
        observation = self.assembler.observation(step.episode, step.index)
        std = installed.std if self.mode is Mode.EXPLORE else 0.0
        rng = noise_source(self._seed, step.stamp_ns) if std > 0.0 else None
        try:
            action = installed.policy.act(observation, std=std, rng=rng)
            wire = installed.action.to_wire(action)
        except ContractError as error:
            return Hold(step, HoldReason.REFUSED, str(error))
        return Decision(
            step=step,
            action=action,
            wire=wire,
            frame_id=installed.action.frame_id,
            input_ns=self._input_age_ns(step, age_ns),
            observation=observation,
            by=installed,
            std=std,
            seed=self._seed,
        )


def noise_source(seed: int, stamp_ns: int) -> np.random.Generator:
    """Return the source of a step's exploration noise, so that an action can be computed again from a bag.

    Args:
        seed: parameter of the node.
        stamp_ns: of the step [ns].
    """
    return np.random.default_rng([seed, stamp_ns % (1 << 64)])


def exploration_std(
    schedule: Schedule, unit: StepUnit, *, updates: int, env_steps: int, limit: float
) -> float:
    """Return the std of the noise in network units.

    The step comes from the learner's own counters, which it saves, so it goes on after a restart of either node. A
    schedule over RoboBase's iterations, which nobody counts here, is taken at the environment steps.

    Args:
        schedule: of the manifest.
        unit: what its step counts.
        updates: gradient updates of the learner when it published these weights.
        env_steps: actions that have reached the learner.
        limit: largest std.
    """
    return min(schedule(updates if unit is StepUnit.UPDATES else env_steps), limit)


@dataclass(frozen=True, kw_only=True)
class Observed(Record):
    """What an action was decided from (`policy/observed`, as JSON).

    Attributes:
        episode: number of the episode.
        index: number of the step.
        sha256: `observation_digest` of what was seen.
        version: of the weights that decided; 0 for those from disk.
        std: exploration noise that was added, in network units.
        seed: of the noise.
        latency_s: from the step's arrival to the action's departure [s].
    """

    KIND: ClassVar[str] = 'drqv2_policy_node/observed/1'
    ERROR = ObservationError

    episode: int
    index: int
    sha256: str
    version: int
    std: float
    seed: int
    latency_s: float
