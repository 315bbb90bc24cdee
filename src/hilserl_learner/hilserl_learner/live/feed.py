# SPDX-License-Identifier: Apache-2.0
"""From the live messages of one arm to what goes into its buffer.

Messages come as bytes and take the same way as those of a bag: the same decoders, the same assembler. So what the
learner learns from live is what it would learn from a recording.
"""

from collections.abc import Mapping
import logging

from hilserl_learner.data.collect import EpisodeResult
from hilserl_learner.data.store import Entry
from so101_bags.messages import Decoders
from so101_bags.records import ArmTopics, RecordMaker
from so101_bags.storage import RawMessage
from so101_contract.action import ActionSpec
from so101_contract.assembly import Assembler, StateOf
from so101_contract.errors import AssemblyError
from so101_contract.observation import Limits
from so101_contract.observation_spec import ObservationSpec
from so101_contract.session import Outcome
from so101_contract.task.spec import TaskSpec
from so101_contract.transition import EpisodeReport, Output, Reason, Transition
from so101_kinematics.fk import state_function

_log = logging.getLogger(__name__)


class LiveFeed:
    """One arm.

    Attributes:
        transitions: how many came out.
        gaps: steps that gave none because something was lost.
        episodes: episodes that were closed.
        problem: a sentence while the session observes or acts otherwise than this learner; empty else.
        calibration_id: of the arm in the present episode.
    """

    def __init__(
        self,
        observation: ObservationSpec,
        action: ActionSpec,
        *,
        task: TaskSpec | None = None,
        namespace: str = '',
        life: str = '',
        state_of: StateOf | None = None,
        success_reward: float = 1.0,
        failure_reward: float = 0.0,
        limits: Limits | None = None,
    ) -> None:
        """Prepare.

        Args:
            observation: what the session observes.
            action: what an action means.
            task: what is to be done; None where nobody says.
            namespace: of the arm, absolute; empty for the root.
            life: tells this life of the learner from others whose episode numbers may be the same.
            state_of: joints to state; the arm's kinematics by default.
            success_reward: see `Assembler`.
            failure_reward: see `Assembler`.
            limits: bounds on memory.
        """
        specs = {'observation': observation, 'action': action, 'task': task}
        self._specs = {name: spec for name, spec in specs.items() if spec is not None}
        self._arm = ArmTopics.of(namespace, observation)
        self._maker = RecordMaker(self._arm, observation, Decoders())
        self._assembler = Assembler(
            observation,
            state_of or state_function(observation),
            limits=limits,
            success_reward=success_reward,
            failure_reward=failure_reward,
        )
        self._name, self._life, self._generation = self._arm.namespace or '/', life, 0
        self._closed: set[int] = set()
        self._starts = 0
        self.transitions = self.gaps = self.episodes = 0
        self.problem = self.calibration_id = ''

    @property
    def topics(self) -> Mapping[str, str]:
        """Type of each topic that is listened to, by absolute name."""
        return {**self._arm.needed, **self._arm.optional}

    @property
    def images(self) -> frozenset[str]:
        """Those of them that are images."""
        return frozenset(self._arm.images.values())

    @property
    def joints(self) -> str:
        """The one with the joint states."""
        return self._arm.joints

    @property
    def skipped(self) -> Mapping[str, int]:
        """Messages that could not be used, by reason."""
        return self._maker.skipped

    @property
    def stream(self) -> str:
        """What keeps the episodes of this arm, this session and this life apart from all others."""
        return f'{self._name} {self._life} {self._generation}'

    def push(self, topic: str, log_ns: int, data: bytes) -> list[Entry]:
        """Take a serialised message and return what it completes."""
        records = self._maker.push(RawMessage(topic, self.topics[topic], log_ns, data))
        if len(self._maker.starts) != self._starts:
            self._begin()
        if (
            len(self._maker.skipped) > _REASONS
        ):  # reasons may quote numbers, so there can be any number of them
            self._maker.skipped.clear()
        if self.problem:
            return []
        entries: list[Entry] = []
        for record in records:
            try:
                outputs = self._assembler.push(record)
            except AssemblyError as error:
                self._complain(str(error))
                return entries
            entries += [self._entry(output) for output in outputs]
        return entries

    def flush(self) -> list[Entry]:
        """Close every open episode and return their reports."""
        return [self._entry(output) for output in self._assembler.flush()]

    def _begin(self) -> None:
        """Look at the contract that an episode begins with."""
        start = self._maker.starts[-1]
        self._starts = len(self._maker.starts)
        if self._starts > _REMEMBERED:
            del self._maker.starts[:-1]
            self._starts = 1
        self.calibration_id = start.calibration_id
        said = {'observation': start.observation_hash, 'action': start.action_hash, 'task': start.task_hash}
        others = [name for name, spec in self._specs.items() if said[name] not in ('', spec.hash)]
        self.problem = ''
        if others:
            self._complain(
                f'expected a session with the {" and ".join(others)} of this learner, got another one (hash '
                f'{", ".join(said[name][:12] for name in others)}); give both the same task and observation'
            )

    def _complain(self, sentence: str) -> None:
        if self.problem != sentence:
            _log.error('nothing is learned from %s: %s', self._name, sentence)
        self.problem = sentence

    def _entry(self, output: Output) -> Entry:
        if isinstance(output, Transition):
            # A session that was restarted counts from the beginning; what a late label revises is none of it.
            if output.episode in self._closed and output.revision == 0:
                self._generation += 1
                self._closed.clear()
            self.transitions += output.revision == 0
        elif isinstance(output, EpisodeReport) and output.revision == 0:
            self._closed.add(output.episode)
            self.episodes += 1
            self.gaps += sum(count for reason, count in output.dropped.items() if reason not in _NO_LOSS)
        return Entry(self.stream, output)


_REMEMBERED, _REASONS = 64, 200
_NO_LOSS = (Reason.SOURCE, Reason.AFTER_END)  # nobody acted, or nothing was to come


class EpisodeAccount:
    """Collects the transitions of open episodes; says how one went when its report comes."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], dict[int, tuple[float, bool]]] = {}

    def add(self, entry: Entry) -> EpisodeResult | None:
        """Take an entry; return the account of the episode that it closes, unless that was thrown away."""
        output = entry.output
        if isinstance(output, Transition):
            steps = self._open.setdefault((entry.stream, output.episode), {})
            steps[output.index] = (output.reward, output.intervened)
            return None
        steps = self._open.pop((entry.stream, output.episode), {})
        if output.discarded or not steps or output.revision:
            return None
        helped = [steps[index][1] for index in sorted(steps)]
        takeovers = sum(now and not before for before, now in zip([False, *helped], helped, strict=False))
        return EpisodeResult(
            episode=output.episode,
            success=output.outcome is Outcome.SUCCESS,
            steps=len(steps),
            reward=sum(reward for reward, _ in steps.values()),
            intervened=sum(helped),
            takeovers=takeovers,
        )
