# SPDX-License-Identifier: Apache-2.0
"""Bags in, a buffer out. The same bag and the same choices give the same bytes, and are converted once.

Every bag becomes one part of the buffer. Its name is a hash of the bag's content and of everything that decides
how it is converted, so that another choice is another part and a part that is there needs no second conversion.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
import hashlib
import json
import os
from pathlib import Path
import shutil
import threading
from typing import ClassVar

from hilserl_learner.data.store import (
    BufferHeader,
    BufferWriter,
    Entry,
    HEADER,
    Part,
    read_header,
    write_header,
    write_whole,
)
from hilserl_learner.errors import IngestError
from hilserl_learner.ingest.relabel import choose_reward, FkRepair, make_rewarder, RewardChoice
from so101_bags.records import read_records, ReadReport
from so101_bags.storage import find_bags, storage_files
from so101_contract.action import ActionSpec
from so101_contract.assembly import Assembler
from so101_contract.observation_spec import ObservationSpec
from so101_contract.record import Json, Record
from so101_contract.transition import EpisodeReport, Transition
from so101_kinematics.fk import state_function


@dataclass
class BagReport:
    """What a bag gave.

    Attributes:
        episodes: episodes that gave transitions.
        outcomes: how episodes ended, by name.
        discarded: episodes that the human threw away.
        steps: steps that came.
        transitions: transitions that they gave.
        intervened: transitions that a human decided.
        reward: sum of the rewards.
        successes: episodes with a terminal transition and a reward above 0 there.
        gaps: steps that gave no transition, by reason.
        skipped: messages that could not be used, by reason.
        repaired: episodes whose zero actions were replaced.
        clipped: share of the replaced actions that were clipped, by axis.
    """

    episodes: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    discarded: int = 0
    steps: int = 0
    transitions: int = 0
    intervened: int = 0
    reward: float = 0.0
    successes: int = 0
    gaps: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    repaired: tuple[int, ...] = ()
    clipped: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the report as JSON text that is equal for equal content."""
        plain: dict[str, Json] = {
            name: dict(sorted(value.items())) if isinstance(value, dict) else value
            for name, value in vars(self).items()
        }
        return json.dumps(plain, indent=2, sort_keys=True) + '\n'

    @classmethod
    def from_json(cls, text: str) -> 'BagReport':
        """Read what `to_json` wrote."""
        values = json.loads(text)
        for name in ('outcomes', 'gaps', 'skipped'):
            values[name] = Counter(values[name])
        return cls(**{**values, 'repaired': tuple(values['repaired'])})


def count(account: BagReport, report: EpisodeReport) -> None:
    """Add the report of an episode."""
    account.steps += report.steps
    account.discarded += report.discarded
    if report.outcome is not None:
        account.outcomes[report.outcome.name.lower()] += 1
    for reason, number in report.dropped.items():
        account.gaps[reason.value] += number


def reasons(account: BagReport) -> str:
    """Say why steps and messages gave nothing."""
    told = {**account.gaps, **account.skipped}
    return (
        ', '.join(f'{number} x {reason}' for reason, number in told.items())
        or 'no step belongs to an episode'
    )


REPORT = 'report.json'
ZERO_ACTIONS = ('refuse', 'repair', 'keep')
Progress = Callable[[int, int], None]

_CHUNK = 2**20
_NAME = 16  # characters of a part's name


@dataclass(frozen=True, kw_only=True)
class Conversion(Record):
    """Everything that decides what a bag becomes; part of a buffer part's name.

    Attributes:
        observation: what an observation consists of.
        action: what a network's action means.
        reward: identity of the reward.
        zero_actions: what to do with demonstrations whose actions are all zero: refuse, repair or keep.
        namespace: which arm of the bag; empty for the only one.
        any_spec: take bags that were recorded with another observation spec.
        success_reward: what a late label that makes an episode a success adds to its last reward.
        failure_reward: the same for a failure.
    """

    KIND: ClassVar[str] = 'hilserl_learner/conversion/1'
    ERROR = IngestError

    observation: ObservationSpec
    action: ActionSpec
    reward: str = 'bag'
    zero_actions: str = 'refuse'
    namespace: str = ''
    any_spec: bool = False
    success_reward: float = 1.0
    failure_reward: float = 0.0

    def __post_init__(self) -> None:
        """Check the choices."""
        super().__post_init__()
        if self.zero_actions not in ZERO_ACTIONS:
            raise IngestError(
                f'expected one of {list(ZERO_ACTIONS)} for zero actions, got {self.zero_actions!r}; choose one'
            )

    def key(self, bag_sha256: str) -> str:
        """Return the hash that names a converted bag."""
        return hashlib.sha256(f'{self.hash} {bag_sha256}'.encode()).hexdigest()


