# SPDX-License-Identifier: Apache-2.0
"""A policy that acts on top of a base, live: the base's word for a step, and who acts in it.

The base is a stored policy in this process, or a policy behind a socket, which vla_policy_node asks and passes on: what
it says for a step is waited for within the step, and a step that it leaves out is the actor's, where that is heard, or
the arm holds. Where the actor acts alone nobody waits for the base.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from drqv2_policy_node.acting import Acting, Decision, Installed, noise_source
from drqv2_policy_node.answering import Hold, HoldReason, Mode
from drqv2_policy_node.on_base import Action, OnBase
from drqv2_policy_node.policy import Policy, PolicyError
from so101_contract.action import ActionSpec
from so101_contract.assembly import Assembler
from so101_contract.base import BaseAction
from so101_contract.errors import ContractError
from so101_contract.messages import ExecutedAction, StepRecord
from so101_contract.observation import Observation

REMEMBERED = 64
"""Steps whose word of the base is kept."""


class Base(Protocol):
    """Who is learned on."""

    @property
    def name(self) -> str:
        """For people."""

    def pending(self, step: StepRecord, age_ns: int) -> bool:
        """Whether its word for this step may still come."""

    def says(self, step: StepRecord, observation: Observation) -> Action | None:
        """Return its action in network units (4,); None where it has none."""


@dataclass(frozen=True)
class StoredBase:
    """A stored policy.

    Attributes:
        policy: who acts.
        name: for people.
    """

    policy: Policy
    name: str

    def pending(self, step: StepRecord, age_ns: int) -> bool:
        """Return False: it answers at once."""
        return False

    def says(self, step: StepRecord, observation: Observation) -> Action | None:
        """Return its mean action."""
        return self.policy.act(observation)


class HeardBase:
    """A base in another node, whose actions come as messages.

    Attributes:
        name: for people.
    """

    def __init__(self, name: str, spec: ActionSpec, wait_ns: int) -> None:
        """Prepare.

        Args:
            name: for people.
            spec: what an action means.
            wait_ns: how long after its tick a step waits for the base [ns].
        """
        self.name, self._spec, self._wait_ns = name, spec, wait_ns
        self._said: OrderedDict[tuple[int, int], Action] = OrderedDict()

    def take(self, action: ExecutedAction) -> None:
        """Take what it says for a step."""
        said = self._spec.from_wire(action.translation, action.opening).values
        self._said[action.episode, action.index] = said.astype(np.float32)
        if len(self._said) > REMEMBERED:
            self._said.popitem(last=False)

    def pending(self, step: StepRecord, age_ns: int) -> bool:
        """Whether its word for this step may still come."""
        return (step.episode, step.index) not in self._said and age_ns < self._wait_ns

    def says(self, step: StepRecord, observation: Observation) -> Action | None:
        """Return what has come for this step."""
        return self._said.get((step.episode, step.index))


class ActingOnBase(Acting):
    """Has base and actor answer the steps.

    Attributes:
        base: who is learned on.
        mixed: base and actor.
        trouble: why the base said nothing at the last step; empty where it did.
    """

    def __init__(
        self, assembler: Assembler, base: Base, mixed: OnBase, spec: ActionSpec, *, seed: int = 0, **how: Any
    ) -> None:
        """Prepare.

        Args:
            assembler: of what the session observes; `LIMITS` are enough.
            base: who is learned on.
            mixed: base and actor.
            spec: of the base's actions.
            seed: of all that is left to chance.
            how: `timing` and `mode` of `Answering`.
        """
        super().__init__(assembler, seed=seed, **how)
        self.base, self.mixed, self.trouble = base, mixed, ''
        self._spec, self._episode = spec, -1
        self._untaught = Installed(mixed, spec, f'base {base.name}', 0, 0.0, assembler.spec.hash)

    @property
    def ready(self) -> bool:
        """Whether anybody can act: the base can before the learner has sent anything."""
        return True

    def _act(self, step: StepRecord, age_ns: int) -> Decision | Hold | None:
        mixed, by = self.mixed, self.installed or self._untaught
        if not mixed.alone and self.base.pending(step, age_ns):
            return None
        if step.episode != self._episode:
            self._episode = step.episode
            mixed.begin(noise_source(self._seed, step.stamp_ns))
        observation = self.assembler.observation(step.episode, step.index)
        std = by.std if self.mode is Mode.EXPLORE else 0.0
        try:
            proposal = self.base.says(step, observation)
            self.trouble = '' if proposal is not None else f'{self.base.name} said nothing for this step'
            mixed.std = std
            done = mixed.mix(observation, proposal)
            wire = by.action.to_wire(done.action)
            said = None if proposal is None else self._spec.to_wire(proposal)
        except PolicyError as error:
            return Hold(step, HoldReason.NO_TARGET, str(error))
        except ContractError as error:
            return Hold(step, HoldReason.REFUSED, str(error))
        return Decision(
            step=step,
            action=done.action,
            wire=wire,
            frame_id=by.action.frame_id,
            input_ns=self._input_age_ns(step, age_ns),
            observation=observation,
            by=by,
            std=std,
            seed=self._seed,
            base=None if said is None else BaseAction(said.translation, said.opening, done.by_base),
        )

    def install(self, installed: Installed, policy: Policy) -> None:
        """Take another version, which counts from the next action on."""
        if policy.manifest.on_base is None:
            installed = replace(installed, name=f'base {self.base.name}')
        self.installed = installed
        self.mixed.learned(policy)
