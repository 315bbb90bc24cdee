# SPDX-License-Identifier: Apache-2.0
"""Who says that the task is done: sources of success, what they look at, and how their words become one.

Each source looks at the `Evidence` of a step, which is what a real arm has, and says open, success or failure. Several
make a conjunction: all of them must say success, for as many steps in a row as the task wants; one failure is enough.
The human is no source: what a human says counts at once, beside all of them and over all of them, also late.

| source | looks at | says success |
|---|---|---|
| sim | the ground truth of a simulation | as its judge does; failure too |
| operator | nothing | never: only the human's word ends an episode |
| classifier | what `classifier_node` sees in the pictures of the step | where it sees it, in a light that it knows |
| gripper | the fingers | closing was commanded, they stay apart as far as something is thick, and they press |

The same objects judge live steps (`session_node`) and recorded ones (`ingest`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
import math
from typing import Any, ClassVar, Protocol, TYPE_CHECKING

from so101_contract.errors import AssemblyError, TaskError
from so101_contract.record import Record
from so101_contract.task_report import TaskReport
from so101_interfaces_py.conversions import ns_to_stamp

if TYPE_CHECKING:
    from so101_interfaces.msg import SuccessOpinion


class RewardSource(Enum):
    """Who says that the task is done."""

    SIM = 'sim'
    """The simulation, which knows the truth; on a real arm the human."""
    OPERATOR = 'operator'
    """The human, in the simulation too."""
    CLASSIFIER = 'classifier'
    """A network that has been shown what success looks like."""
    GRIPPER = 'gripper'
    """The fingers, which feel that they hold something."""


def sources_of(text: str) -> tuple[RewardSource, ...]:
    """Return the sources that a text names, with commas between.

    Raises:
        TaskError: it names none, one twice, one that there is not, or the human beside others.
    """
    words = [word.strip() for word in text.split(',')]
    known = [source.value for source in RewardSource]
    if not set(words) <= set(known) or len(set(words)) != len(words):
        raise TaskError(
            f'expected one of {", ".join(known)}, or several of them with commas between, each once, got '
            f'{text[:60]!r}; correct the source of the reward'
        )
    if 'operator' in words and len(words) > 1:
        raise TaskError(
            f'expected operator alone, got {text!r}; leave it out: what a human says counts beside every other source'
        )
    return tuple(RewardSource(word) for word in words)


class Word(Enum):
    """What a source says of a step."""

    OPEN = 'open'
    SUCCESS = 'success'
    FAILURE = 'failure'
    SILENT = 'silent'
    """It has seen nothing new since its last word, which neither stands for this step nor is taken back."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a classifier says of the pictures of a step (`SuccessOpinion`).

    Attributes:
        episode: of the step.
        index: of the step.
        probability: of success, 0..1; NaN where it cannot tell.
        success: it sees success.
        reason: why it cannot tell; empty where it can.
    """

    episode: int
    index: int
    probability: float
    success: bool
    reason: str = ''


def opinion_record(message: Any) -> Opinion:
    """Return what a `SuccessOpinion` says.

    Raises:
        AssemblyError: its probability is none.
    """
    probability, reason = float(message.probability), str(message.reason)
    if not (0.0 <= probability <= 1.0 or (math.isnan(probability) and reason)):
        raise AssemblyError(
            f'expected a probability within 0..1, or a reason why there is none, got {probability}; repair its sender'
        )
    return Opinion(int(message.episode), int(message.index), probability, bool(message.success), reason)


def opinion_message(opinion: Opinion, stamp_ns: int) -> 'SuccessOpinion':
    """Return the `SuccessOpinion` that says this of the step with a stamp [ns]."""
    from so101_interfaces.msg import SuccessOpinion

    message = SuccessOpinion(
        episode=opinion.episode,
        index=opinion.index,
        probability=opinion.probability,
        success=opinion.success,
        reason=opinion.reason,
    )
    message.header.stamp = ns_to_stamp(stamp_ns)
    return message


@dataclass(frozen=True, slots=True)
class Evidence:
    """What there is to judge a step by; what is not known is None, or not a number.

    Attributes:
        episode: number of the episode.
        index: of the step.
        resets: of the scene when the episode began; an older report is of the episode before.
        report: the newest ground truth of a simulation.
        opinion: the newest of a classifier.
        commanded: opening of the gripper that the action before asked for, 0 closed .. 1 open.
        opening: opening that is measured.
        load: share of the gripper motor's full output that it presses with, 0..1.
    """

    episode: int = 0
    index: int = 0
    resets: int = 0
    report: TaskReport | None = None
    opinion: Opinion | None = None
    commanded: float = math.nan
    opening: float = math.nan
    load: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Grip(Record):
    """What it means that the fingers hold something.

    Attributes:
        opening: as far apart the fingers are around it, 0 closed .. 1 open. Below it nothing is between them, above it
            they have not closed yet.
        squeeze: by so much less than measured the opening must be commanded.
        load: share of the motor's full output that it must at least press with; 0 where that is not measured.
    """

    KIND: ClassVar[str] = 'so101_contract/grip/1'
    ERROR = TaskError

    opening: tuple[float, float] = (0.1, 0.75)
    squeeze: float = 0.05
    load: float = 0.05

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        low, high = self.opening
        if not (0.0 <= low < high <= 1.0 and 0.0 <= self.squeeze <= 1.0 and 0.0 <= self.load <= 1.0):
            raise TaskError(
                f'expected an opening as [low, high], a squeeze and a load within 0..1, got {self.opening}, '
                f'{self.squeeze} and {self.load}; correct the grip'
            )


class Source(Protocol):
    """Judges one step after the other."""

    settled: bool
    """Whether its word of success has lasted already, so that it need not last again."""

    def judge(self, evidence: Evidence) -> tuple[Word, str]:
        """Return what it says of a step, and why it fails; empty where it does not."""


@dataclass
class BySimulation:
    """The ground truth."""

    settled = True

    def judge(self, evidence: Evidence) -> tuple[Word, str]:
        """Say what the judge of the simulation says."""
        report = evidence.report
        if report is None or report.state.resets < evidence.resets:
            return Word.OPEN, ''
        status = report.state.status
        if status.success:
            return Word.SUCCESS, ''
        return (Word.FAILURE, status.reason) if status.failure else (Word.OPEN, '')


FRESH_STEPS = 3
"""A classifier may be so many steps late; what it said before is about something else."""


@dataclass
class ByClassifier:
    """What a classifier sees; no picture counts twice, however late the next one is."""

    settled = False
    _last: tuple[int, int] | None = None

    def judge(self, evidence: Evidence) -> tuple[Word, str]:
        """Say success where it sees it; nothing where it cannot tell, or has not spoken for too long."""
        opinion = evidence.opinion
        if opinion is None or opinion.episode != evidence.episode:
            return Word.OPEN, ''
        if not 0 <= evidence.index - opinion.index <= FRESH_STEPS or not opinion.success or opinion.reason:
            return Word.OPEN, ''
        again = self._last == (opinion.episode, opinion.index)
        self._last = (opinion.episode, opinion.index)
        return (Word.SILENT if again else Word.SUCCESS), ''


@dataclass
class ByGripper:
    """What the fingers feel."""

    grip: Grip
    settled = False

    def judge(self, evidence: Evidence) -> tuple[Word, str]:
        """Say success where something is between fingers that press; a load that is not known does not speak."""
        low, high = self.grip.opening
        closing = evidence.commanded <= evidence.opening - self.grip.squeeze
        presses = self.grip.load == 0.0 or math.isnan(evidence.load) or evidence.load >= self.grip.load
        holds = closing and low <= evidence.opening <= high and presses
        return (Word.SUCCESS if holds else Word.OPEN), ''


_NAMES = {
    RewardSource.SIM: 'the task is done',
    RewardSource.CLASSIFIER: 'the classifier sees it',
    RewardSource.GRIPPER: 'the gripper holds something',
}


class Jury:
    """The word of all sources together, over the steps of one episode after the other."""

    def __init__(
        self, sources: Collection[RewardSource], *, hold_steps: int = 1, grip: Grip | None = None
    ) -> None:
        """Prepare.

        Args:
            sources: who must agree; none, or the operator: nobody but the human.
            hold_steps: for how many steps in a row they must.
            grip: what it means that something is held.
        """
        made: dict[RewardSource, Source] = {
            RewardSource.SIM: BySimulation(),
            RewardSource.CLASSIFIER: ByClassifier(),
            RewardSource.GRIPPER: ByGripper(grip or Grip()),
        }
        self._sources: Sequence[Source] = [made[source] for source in sources if source in made]
        self.why = ' and '.join(_NAMES[source] for source in sources if source in made)
        """What success means, for people."""
        settled = all(source.settled for source in self._sources)
        self._hold = 1 if settled else max(1, hold_steps)
        self._run = self._calm = 0
        self._vetoed = False

    @property
    def vetoed(self) -> bool:
        """Whether a human has said that what the sources take for success is none."""
        return self._vetoed

    def begin(self) -> None:
        """Begin another episode."""
        self._run = self._calm = 0
        self._vetoed = False

    def veto(self) -> None:
        """Take a human's word that this is no success: the sources count again once they have let go of it.

        They must say something else for as long as success must last: a source that flickers has not let go.
        """
        self._vetoed, self._run, self._calm = bool(self._sources), 0, 0

    def judge(self, evidence: Evidence) -> tuple[Word, str]:
        """Return what all of them say after one more step, and why."""
        words = [source.judge(evidence) for source in self._sources]
        for word, why in words:
            if word is Word.FAILURE:
                return Word.FAILURE, why
        said = {word for word, _ in words}
        if self._vetoed:
            self._calm = self._calm + 1 if Word.OPEN in said else 0
            self._vetoed = self._calm < self._hold
            return Word.OPEN, ''
        if Word.OPEN in said:
            self._run = 0
        elif said == {Word.SUCCESS}:
            self._run += 1
        return (Word.SUCCESS, self.why) if said and self._run >= self._hold else (Word.OPEN, '')
