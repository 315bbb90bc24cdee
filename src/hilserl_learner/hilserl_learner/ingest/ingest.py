# SPDX-License-Identifier: Apache-2.0
"""Bags in, a buffer out. The same bag and the same choices give the same bytes, and are converted once.

Every bag becomes one part of the buffer. Its name is a hash of the bag's content and of everything that decides
how it is converted, so that another choice is another part and a part that is there needs no second conversion.
A dataset of LeRobot's may stand wherever a bag does.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
import hashlib
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
from hilserl_learner.errors import EpisodeError, IngestError
from hilserl_learner.ingest.account import BagReport, count, reasons
from hilserl_learner.ingest.relabel import choose_reward, FkRepair, make_rewarder, RewardChoice
from hilserl_learner.lerobot.dataset import DatasetChoices, find_sources, is_dataset, source_files
from so101_bags.fix import fix_bag
from so101_bags.messages import Decoders
from so101_bags.metadata import read_session_metadata, task_of_bag
from so101_bags.records import choose_arm, read_records, ReadReport
from so101_bags.storage import DecodeError, open_bags
from so101_contract.action import ActionSpec
from so101_contract.assembly import Assembler
from so101_contract.errors import ContractError
from so101_contract.messages import EpisodeEventRecord
from so101_contract.observation_spec import ObservationSpec
from so101_contract.record import Record
from so101_contract.session import EventKind
from so101_contract.task.spec import require_same_task, TaskSpec
from so101_contract.transition import EpisodeReport, Transition
from so101_interfaces_py import topics
from so101_interfaces_py.files import open_file
from so101_kinematics.fk import state_function

REPORT = 'report.json'
ZERO = (
    'the TCP moved more than 1 cm while every action is zero: it was moved by hand, its actions were lost, or, where '
    'it is so in every episode, kinematics did not run; --zero-actions repair computes the actions from the joints'
)
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
        zero_actions: what to do with episodes whose actions are all zero although the arm moved: refuse, which leaves
            them out, repair or keep.
        namespace: which arm of the bag; empty for the only one.
        any_spec: take bags that were recorded with another observation spec.
        success_reward: what a late label that makes an episode a success adds to its last reward.
        failure_reward: the same for a failure.
        dataset: what a dataset of LeRobot's does not say itself.
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
    dataset: DatasetChoices = field(default_factory=DatasetChoices)

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
        unfinished: its recorder still ran or was killed; what was whole of it by then was taken.
    """

    bag: Path
    part: Part
    report: BagReport
    reused: bool
    unfinished: bool = False


def bag_sha256(bag: Path, stop: threading.Event | None = None) -> str:
    """Return a hash of the content of a bag or dataset, wherever it lies and whatever it is called.

    Args:
        bag: folder or file.
        stop: ends the reading early, with a hash that is of no use.
    """
    digest = hashlib.sha256()
    chunk = memoryview(bytearray(_CHUNK))  # one for all: fresh memory for each takes the system's time
    for path in source_files(bag):
        one = hashlib.sha256()
        try:
            with open_file(path) as file:
                while (size := file.readinto(chunk)) and not (stop is not None and stop.is_set()):
                    one.update(chunk[:size])
        except OSError as error:
            raise IngestError(
                f'expected to read {path}, got "{error.strerror}"; copy the whole bag'
            ) from error
        digest.update(one.digest())
    return digest.hexdigest()


def ingest(
    bags: Sequence[Path | str],
    out: Path,
    conversion: Conversion,
    *,
    reward: str = 'bag',
    add: bool = False,
    replace_all: bool = False,
    strict: bool = False,
    wanted: TaskSpec | None = None,
    progress: Callable[[Path, int, int], None] | None = None,
) -> Iterator[Ingested]:
    """Convert bags into a buffer, yielding each one when it is done; afterwards the buffer holds exactly these.

    Nothing of the buffer changes before the last bag is converted. An episode that cannot be learned from is left out.

    Args:
        bags: bag folders, bare files, datasets, or folders of these.
        out: directory of the buffer.
        conversion: how; its `reward` is set by `reward`.
        reward: see `ingest_reward`.
        add: keep what the buffer holds already.
        replace_all: throw away what it holds already.
        strict: refuse a bag in which an episode cannot be learned from.
        wanted: task that the bags must be of; None: that of the first bag that says one.
        progress: called with a bag, messages read, and messages in it.

    Raises:
        BagError: a bag is damaged, foreign, or of another contract.
        SpecMismatchError: a bag is of another task.
        IngestError: a bag gives nothing to learn from, or the buffer would lose what it holds unasked.
        SegmentError: the buffer cannot be written.
    """
    choice = choose_reward(reward)
    conversion = replace(conversion, reward=choice.identity)
    before, found = _present(out), find_sources(bags)
    if before is not None and add:
        before.observation.require_same(conversion.observation, ('buffer', 'asked for'))
    elif before is not None and not replace_all:
        _require_kept(before, out, {conversion.key(bag_sha256(bag)) for bag in found})
    parts = {part.key: part for part in before.parts} if before is not None and add else {}
    task = before.task if before is not None and add else None
    for bag in found:
        task = _same_task(wanted or task, bag) or task
        with _closed(bag, out) as whole:
            part, reused = _provide(_Job(whole, conversion, choice), out, progress)
        parts[part.key] = part
        report = BagReport.read(out / part.name / REPORT)
        if strict and report.left_out:
            number, why = next(iter(report.left_out.items()))
            raise IngestError(
                f'expected every episode of {bag} to be fit to learn from, got {len(report.left_out)} that are not: '
                f'episode {number}: {why}; leave out --strict to take the others'
            )
        yield Ingested(bag, part, report, reused, whole != bag)
    header = BufferHeader(
        observation=conversion.observation,
        action=conversion.action,
        parts=tuple(parts.values()),
        task=task,
    )
    write_header(out, header)
    for name in _part_names(out) - {part.name for part in header.parts}:
        shutil.rmtree(out / name)


