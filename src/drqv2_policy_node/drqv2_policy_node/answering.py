# SPDX-License-Identifier: Apache-2.0
"""Which steps are answered, whoever decides: an observation that is on its way, what is stale, and why the arm holds.

    answering.assembler.push(sample)      # joints and images as they come
    answering.begin(step, now_ns)         # a step asks for an action
    answering.decide(now_ns)              # an Answer, a Hold, or None while an input is on its way

What decides is a subclass: stored networks (`acting.Acting`), or a policy behind a socket. `ActingStats` says how quick
the answers are and how often they are at their limit.
"""

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from enum import Enum, StrEnum

import numpy as np
import numpy.typing as npt

from so101_contract.action import EeDeltaValue
from so101_contract.assembly import Assembler
from so101_contract.errors import AssemblyError
from so101_contract.messages import StepRecord
from so101_contract.observation import Limits
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
    NO_TARGET = 'the policy has no target for this step'


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


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer to a step.

    Attributes:
        step: which one.
        action: in network units (4,), noise included.
        wire: the same as it is sent.
        frame_id: frame of its displacement.
        input_ns: age of the oldest input [ns].
    """

    step: StepRecord
    action: npt.NDArray[np.floating]
    wire: EeDeltaValue
    frame_id: str
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


class Answering(ABC):
    """Answers the steps of one arm. Assign its attributes at any time: they count from the next action on.

    Attributes:
        assembler: puts observations together; whoever receives joints and images pushes them there.
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
    ) -> None:
        """Prepare.

        Args:
            assembler: of what the session observes; `LIMITS` are enough.
            timing: how old things may be.
            mode: what to do at first.
        """
        self.assembler = assembler
        self.mode = mode
        self.mismatch = ''
        self.waiting_for = ''
        self._timing = timing or Timing()
        self._pending: tuple[StepRecord, int] | None = None

    @property
    def standing(self) -> tuple[HoldReason, str] | None:
        """Why no step at all is answered now, with more about it; None where steps are."""
        if self.mode is Mode.HOLD:
            return HoldReason.MODE, ''
        if self.mismatch:
            return HoldReason.CONTRACT, self.mismatch
        return None if self.ready else (HoldReason.NO_POLICY, self.waiting_for)

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

    def decide(self, now_ns: int, age_ns: int = 0) -> Answer | Hold | None:
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
        answer = self._act(step, age_ns) if hold is None else hold
        if answer is not None:
            self._pending = None
        return answer

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

    def _input_age_ns(self, step: StepRecord, age_ns: int) -> int:
        """Return how old the oldest input of a step is, so long after its tick [ns]."""
        oldest_ns = min((step.joint_stamp_ns, *step.image_stamps_ns))
        return max(0, step.stamp_ns - oldest_ns) + age_ns

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether there is a policy at all."""

    @abstractmethod
    def _act(self, step: StepRecord, age_ns: int) -> Answer | Hold | None:
        """Decide, now that every input is there, `age_ns` after the step's tick [ns]; None: ask again in a moment."""


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
