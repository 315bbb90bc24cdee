# SPDX-License-Identifier: Apache-2.0
"""From a bag to the records that the assembler is fed with. No ROS needed."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from so101_bags.arms import ArmTopics, choose_arm
from so101_bags.errors import BagError
from so101_bags.messages import Decoders
from so101_bags.raw import open_bags, Progress, RawBag
from so101_bags.records import EpisodeStart, RecordMaker
from so101_contract.observation_spec import ObservationSpec
from so101_contract.records import AnyRecord


class Recorded(NamedTuple):
    """A record, and where it comes from.

    Attributes:
        topic: absolute name.
        log_ns: when the recorder received the message [ns].
        record: what it says.
    """

    topic: str
    log_ns: int
    record: AnyRecord


@dataclass
class ReadReport:
    """What a reader came across; it fills while the records are taken.

    Attributes:
        messages: messages read.
        records: records made, by the name of their type.
        skipped: messages that gave none, by the reason.
        unnamed_images: images that no step names; they are not even scaled down.
        starts: the contract and calibration that each episode began with.
    """

    messages: int = 0
    records: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    unnamed_images: int = 0
    starts: list[EpisodeStart] = field(default_factory=list)


def read_records(
    paths: Iterable[Path | str] | Path | str,
    spec: ObservationSpec,
    *,
    namespace: str | None = None,
    any_spec: bool = False,
    all_images: bool = False,
    progress: Progress | None = None,
    report: ReadReport | None = None,
) -> Iterator[AnyRecord]:
    """Yield what `read_stamped` does, without topic and time."""
    for recorded in read_stamped(
        paths,
        spec,
        namespace=namespace,
        any_spec=any_spec,
        all_images=all_images,
        progress=progress,
        report=report,
    ):
        yield recorded.record


def read_stamped(
    paths: Iterable[Path | str] | Path | str,
    spec: ObservationSpec,
    *,
    namespace: str | None = None,
    any_spec: bool = False,
    all_images: bool = False,
    progress: Progress | None = None,
    report: ReadReport | None = None,
) -> Iterator[Recorded]:
    """Yield the records of one arm in the order in which the recorder received the messages.

    Scaling images down costs most, and a camera gives more frames than there are steps. So an image comes out
    only when a step names it: right before that step, or when it comes later than that.

    Args:
        paths: bag folders, bare `.mcap` or `.db3` files (also `.zstd`), or folders of bags; bags that overlap
            in time are merged.
        spec: what an observation consists of; its cameras decide which images are read.
        namespace: which arm; None for the only one.
        any_spec: read a bag that was recorded with another observation spec all the same.
        all_images: yield the images that no step names too, each in its own place.
        progress: called now and then with messages read and messages in all.
        report: filled while the records are taken.

    Raises:
        BagError: a bag is damaged, lacks a topic that learning needs, or was recorded with another contract.
    """
    account = ReadReport() if report is None else report
    with open_bags(paths) as bag:
        arm = _arm(bag, spec, namespace)
        maker = RecordMaker(arm, spec, Decoders(bag.topics.values()), all_images=all_images)
        account.starts, account.skipped = maker.starts, maker.skipped
        checked = 0
        for message in bag.messages(arm.all, progress):
            account.messages += 1
            made = maker.push(message)
            if len(maker.starts) > checked:
                checked = len(maker.starts)
                if not any_spec:
                    _check_spec(maker.starts[-1], spec, bag)
            for recorded in made:
                account.records[type(recorded[2]).__name__] += 1
                yield Recorded(*recorded)
        account.unnamed_images = maker.unnamed_images
        _require_records(account, arm)


def _arm(bag: RawBag, spec: ObservationSpec, namespace: str | None) -> ArmTopics:
    where = ', '.join(str(path) for path in bag.paths)
    arm = ArmTopics.of(choose_arm(bag.topics, namespace, where), spec)
    arm.require(bag.topics, where)
    return arm


def _check_spec(start: EpisodeStart, spec: ObservationSpec, bag: RawBag) -> None:
    if start.observation_hash and start.observation_hash != spec.hash:
        raise BagError(
            f'expected episodes with the observation {spec.hash[:12]}, but episode {start.episode} of '
            f'{bag.paths[0]} began with {start.observation_hash[:12]}; name the observation that it was recorded '
            f'with, or allow another one where the cameras are the same'
        )


def _require_records(account: ReadReport, arm: ArmTopics) -> None:
    """Refuse a bag of which some kind of message cannot be used at all: that is no loss, it is another bag."""
    used = {'StepRecord': arm.step, 'JointSample': arm.joints, 'ExecutedAction': arm.command}
    for name, topic in used.items():
        reasons = [reason for reason in account.skipped if reason.startswith(f'{topic}: ')]
        if not account.records[name] and reasons:
            raise BagError(f'expected usable messages on {topic}, got none: {reasons[0]}')