def _same_task(task: TaskSpec | None, bag: Path) -> TaskSpec | None:
    """Return the task that a bag was recorded in, or else the one that is wanted; refuse another one."""
    theirs = None if is_dataset(bag) else task_of_bag(read_session_metadata(bag))
    require_same_task(task, theirs, ('wanted', bag.name))
    return theirs or (None if task is None else task.meaning)


def _require_kept(before: BufferHeader, out: Path, keys: set[str]) -> None:
    """Refuse what would lose parts of a buffer that nobody said to throw away."""
    lost = [part for part in before.parts if part.key not in keys]
    if lost:
        reports = [BagReport.read(out / part.name / REPORT) for part in lost]
        raise IngestError(
            f'expected a new buffer at {out}, got one that holds {sum(one.transitions for one in reports)} transitions '
            f'of {len(lost)} other bags; add --add to keep them, --replace to throw them away, or name another one'
        )


@contextmanager
def _closed(bag: Path, out: Path) -> Iterator[Path]:
    """Give a bag that stays as it is: of one whose recorder still runs, or was killed, a copy of what is whole now."""
    unfinished = False
    if not is_dataset(bag):
        with open_bags(bag) as raw:
            unfinished = bool(raw.unfinished)
    if not unfinished:
        yield bag
        return
    copy = out / f'.partial.{os.getpid()}.bag' / bag.name
    shutil.rmtree(copy.parent, ignore_errors=True)
    try:
        copy.parent.mkdir(parents=True)
        yield fix_bag(bag, copy).target
    finally:
        shutil.rmtree(copy.parent, ignore_errors=True)


def _part_names(out: Path) -> set[str]:
    return {path.parent.name for path in out.glob(f'*/{REPORT}')}


def _present(out: Path) -> BufferHeader | None:
    """Return the header of the buffer that is there already.

    Raises:
        IngestError: something else is there.
    """
    if (out / HEADER).is_file():
        header = read_header(out)
        if not all(part.key for part in header.parts):
            raise IngestError(
                f'expected a buffer of bags at {out}, got one that a run fills; name another directory'
            )
        return header
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
                with suppress(OSError):  # nothing came of it, and there was nothing before
                    out.rmdir()
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
        job.choice,
        job.bag,
        conversion.namespace,
        conversion.observation,
        conversion.action,
        task=None if is_dataset(job.bag) else task_of_bag(read_session_metadata(job.bag)),
    )
    keep = conversion.zero_actions == 'keep'
    repair = None if keep else FkRepair(conversion.observation, conversion.action)
    for episode, report in _episodes(job.bag, conversion, account, progress):
        count(account, report)
        if report.discarded or not episode:
            continue
        acted = episode
        try:
            if repair is not None and repair.is_zero(episode):
                if conversion.zero_actions == 'refuse':
                    raise EpisodeError(ZERO)
                acted = repair.repair(episode)
                account.repaired, account.clipped = repair.report.episodes, repair.report.clipped
            rewarded = rewarder(acted, report)
        except EpisodeError as error:
            account.left_out[str(report.episode)] = str(error)
            continue
        yield rewarded, report


def late_labels(bag: Path, namespace: str | None) -> dict[tuple[int, int], list[EpisodeEventRecord]]:
    """Return the labels that correct an episode after its end, by number and stamp of the event that ended it."""
    late: dict[tuple[int, int], list[EpisodeEventRecord]] = {}
    ends: dict[int, EpisodeEventRecord] = {}
    with open_bags(bag) as raw:
        arm = choose_arm(raw.topics, namespace, str(bag))
        topic = f'{arm}/{topics.EPISODE_EVENT}'
        read = Decoders(raw.topics.values()).event()
        for message in raw.messages([topic] if topic in raw.topics else []):
            try:
                event = read(message.data)
            except (ContractError, DecodeError):  # counted where records are made of it
                continue
            if event.kind is EventKind.START:
                ends.pop(event.episode, None)
            elif event.kind.outcome is not None:
                first = ends.setdefault(event.episode, event)
                if event is not first:
                    late.setdefault((first.episode, first.stamp_ns), []).append(event)
    return late


def _episodes(
    bag: Path, conversion: Conversion, account: BagReport, progress: Progress | None
) -> Iterator[tuple[list[Transition], EpisodeReport]]:
    """Yield the final transitions of each episode of a bag, or of a dataset, with its report."""
    if is_dataset(bag):
        from hilserl_learner.lerobot.convert import (
            DatasetConverter,  # pyarrow and av, for those who need them
        )

        converter = DatasetConverter(bag, conversion.dataset, conversion.observation, conversion.action)
        yield from converter.episodes(progress)
        account.said, account.clipped = tuple(converter.said), account.clipped or converter.clipped
        return
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

    late = late_labels(bag, conversion.namespace or None)
    for record in records:
        yield from closed(assembler.push(record))
        if isinstance(record, EpisodeEventRecord):  # the episode closes before its late labels come
            for label in late.get((record.episode, record.stamp_ns), ()):
                yield from closed(assembler.push(label))
    yield from closed(assembler.flush())
    account.skipped = read.skipped
