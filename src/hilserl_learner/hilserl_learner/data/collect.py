# SPDX-License-Identifier: Apache-2.0
"""Experience from an environment in this process: a policy acts, a scripted human helps, transitions come out.

They are the same `Transition` objects that the live graph's assembler makes, so buffers and trainer do not know where
they come from.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from drqv2_policy_node.on_base import OnBase
from so101_contract.action import ActionSpec, EeDeltaValue
from so101_contract.base import BaseAction
from so101_contract.messages import ExecutedAction
from so101_contract.observation import Frame, Observation
from so101_contract.observation_spec import ObservationSpec
from so101_contract.session import Source
from so101_contract.task.spec import TaskSpec
from so101_contract.transition import Transition
from so101_sim.human.expert import Skill
from so101_sim.human.labels import LabelJudge
from so101_sim.human.operator import Decision
from so101_sim.human.traits import Traits

Actor: TypeAlias = Callable[[Observation], npt.NDArray[np.floating[Any]]]
"""What the policy does: an observation to an action in network units (A,)."""

DEMO_SKILL = Skill.of(Traits())
"""How well the one acts who demonstrates."""

STEP_NS = 100_000_000
"""Time between two frames of an episode, for their stamps [ns]; nothing is computed from it."""


class Environment(Protocol):
    """What can be collected from: the worlds, or the small `ReachEnv` of the tests."""

    observation_spec: ObservationSpec
    action_spec: ActionSpec

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""

    def step(self, action: npt.NDArray[Any]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Execute one action in network units (A,)."""

    def observation(self) -> Observation:
        """Return the present observation."""


class Demonstrator(Protocol):
    """Knows the truth and acts through the same actions as a policy."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""

    def act(self, truth: Any) -> EeDeltaValue:
        """Return the next action."""


class Watcher(Protocol):
    """Knows the truth and takes over when it goes wrong."""

    @property
    def looking(self) -> bool:
        """Whether it sees what happens in this step."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""

    def update(self, truth: Any) -> Decision:
        """Look at the scene and decide."""


class World(Environment, Protocol):
    """Where a run learns: `ArmEnv` of our own arm, or `FetchEnv` of one that is not ours."""

    @property
    def task_spec(self) -> TaskSpec | None:
        """What is to be done; None where nobody said."""

    def truth(self) -> Any:
        """Return where everything is; it says at least `cube_position`."""

    def expert(self, skill: Skill) -> Demonstrator:
        """Return who demonstrates here."""

    def operator(self, traits: Traits) -> Watcher:
        """Return who takes over here, a human like this."""

    def policy_fields(self) -> dict[str, Any]:
        """Return what the manifest of a policy says that was trained here, beside observation and action."""

    def close(self) -> None:
        """Free what drawing needs."""


class Human(Protocol):
    """Somebody who may act instead of the policy."""

    def begin(self, rng: np.random.Generator) -> None:
        """Begin an episode."""

    def decide(self) -> EeDeltaValue | None:
        """Return what to do in this step; None to leave it to the policy."""


@dataclass(frozen=True)
class EpisodeResult:
    """How an episode went.

    Attributes:
        episode: its number.
        success: the task was done.
        steps: actions that were sent to the arm.
        reward: sum of the rewards.
        intervened: steps in which the human acted.
        takeovers: times that the human took over.
    """

    episode: int
    success: bool
    steps: int
    reward: float
    intervened: int
    takeovers: int

    @property
    def unaided(self) -> bool:
        """Whether the policy succeeded alone."""
        return self.success and not self.intervened


@dataclass(frozen=True)
class Collected:
    """What one step gave: a transition, and the episode's account where it was the last one."""

    transition: Transition
    result: EpisodeResult | None


