# SPDX-License-Identifier: Apache-2.0
"""From transitions to a better agent: buffers, schedule, how often to update. The same for environments and live arms.

trainer.add(transition)          # whenever there is one, from wherever
trainer.owed                     # updates that the wished ratio to environment steps still asks for
trainer.step()                   # one update, whenever there is time
"""

from collections.abc import Mapping
import ctypes
from dataclasses import dataclass, replace
import json
import logging
import os
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drqv2_policy_node.policy import Policy
from drqv2_policy_node.robobase.schedule import parse_schedule
from drqv2_policy_node.store import find_policy, load_policy
from hilserl_learner.agents.common import Agent, AgentError, make_agent, Metrics
from hilserl_learner.data.batch import Windows
from hilserl_learner.data.hindsight import Hindsight
from hilserl_learner.data.replay import ReplayBuffer, SymmetricSampler
from so101_contract.action import ActionSpec
from so101_contract.joints import gripper_rad_to_opening
from so101_contract.observation_spec import ObservationSpec
from so101_contract.transition import Transition
from so101_interfaces_py.params import check_bounds, param

WITH_POLICY = {'gamma': 'gamma_with_policy', 'std_schedule': 'std_with_policy'}
"""Values of the configuration in whose place another one counts where the agent begins with a policy."""

GRIPPER_TOGGLE = 0.5
"""Difference between the opening asked for and the opening now that counts as opening or closing."""

_AGENT = 'agent.'
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST = 32 * 2**20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """How experience becomes updates."""

    batch_size: int = param(64, doc='Transitions in an update.', lo=2, hi=65536)
    demo_fraction: float = param(
        0.5, doc='Share of a batch that comes from demonstrations and interventions.', lo=0.0, hi=1.0
    )
    utd: float = param(1.0, doc='Updates wished for each environment step.', lo=0.0, hi=100.0)
    n_step: int = param(3, doc='Steps over which rewards are summed before a value follows.', lo=1, hi=50)
    gamma: float = param(
        0.97, doc='Discount of a step, where the agent begins with fresh networks.', lo=0.0, hi=1.0
    )
    gamma_with_policy: float = param(
        0.99,
        doc='The same where it begins with a policy, which is to succeed more often rather than faster.',
        lo=0.0,
        hi=1.0,
    )
    start_steps: int = param(
        100, doc='Environment steps before the first update, demonstrations included.', lo=1, hi=10_000_000
    )
    std_schedule: str = param(
        'linear(0.2,0.1,5000)',
        doc='Exploration noise over environment steps, in network units, where the agent begins with fresh '
        'networks: a number, linear(from,to,steps), or step_linear(from,to,steps,to,steps).',
    )
    std_with_policy: str = param(
        '0.05', doc='The same where it begins with a policy: more noise would hide what it can.'
    )
    capacity: int = param(100_000, doc='Frames that the online buffer holds.', lo=100, hi=100_000_000)
    demo_capacity: int = param(
        50_000, doc='Frames that the buffer of demonstrations holds.', lo=100, hi=100_000_000
    )
    grasp_penalty: float = param(
        0.0, doc='Taken off the reward of a step that opens or closes the gripper.', lo=0.0, hi=1.0
    )

    hindsight: int = param(
        0,
        doc='Times that each episode is told again with a goal that it reached (HER); only where the state says the '
        'goal, as in the Fetch environments, and nothing is seen.',
        lo=0,
        hi=16,
    )

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)
        parse_schedule(self.std_schedule)
        parse_schedule(self.std_with_policy)

    def beginning_with(self, policy: Policy | None) -> 'TrainerConfig':
        """Return the configuration for an agent that begins with this policy, or with none."""
        if policy is None:
            return self
        return replace(self, **{name: getattr(self, other) for name, other in WITH_POLICY.items()})

    def windows(self, chunk: int = 1) -> Windows:
        """Return what a batch says of the steps that follow, and of so many actions."""
        return Windows(n_step=self.n_step, gamma=self.gamma, chunk=chunk)

    def buffer(
        self,
        observation: ObservationSpec,
        action: ActionSpec,
        *,
        is_demo: bool = False,
        chunk: int = 1,
        device: torch.device | str = 'cpu',
    ) -> ReplayBuffer:
        """Return an empty buffer for demonstrations or for everything that is lived through."""
        return ReplayBuffer(
            observation,
            action,
            capacity=self.demo_capacity if is_demo else self.capacity,
            windows=self.windows(chunk),
            is_demo=is_demo,
            device=device,
        )


