# SPDX-License-Identifier: Apache-2.0
"""The labels of the scripted human: what it says of an episode by what it sees, rightly, wrongly, or not at all.

It sees the object, a little off, and not what the simulation knows of success. Where it is the source of the reward it
labels every episode. Where something else judges it corrects: it says `success` when that does not come, and gives an
episode that was judged otherwise than it saw another label afterwards.
"""

from dataclasses import replace
from enum import StrEnum

import numpy as np

from so101_contract.session import Outcome
from so101_contract.task_report import Status
from so101_sim.human.traits import Reflexes, Traits
from so101_sim.scene.ground_truth import GroundTruth
from so101_sim.tasks import Judge, Task

PATIENCE_S = 1.0
"""Who corrects another judge gives it this time before saying anything [s]."""


class LabelKind(StrEnum):
    """What the human labels."""

    NONE = 'none'
    ALL = 'all'
    CORRECTIONS = 'corrections'


class Slip(StrEnum):
    """What goes wrong with the label of an episode."""

    NOTHING = 'right'
    WRONG = 'wrong'
    MISSING = 'missing'


OPPOSITE = {Outcome.SUCCESS: Outcome.FAILURE, Outcome.FAILURE: Outcome.SUCCESS}


class Labeller:
    """Labels one episode after the other; `reset` at the start of each."""

    def __init__(
        self, task: Task, traits: Traits, rate_hz: float = 10.0, kind: LabelKind = LabelKind.ALL
    ) -> None:
        """Prepare.

        Args:
            task: what is to be done.
            traits: what the human is like.
            rate_hz: steps per second [Hz].
            kind: what it labels.
        """
        self._kind, self._traits, self._eyes = LabelKind(kind), traits, Judge(task)
        self._reflexes = Reflexes(traits, rate_hz)
        self._patience = round(PATIENCE_S * rate_hz) if self._kind is LabelKind.CORRECTIONS else 0
        self.reset(np.random.default_rng(0))

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        traits = self._traits
        self._reflexes.reset(rng)
        self._eyes.reset()
        self._off = rng.normal(0.0, 1.0, 3) * traits.sight_error_m
        drawn = rng.random()
        self.slip = Slip.NOTHING
        if drawn < traits.wrong_label_share:
            self.slip = Slip.WRONG
        elif drawn < traits.wrong_label_share + traits.missing_label_share:
            self.slip = Slip.MISSING
        self.saw: Outcome | None = None
        """What it has seen of the episode; None as long as it goes on."""
        self._due = 0
        self._said: Outcome | None = None

    def see(self, truth: GroundTruth, *, looking: bool = True) -> Outcome | None:
        """Look at a step of the running episode; return the label that is given with it, each once.

        Args:
            truth: the scene.
            looking: whether its eyes are on it.
        """
        if self._kind is LabelKind.NONE:
            return None
        if self.saw is None:
            if looking and (seen := self._judge(truth)) is not None:
                self.saw, self._due = seen, self._patience + self._reflexes.answer()
            return None
        self._due -= 1
        if self._due >= 0 or self._said is not None or self.slip is Slip.MISSING:
            return None
        if self._kind is LabelKind.CORRECTIONS and self.saw is not Outcome.SUCCESS:
            return None  # there is time for that when the episode is over
        self._said = self._spoken(self.saw)
        return self._said

    def ended(self, outcome: Outcome) -> Outcome | None:
        """Take note of how the episode has ended; return a label that comes after its end, or nothing."""
        if self._kind is LabelKind.NONE or self.slip is Slip.MISSING or self._said is not None:
            return None
        if outcome in (Outcome.DISCARD, Outcome.ABORT):
            return None
        seen = self.saw is Outcome.SUCCESS
        good = not seen if self.slip is Slip.WRONG else seen
        if good == (outcome is Outcome.SUCCESS):
            return None
        self._said = Outcome.SUCCESS if good else Outcome.FAILURE
        return self._said

    def _judge(self, truth: GroundTruth) -> Outcome | None:
        x, y, z = np.add(truth.cube_position, self._off).tolist()
        status = self._eyes.judge(replace(truth, cube_position=(x, y, z)))
        if status.success:
            return Outcome.SUCCESS
        return Outcome.FAILURE if status.failure else None

    def _spoken(self, outcome: Outcome) -> Outcome:
        return OPPOSITE[outcome] if self.slip is Slip.WRONG else outcome


class LabelJudge(Judge):
    """Judges episodes of an environment by what the human says of them, in place of the truth."""

    def __init__(self, task: Task, traits: Traits, max_steps: int, rate_hz: float = 10.0) -> None:
        """Prepare.

        Args:
            task: what is to be done.
            traits: what the human is like.
            max_steps: steps after which an episode is cut short.
            rate_hz: steps per second [Hz].
        """
        self.labels = Labeller(task, traits, rate_hz)
        self.looking = True
        """Whether the human's eyes are on it; kept up to date by who plays the human."""
        self._max_steps = max_steps
        super().__init__(task)

    def reset(self) -> None:
        """Begin another episode; `begin` says by which chance."""
        super().reset()
        self._steps = 0

    def begin(self, rng: np.random.Generator) -> None:
        """Draw how the human labels the episode that has begun."""
        self.labels.reset(rng)

    def judge(self, truth: GroundTruth) -> Status:
        """Return what the human says after one more step."""
        self._steps += 1
        said = self.labels.see(truth, looking=self.looking)
        if said is None and self._steps >= self._max_steps:
            said = self.labels.ended(Outcome.TIME_LIMIT)
        good_steps = super().judge(truth).good_steps
        return Status(
            success=said is Outcome.SUCCESS,
            failure=said is Outcome.FAILURE,
            good_steps=good_steps,
            reason='the human says so' if said is Outcome.FAILURE else '',
        )