class ScriptedOperator:
    """The scripted operator: takes over when the arm is stuck, moves away, or has dropped the cube.

    Where the environment is judged by labels, they are this human's.
    """

    def __init__(self, env: World, traits: Traits | None = None) -> None:
        """Prepare; `traits` say what the human is like, `perfect` by default."""
        self._env = env
        self.operator = env.operator(Traits() if traits is None else traits)
        judge = getattr(env, 'judge', None)
        self._labels = judge if isinstance(judge, LabelJudge) else None

    def begin(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self.operator.reset(rng)
        if self._labels is not None:
            self._labels.begin(rng.spawn(1)[0])

    def decide(self) -> EeDeltaValue | None:
        """Return what to do in this step; None to leave it to the policy."""
        decision = self.operator.update(self._env.truth())
        if self._labels is not None:
            self._labels.looking = self.operator.looking
        return decision.action


class ScriptedExpert:
    """The scripted expert: acts in every step, for demonstrations."""

    def __init__(self, env: World, skill: Skill = DEMO_SKILL) -> None:
        self._env = env
        self.expert = env.expert(skill)

    def begin(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self.expert.reset(rng)

    def decide(self) -> EeDeltaValue | None:
        """Return what to do in this step."""
        return self.expert.act(self._env.truth())


class Collector:
    """Runs one environment, step by step and episode after episode.

    Attributes:
        steps: actions sent so far: what an environment step means everywhere here.
        episode: number of the episode, from 1.
    """

    def __init__(
        self, env: Environment, *, human: Human | None = None, seed: int = 0, first_episode: int = 1
    ) -> None:
        """Prepare; the first step begins an episode.

        Args:
            env: the environment.
            human: who may act instead of the policy.
            seed: with an episode's number it decides everything in it that is left to chance.
            first_episode: number of the first episode, for a run that goes on.
        """
        self._env, self._human, self._seed = env, human, seed
        self.steps = 0
        self.episode = first_episode - 1
        self._running = False

    def step(self, act: Actor | OnBase) -> Collected:
        """Let one step pass and return what it gave; with a base policy, what that says is kept, whoever acts."""
        if not self._running:
            self._begin(act)
        wire, source, base = self._decide(act, self._env.observation())
        spec = self._env.action_spec
        action = spec.from_wire(wire.translation, wire.opening).values.astype(np.float32)
        _, reward, terminated, truncated, info = self._env.step(action)
        self.steps += 1
        executed = ExecutedAction(
            self.episode, self._index, wire.translation, wire.opening, source, base=base
        )
        transition = self._advance(executed, reward, terminated, truncated)
        self._count(source, reward)
        self._running = not (terminated or truncated)
        result = None if self._running else self._result(bool(info['is_success']))
        return Collected(transition, result)

    def _decide(
        self, act: Actor | OnBase, observation: Observation
    ) -> tuple[EeDeltaValue, Source, BaseAction | None]:
        """Return what is done, who decided it, and what the base policy says."""
        spec = self._env.action_spec
        human = None if self._human is None else self._human.decide()
        if not isinstance(act, OnBase):
            if human is None:
                return spec.to_wire(act(observation)), Source.POLICY, None
            return spec.limit(human), Source.TELEOP, None
        proposal = act.propose(observation)
        said = None if proposal is None else spec.to_wire(proposal)
        if human is not None:
            base = None if said is None else BaseAction(said.translation, said.opening, acts=False)
            return spec.limit(human), Source.TELEOP, base
        mixed = act.mix(observation, proposal)
        base = None if said is None else BaseAction(said.translation, said.opening, mixed.by_base)
        return spec.to_wire(mixed.action), Source.POLICY, base

    def _begin(self, act: Actor | OnBase) -> None:
        self.episode += 1
        numbers = np.random.SeedSequence([self._seed, self.episode]).generate_state(3)
        self._env.reset(seed=int(numbers[0]))
        if isinstance(act, OnBase):
            act.begin(np.random.default_rng(int(numbers[2])))
        if self._human is not None:
            self._human.begin(np.random.default_rng(int(numbers[1])))
        self._index = self._intervened = self._takeovers = 0
        self._reward, self._was_teleop, self._running = 0.0, False, True
        first = self._frame()
        stack = self._env.observation_spec.frame_stack
        self._frames: deque[Frame] = deque([first] * stack, maxlen=stack)

    def _frame(self) -> Frame:
        """Return the newest frame of the present observation."""
        seen = self._env.observation()
        images = {name: stack[-1].copy() for name, stack in seen.images.items()}
        return Frame(self.episode, self._index, self._index * STEP_NS, seen.state[-1].copy(), images)

    def _advance(
        self, action: ExecutedAction, reward: float, terminated: bool, truncated: bool
    ) -> Transition:
        before = tuple(self._frames)
        self._index += 1
        after = self._frame()
        self._frames.append(after)
        return Transition(before, after, action, float(reward), terminated, truncated)

    def _count(self, source: Source, reward: float) -> None:
        teleop = source is Source.TELEOP
        self._intervened += teleop
        self._takeovers += teleop and not self._was_teleop
        self._was_teleop = teleop
        self._reward += float(reward)

    def _result(self, success: bool) -> EpisodeResult:
        return EpisodeResult(
            self.episode, success, self._index, self._reward, self._intervened, self._takeovers
        )


def demonstrate(
    env: World, episodes: int, *, seed: int = 0, skill: Skill = DEMO_SKILL, beside: OnBase | None = None
) -> Iterator[tuple[Transition, ...]]:
    """Yield the transitions of successful demonstrations, one episode after the other.

    Failed ones are left out, as a human throws them away. What a base policy says beside it is kept.
    """
    collector = Collector(env, human=ScriptedExpert(env, skill), seed=seed)
    idle: Actor = lambda _: np.zeros(env.action_spec.size, np.float32)  # noqa: E731  (the expert acts in every step)
    held: list[Transition] = []
    while episodes:
        collected = collector.step(idle if beside is None else beside)
        held.append(collected.transition)
        if collected.result is not None:
            if collected.result.success:
                episodes -= 1
                yield tuple(held)
            held = []
