# SPDX-License-Identifier: Apache-2.0
"""From stamped messages to an action: which observation a step names, when to act on it, and when to hold.

    assembler.push(sample)         # joints and images as they come
    acting.begin(step, now_ns)     # a step asks for an action
    acting.decide(now_ns)          # a Decision, a Hold, or None while an input is on its way

The observation is put together by the assembler that the learner uses, so both see the same bits; `Observed` is the
proof, a hash of what was seen. `ActingStats` says how quick the answers are and how often they are at their limit.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from drqv2_policy_node.robobase.schedule import Schedule
from so101_contract.action import ActionSpec, EeDeltaValue
from so101_contract.assembly import Assembler
from so101_contract.errors import AssemblyError, ContractError, ObservationError
from so101_contract.manifest import StepUnit
from so101_contract.messages import StepRecord
from so101_contract.observation import Limits, Observation
from so101_contract.record import Record
from so101_contract.session import NO_EPISODE

LIMITS = Limits(joints=500, images=150, steps=64, episodes=2)
"""A step is answered within a tenth of a second: five seconds of messages are plenty."""


class Mode(StrEnum):
    """What the policy does with a step."""

    HOLD = 'hold'
    """Nothing."""
    EVAL = 'eval'
    """The mean action."""
    EXPLORE = 'explore'
    """The mean action with noise."""


class HoldReason(Enum):
    """Why a step stays unanswered."""

    MODE = 'told to hold (mode: hold)'
    NO_POLICY = 'no policy yet'
    CONTRACT = 'the session follows another contract'
    STALE_STEP = 'the step came too late'
    STALE_JOINTS = 'the joint reading of the step is stale'
    STALE_IMAGE = 'an image of the step is stale'
    MISSING = 'an input of the step did not come'
    REFUSED = 'the policy refused the observation'


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
class Timing:
    """How old things may be.

    Attributes:
        step_ns: a step that came later than this is not answered [ns].
        wait_ns: how long an input that the step names may be on its way [ns].
        joints_ns: largest age of the joint reading at the step [ns].
        image_ns: largest age of an image at the step [ns].
    """

    step_ns: int = 100_000_000
    wait_ns: int = 80_000_000
    joints_ns: int = 100_000_000
    image_ns: int = 500_000_000


@dataclass(frozen=True)
class Decision:
    """An answer to a step.

    Attributes:
        step: which one.
        observation: what was seen.
        action: in network units (4,), noise included.
        wire: the same as it is sent.
        by: who decided.
        std: noise that was added, in network units.
        seed: of the noise.
        input_ns: age of the oldest input [ns].
    """

    step: StepRecord
    observation: Observation
    action: npt.NDArray[np.float32]
    wire: EeDeltaValue
    by: Installed
    std: float
    seed: int
    input_ns: int


@dataclass(frozen=True)
class Hold:
    """No answer to a step.

    Attributes:
        step: which one.
        reason: why.
        detail: more about it, or empty.
    """

    step: StepRecord
    reason: HoldReason
    detail: str = ''

    def __str__(self) -> str:
        """Return one sentence."""
        return sentence(self.reason, self.detail)


class Acting:
    """Answers the steps of one arm. Assign its attributes at any time: they count from the next action on.

    Attributes:
        assembler: puts observations together; whoever receives joints and images pushes them there.
        installed: the policy in use; None where there is none yet.
        mode: what to do with a step.
        mismatch: why no policy may act in this session; empty where one may.
        waiting_for: what a policy is missing, for people.
    """

    def __init__(
        self,
        assembler: Assembler,
        *,
        timing: Timing | None = None,
        mode: Mode = Mode.EVAL,
        seed: int = 0,
    ) -> None:
        """Prepare.

        Args:
            assembler: of what the session observes; `LIMITS` are enough.
            timing: how old things may be.
            mode: what to do at first.
            seed: of the exploration noise.
        """
        self.assembler = assembler
        self.installed: Installed | None = None
        self.mode = mode
        self.mismatch = ''
        self.waiting_for = ''
        self._timing = timing or Timing()
        self._seed = seed
        self._pending: tuple[StepRecord, int] | None = None

    @property
    def standing(self) -> tuple[HoldReason, str] | None:
        """Why no step at all is answered now, with more about it; None where steps are."""
        if self.mode is Mode.HOLD:
            return HoldReason.MODE, ''
        if self.mismatch:
            return HoldReason.CONTRACT, self.mismatch
        return (HoldReason.NO_POLICY, self.waiting_for) if self.installed is None else None

    @property
    def pending_stamp_ns(self) -> int | None:
        """Stamp of the step that waits for its answer [ns]; None where none does."""
        return None if self._pending is None else self._pending[0].stamp_ns

    def begin(self, step: StepRecord, now_ns: int) -> Hold | None:
        """Take a step that asks for an action.

        A step between episodes, and the last one of an episode, ask for none.

        Args:
            step: the step.
            now_ns: when it came, on a steady clock [ns].

        Returns:
            that the step before this one stays unanswered, where it had none yet.

        Raises:
            AssemblyError: it does not fit the observation spec; nothing was changed.
        """
        self.assembler.push(step)
        late, self._pending = self._pending, None
        if step.episode != NO_EPISODE and not step.ends:
            self._pending = step, now_ns
        return None if late is None else self._missing(late[0])

    def decide(self, now_ns: int, age_ns: int = 0) -> Decision | Hold | None:
        """Answer the step that waits; None where none does, or where an input may still come.

        Args:
            now_ns: on the clock of `begin` [ns].
            age_ns: time since the tick that the step's stamp says [ns].
        """
        if self._pending is None:
            return None
        step, came_ns = self._pending
        hold = self._must_hold(step, age_ns)
        if hold is None and not self.assembler.ready(step.episode, step.index):
            if now_ns - came_ns < self._timing.wait_ns:
                return None
            hold = self._missing(step)
        self._pending = None
        return self._act(step, age_ns) if hold is None else hold

    def _must_hold(self, step: StepRecord, age_ns: int) -> Hold | None:
        """Return why the step is not to be answered, whatever comes."""
        standing = self.standing
        if standing is not None:
            return Hold(step, *standing)
        timing, joints_ns = self._timing, step.stamp_ns - step.joint_stamp_ns
        image_ns = max((step.stamp_ns - stamp for stamp in step.image_stamps_ns), default=0)
        if age_ns > timing.step_ns:
            return Hold(step, HoldReason.STALE_STEP, f'{age_ns / 1e9:.3f} s after its tick')
        if joints_ns > timing.joints_ns:
            return Hold(step, HoldReason.STALE_JOINTS, f'{joints_ns / 1e9:.3f} s old')
        if image_ns > timing.image_ns:
            return Hold(step, HoldReason.STALE_IMAGE, f'{image_ns / 1e9:.3f} s old')
        return None

    def _missing(self, step: StepRecord) -> Hold:
        try:
            self.assembler.observation(step.episode, step.index)
        except AssemblyError as error:
            return Hold(step, HoldReason.MISSING, str(error))
        return Hold(step, HoldReason.MISSING, 'the next step came before the action')

    def _act(self, step: StepRecord, age_ns: int) -> Decision | Hold:
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
        oldest_ns = min((step.joint_stamp_ns, *step.image_stamps_ns))
        input_ns = max(0, step.stamp_ns - oldest_ns) + age_ns
        return Decision(step, observation, action, wire, installed, std, self._seed, input_ns)


def noise_source(seed: int, stamp_ns: int) -> np.random.Generator:
    """Return the source of a step's exploration noise, so that an action can be computed again from a bag.

    Args:
        seed: parameter of the node.
        stamp_ns: of the step [ns].
    """
    return np.random.default_rng([seed, stamp_ns % (1 << 64)])


def sentence(reason: HoldReason, detail: str = '') -> str:
    """Return why a step stays unanswered."""
    return f'{reason.value}: {detail}' if detail else reason.value


WINDOW = 100
LIMIT = 0.99
"""From this size on a component of an action counts as being at its limit."""


class ActingStats:
    """Numbers of the last answers.

    Attributes:
        actions: answers since the start.
        holds: steps left unanswered since the start.
        input_age_s: age of the oldest input of the last answer [s].
    """

    def __init__(self) -> None:
        self.actions = self.holds = 0
        self.input_age_s = float('nan')
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._limited: deque[float] = deque(maxlen=WINDOW)

    def acted(self, latency_s: float, action: npt.NDArray[np.floating], input_age_s: float) -> None:
        """Take note of an answer.

        Args:
            latency_s: from the step's arrival to the action's departure [s].
            action: in network units (4,).
            input_age_s: age of its oldest input [s].
        """
        self.actions += 1
        self.input_age_s = input_age_s
        self._latencies.append(latency_s)
        self._limited.append(float(np.mean(np.abs(action) >= LIMIT)))

    def latency_s(self, percent: float) -> float:
        """Return a percentile of the last latencies [s]; NaN before the first."""
        return float(np.percentile(list(self._latencies), percent)) if self._latencies else float('nan')

    @property
    def saturation(self) -> float:
        """Share of action components at their limit over the last answers, 0..1; 0 before the first."""
        return float(np.mean(self._limited)) if self._limited else 0.0


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