@dataclass(frozen=True)
class _Job:
    """One bag to convert."""

    bag: Path
    conversion: Conversion
    choice: RewardChoice

    def part(self, sha256: str) -> Part:
        key = self.conversion.key(sha256)
        return Part(name=key[:_NAME], source_sha256=sha256, key=key)


@dataclass(frozen=True)
class Ingested:
    """One bag after its conversion.

    Attributes:
        bag: where it lies.
        part: what it became.
        report: what it gave.
        reused: it had been converted before, in the same way.
    """

    bag: Path
    part: Part
    report: BagReport
    reused: bool


def bag_sha256(bag: Path, stop: threading.Event | None = None) -> str:
    """Return a hash of the content of a bag, wherever it lies and whatever it is called.

    Args:
        bag: folder or file.
        stop: ends the reading early, with a hash that is of no use.
    """
    digest = hashlib.sha256()
    chunk = memoryview(bytearray(_CHUNK))  # one for all: fresh memory for each takes the system's time
    for storage in storage_files(bag):
        one = hashlib.sha256()
        with storage.path.open('rb', buffering=0) as file:
            while (size := file.readinto(chunk)) and not (stop is not None and stop.is_set()):
                one.update(chunk[:size])
        digest.update(one.digest())
    return digest.hexdigest()


def ingest(
    bags: Sequence[Path | str],
    out: Path,
    conversion: Conversion,
    *,
    reward: str = 'bag',
    add: bool = False,
    progress: Callable[[Path, int, int], None] | None = None,
) -> Iterator[Ingested]:
    """Convert bags into a buffer, yielding each one when it is done; afterwards the buffer holds exactly these.

    Nothing of the buffer changes before the last bag is converted.

    Args:
        bags: bag folders, bare files, or folders of bags.
        out: directory of the buffer.
        conversion: how; its `reward` is set by `reward`.
        reward: see `ingest_reward`.
        add: keep what the buffer holds already.
        progress: called with a bag, messages read, and messages in it.

    Raises:
        BagError: a bag is damaged, foreign, or of another contract.
        IngestError: a bag gives nothing to learn from, or its actions are all zero.
        SegmentError: the buffer cannot be written.
    """
    choice = choose_reward(reward)
    conversion = replace(conversion, reward=choice.identity)
    before = _present(out)
    if before is not None and add:
        before.observation.require_same(conversion.observation, ('buffer', 'asked for'))
    parts = {part.key: part for part in before.parts} if before is not None and add else {}
    for bag in find_bags(list(bags)):
        part, reused = _provide(_Job(bag, conversion, choice), out, progress)
        parts[part.key] = part
        report = BagReport.from_json((out / part.name / REPORT).read_text())
        yield Ingested(bag, part, report, reused)
    header = BufferHeader(
        observation=conversion.observation, action=conversion.action, parts=tuple(parts.values())
    )
    write_header(out, header)
    for name in _part_names(out) - {part.name for part in header.parts}:
        shutil.rmtree(out / name)


def _part_names(out: Path) -> set[str]:
    return {path.parent.name for path in out.glob(f'*/{REPORT}')}


def _present(out: Path) -> BufferHeader | None:
    """Return the header of the buffer that is there already.

    Raises:
        IngestError: something else is there.
    """
    if (out / HEADER).is_file():
        return read_header(out)
    names = {path.name for path in out.iterdir() if not path.name.startswith('.')} if out.exists() else set()
    foreign = sorted(names - _part_names(out))  # parts without a header are left of an ingest that failed
    if foreign:
        raise IngestError(
            f'expected a buffer or an empty directory at {out}, got {foreign[:3]}; name another directory'
        )
    return None