class GraspPenalty:
    """A penalty on opening and closing the gripper for nothing (HIL-SERL, Luo et al. 2024, arXiv:2410.21845).

    It is taken off the reward when a transition is stored, so it is in every target that is computed from it, however
    many critic updates there are for each update of the actor.
    """

    def __init__(self, observation: ObservationSpec, penalty: float) -> None:
        """Prepare.

        Args:
            observation: says where the gripper's angle is in the state.
            penalty: taken off the reward of each such step; 0 changes nothing.
        """
        self.penalty = penalty
        self._gripper = observation.slice_of('joint_pos').stop - 1 if penalty else 0

    def applied(self, transition: Transition) -> Transition:
        """Return the transition with the penalty taken off where it is due."""
        if not self.penalty:
            return transition
        now = gripper_rad_to_opening(float(transition.frames[-1].state[self._gripper]))
        if abs(transition.action.opening - now) < GRIPPER_TOGGLE:
            return transition
        return replace(transition, reward=transition.reward - self.penalty)


class BaseSuccesses:
    """Finds the episodes in which a base policy succeeds all alone: they count as demonstrations (IBRL)."""

    def __init__(self, most: int) -> None:
        self.left = most
        self._open: dict[tuple[str, int], list[Transition]] = {}

    def completed_by(self, transition: Transition, stream: str) -> list[Transition]:
        """Take a transition; return all of its episode, where it ends one of the base's successes."""
        key, base = (stream, transition.episode), transition.action.base
        if transition.index == 0:
            self._open = {held: steps for held, steps in self._open.items() if held[0] != stream}
            self._open[key] = []
        steps = self._open.get(key)
        if steps is None or self.left == 0:
            return []
        if transition.intervened or base is None or not base.acts or len(steps) != transition.index:
            del self._open[key]  # somebody else had a part in it, or a step is lost
            return []
        steps.append(transition)
        if not transition.ends:
            return []
        del self._open[key]
        if not (transition.terminated and transition.reward > 0.0):
            return []
        self.left -= 1
        return steps