def _provide(job: _Job, out: Path, progress: Callable[[Path, int, int], None] | None) -> tuple[Part, bool]:
    """Return the part that a bag becomes, and whether it was there already.

    Hashing takes as long as converting, so both happen at once, unless the hash may save the conversion.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        hashing = pool.submit(bag_sha256, job.bag, stop)
        try:
            if _part_names(out) and (out / job.part(hashing.result()).name / REPORT).is_file():
                return job.part(hashing.result()), True
            aside = out / f'.partial.{os.getpid()}'
            try:
                _convert(job, aside, None if progress is None else partial(progress, job.bag))
                part = job.part(hashing.result())
                shutil.rmtree(out / part.name, ignore_errors=True)
                aside.rename(out / part.name)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        finally:
            stop.set()
    return part, False


def _convert(job: _Job, directory: Path, progress: Progress | None) -> None:
    """Write one part with its report."""
    shutil.rmtree(directory, ignore_errors=True)
    writer = BufferWriter(directory)
    try:
        account, stream = BagReport(), job.conversion.namespace
        for episode, report in _rewarded(job, account, progress):
            for transition in episode:
                writer.append(Entry(stream, transition))
            writer.append(Entry(stream, report))
            account.episodes += 1
            account.transitions += len(episode)
            account.intervened += sum(transition.intervened for transition in episode)
            account.reward += sum(transition.reward for transition in episode)
            account.successes += episode[-1].terminated and episode[-1].reward > 0
    finally:
        writer.close()
    if not account.transitions:
        raise IngestError(
            f'expected transitions from {job.bag}, got none ({account.steps} steps; {reasons(account)}); '
            f'see what bag-check says about it'
        )
    write_whole(directory / REPORT, account.to_json().encode())


def _rewarded(
    job: _Job, account: BagReport, progress: Progress | None
) -> Iterator[tuple[list[Transition], EpisodeReport]]:
    """Yield the episodes to learn from, with actions repaired and rewards given."""
    conversion = job.conversion
    rewarder = make_rewarder(
        job.choice, job.bag, conversion.namespace, conversion.observation, conversion.action
    )
    keep = conversion.zero_actions == 'keep'
    repair = None if keep else FkRepair(conversion.observation, conversion.action)
    for episode, report in _episodes(job.bag, conversion, account, progress):
        count(account, report)
        if report.discarded or not episode:
            continue
        acted = episode
        if repair is not None and repair.is_zero(episode):
            if conversion.zero_actions == 'refuse':
                raise IngestError(
                    f'expected actions that move the arm, but in episode {report.episode} of {job.bag} the TCP '
                    f'moved more than 1 cm while every action is zero; record again with kinematics running, or '
                    f'pass --zero-actions repair to compute the actions from the joints'
                )
            acted = repair.repair(episode)
            account.repaired, account.clipped = repair.report.episodes, repair.report.clipped
        yield rewarder(acted, report), report


def _episodes(
    bag: Path, conversion: Conversion, account: BagReport, progress: Progress | None
) -> Iterator[tuple[list[Transition], EpisodeReport]]:
    """Yield the final transitions of each episode of a bag with its report."""
    assembler = Assembler(
        conversion.observation,
        state_function(conversion.observation),
        success_reward=conversion.success_reward,
        failure_reward=conversion.failure_reward,
    )
    read = ReadReport()
    pending: dict[int, dict[int, Transition]] = {}
    records = read_records(
        bag,
        conversion.observation,
        namespace=conversion.namespace or None,
        any_spec=conversion.any_spec,
        progress=progress,
        report=read,
    )

    def closed(
        outputs: Sequence[Transition | EpisodeReport],
    ) -> Iterator[tuple[list[Transition], EpisodeReport]]:
        for output in outputs:
            if isinstance(output, Transition):
                pending.setdefault(output.episode, {})[output.index] = output
            else:
                episode = pending.pop(output.episode, {})
                yield [episode[index] for index in sorted(episode)], output

    for record in records:
        yield from closed(assembler.push(record))
    yield from closed(assembler.flush())
    account.skipped = read.skipped