class Trainer:
    """Feeds an agent from buffers; the only one who updates it.

    Attributes:
        agent: who learns.
        config: how.
        demo: demonstrations, and what humans did while it learned.
        online: everything that was executed while it learned.
        steps: actions that were sent to the arm while learning, by policy or human; demonstrations do not count.
    """

    def __init__(
        self,
        agent: Agent,
        observation: ObservationSpec,
        action: ActionSpec | None = None,
        config: TrainerConfig | None = None,
        *,
        demo: ReplayBuffer | None = None,
        online: ReplayBuffer | None = None,
        seed: int = 0,
    ) -> None:
        """Prepare.

        Args:
            agent: who learns.
            observation: of the transitions.
            action: of the transitions.
            config: how.
            demo: buffer of demonstrations; a fresh one by default.
            online: buffer of everything else; a fresh one by default.
            seed: of the sampling.
        """
        self.agent, self.config = agent, TrainerConfig() if config is None else config
        action = ActionSpec() if action is None else action

        def empty(is_demo: bool) -> ReplayBuffer:
            return self.config.buffer(
                observation, action, is_demo=is_demo, chunk=agent.chunk, device=agent.device
            )

        self.demo = empty(is_demo=True) if demo is None else demo
        self.online = empty(is_demo=False) if online is None else online
        self._sampler = SymmetricSampler(self.demo, self.online, demo_fraction=self.config.demo_fraction)
        self._schedule = parse_schedule(self.config.std_schedule)
        self._penalty = GraspPenalty(observation, self.config.grasp_penalty)
        self._successes = BaseSuccesses(getattr(agent.config, 'base_successes', 0))
        self._hindsight = Hindsight(observation, self.config.hindsight, np.random.default_rng([seed, 4]))
        self._rng = np.random.default_rng([seed, 1])
        self.steps = 0
        self._updates_before = agent.updates
        self.agent.std = self.std

    # ---- experience --------------------------------------------------------------------------------------

    def add(self, transition: Transition, stream: str = '', *, demo: bool = False) -> None:
        """Store a transition, or a later revision of one, which counts as no further step.

        What a human decided while learning goes to both buffers, with the action that was executed.

        Args:
            transition: what the arm did, by policy or human.
            stream: tells arms and sessions apart.
            demo: it is part of a demonstration, not of what is lived through while learning.
        """
        penalized = self._penalty.applied(transition)
        if not demo:
            self.online.add(penalized, stream)
            for number, told in self._hindsight.heard(penalized):
                self.online.add(told, _told(stream, number))
        if demo or transition.intervened:
            self.demo.add(penalized, stream)
        elif transition.action.base is not None:
            self.demo.tell_base(penalized, stream)
            for lived in self._successes.completed_by(penalized, stream):
                self.demo.add(lived, stream)
        if not demo and transition.revision == 0:
            self.steps += 1
            self.agent.std = self.std

    def discard(self, episode: int, stream: str = '') -> None:
        """Forget an episode that the human threw away; its steps were made all the same."""
        self.demo.discard(episode, stream)
        self.online.discard(episode, stream)
        for number in range(self._hindsight.times):
            self.online.discard(episode, _told(stream, number))

    def catch_up(self, steps: int) -> None:
        """Count steps that were made after the state that was loaded, and are in the buffers already."""
        self.steps = max(self.steps, steps)
        self.agent.std = self.std

    # ---- learning ----------------------------------------------------------------------------------------

    @property
    def std(self) -> float:
        """Exploration noise now, in network units."""
        return float(self._schedule(self.steps))

    @property
    def ready(self) -> bool:
        """Whether there is enough to learn from."""
        return len(self.demo) + len(self.online) >= self.config.start_steps

    @property
    def owed(self) -> float:
        """Updates that the wished ratio to environment steps still asks for; negative where it is exceeded."""
        return self.config.utd * self.steps - (self.agent.updates - self._updates_before)

    @property
    def utd(self) -> float:
        """Updates for each environment step so far."""
        return (self.agent.updates - self._updates_before) / max(self.steps, 1)

    def step(self) -> Metrics:
        """Make one update.

        Raises:
            NotReadyError: there is no data at all.
        """
        return self.agent.update(self._sampler.sample(self.config.batch_size, self._rng))

    def go_back(self, state: Mapping[str, Tensor]) -> None:
        """Take over an earlier state of the agent; experience, counters and noise stay as they are now."""
        updates = self.agent.updates
        self.agent.load_state_dict(state)
        # With the old count, all updates since then would be owed at once.
        self.agent.updates, self.agent.std = updates, self.std

    # ---- state -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Return agent, counters and random state as tensors; the buffers have files of their own."""
        state = {f'{_AGENT}{name}': value for name, value in self.agent.state_dict().items()}
        state['trainer.steps'] = torch.tensor(self.steps)
        state['trainer.updates_before'] = torch.tensor(self._updates_before)
        state['trainer.rng'] = _from_text(json.dumps(self._rng.bit_generator.state))
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            AgentError: it is the state of something else; nothing was changed.
        """
        missing = [
            name for name in ('trainer.steps', 'trainer.updates_before', 'trainer.rng') if name not in state
        ]
        if missing:
            raise AgentError(
                f'expected the state of a trainer, got none of {missing}; use a checkpoint of this program'
            )
        self.agent.load_state_dict(agent_part(state))
        self.steps = int(state['trainer.steps'])
        self._updates_before = int(state['trainer.updates_before'])
        self._rng.bit_generator.state = json.loads(_to_text(state['trainer.rng']))
        self.agent.std = self.std


def make_trainer(
    agent: str,
    options: Mapping[str, Any],
    config: TrainerConfig,
    specs: tuple[ObservationSpec, ActionSpec],
    *,
    policy: str,
    observation: str,
    seed: int,
    device: torch.device | str,
    rank: int = 0,
) -> tuple[Trainer, Policy | None]:
    """Return an agent with its trainer, and the policy that it begins with, if any.

    Args:
        agent: its name.
        options: values of its configuration that differ from the defaults.
        config: of the trainer.
        specs: of the transitions.
        policy: folder of a stored policy, or a name, see `find_policy`.
        observation: name of what is observed, for a policy that is named.
        seed: of fresh networks and of the sampling.
        device: where the agent lives.
        rank: of this process, where several learn one agent from batches of their own.
    """
    found = find_policy(policy, observation, specs[0])
    stored = None if found is None else load_policy(found)
    made = make_agent(
        agent, specs[0], options, policy=stored, action_size=specs[1].size, seed=seed, device=device
    )
    return Trainer(made, *specs, config.beginning_with(stored), seed=seed + rank), stored


def agent_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the agent's state out of a trainer's."""
    return {name.removeprefix(_AGENT): value for name, value in state.items() if name.startswith(_AGENT)}


def _told(stream: str, number: int) -> str:
    """Return the stream of an episode that is told again."""
    return f'{stream} told {number}'


def _from_text(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _to_text(tensor: Tensor) -> Any:
    return bytes(tensor.tolist()).decode()


def prepare_cpu(threads: int = 1) -> None:
    """Set the number of threads, and keep freed memory for the next update.

    One thread is the fastest where cores are shared with a control loop: on busy cores two were up to 17 times
    slower. Without the second setting the C library hands the activations of every update back to the system and gets
    them back page by page, which takes as long as the convolutions.

    Args:
        threads: of torch; 0 leaves the choice to it.
    """
    if threads > 0:
        torch.set_num_threads(threads)
    if not sys.platform.startswith('linux'):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # not the GNU C library
        _log.debug('no mallopt here: memory goes back to the system after each update')
        return
    for option, value in ((_M_MMAP_THRESHOLD, _LARGEST), (_M_TRIM_THRESHOLD, 2**30), (_M_TOP_PAD, _LARGEST)):
        mallopt(option, value)


def step_back() -> None:
    """Let this process have a core only while nothing else wants it.

    Whoever wakes up takes the core at once then. Behind a process that is only nice, a step of the control clock comes
    several milliseconds late.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):  # not Linux, or not allowed
        os.nice(19)
