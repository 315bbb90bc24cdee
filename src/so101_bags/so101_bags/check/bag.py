# SPDX-License-Identifier: Apache-2.0
"""Looks through a bag once and says what is wrong with it: its contract, and rates, gaps and clocks of its topics.

`check_parity` says whether the observations that it gives are, bit for bit, those that the policy saw live.
"""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
import json
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from so101_bags.check.episodes import EpisodeBook, judge_episodes, judge_messages, judge_order
from so101_bags.check.report import CheckLimits, CheckReport, TopicRow
from so101_bags.messages import Decoders, EVENT, stamp_of, STRING
from so101_bags.metadata import observation_of_bag, read_session_metadata
from so101_bags.records import ArmTopics, choose_arm, read_records, RecordMaker
from so101_bags.storage import BagError, DecodeError, open_bags, Progress, RawBag, RawMessage, read_metadata
from so101_contract.action import ActionSpec
from so101_contract.assembly import Assembler
from so101_contract.errors import AssemblyError
from so101_contract.messages import EpisodeEventRecord, StepRecord
from so101_contract.observation import Limits, observation_digest
from so101_contract.observation_spec import get_observation, ObservationSpec
from so101_interfaces_py import topics
from so101_kinematics.fk import state_function


@dataclass
class ParityReport:
    """The outcome of the comparison; steps are named by episode and index.

    Attributes:
        compared: steps whose observation the policy logged and the bag gives.
        different: those that differ.
        lost: those that the policy saw and the bag cannot give, with the reason.
        unseen: steps that the bag gives and the policy did not log.
    """

    compared: int = 0
    different: list[tuple[int, int]] = field(default_factory=list)
    lost: list[tuple[int, int, str]] = field(default_factory=list)
    unseen: int = 0

    @property
    def equal(self) -> int:
        """Steps that are bit-identical."""
        return self.compared - len(self.different)


def check_parity(
    paths: Iterable[Path | str] | Path | str,
    spec: ObservationSpec,
    *,
    namespace: str | None = None,
    progress: Progress | None = None,
) -> ParityReport:
    """Rebuild the observation of every step that the policy logged, and compare the hashes.

    Raises:
        BagError: a bag cannot be read, or the policy logged nothing in it.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    live = read_observed(paths, namespace=namespace)
    if not live:
        raise BagError(
            f'expected hashes on {topics.POLICY_OBSERVED} in {paths[0]}, got none; record while a policy runs'
        )
    report = ParityReport()
    assembler = Assembler(
        spec, state_function(spec), limits=Limits(joints=6000, images=2000, steps=20000, episodes=5)
    )
    steps: dict[int, list[int]] = {}
    seen: set[tuple[int, int]] = set()

    def settle(episode: int) -> None:
        for index in steps.pop(episode, []):
            _compare(assembler, live.get((episode, index)), (episode, index), report)
        assembler.close(episode)

    for record in read_records(paths, spec, namespace=namespace, any_spec=True, progress=progress):
        if isinstance(record, StepRecord) and record.episode:
            begins_again = record.index == 0 and any(episode >= record.episode for episode in steps)
            for older in [episode for episode in steps if begins_again or episode < record.episode - 1]:
                settle(older)
            steps.setdefault(record.episode, []).append(record.index)
            seen.add((record.episode, record.index))
        assembler.push(record)
    for episode in list(steps):
        settle(episode)
    report.lost += [(*key, 'its step is not in the bag') for key in live if key not in seen]
    return report


def read_observed(
    paths: Iterable[Path | str], *, namespace: str | None = None
) -> dict[tuple[int, int], set[str]]:
    """Return the hashes that the policy logged, by episode and index; several where a session was restarted."""
    live: dict[tuple[int, int], set[str]] = {}
    with open_bags(paths) as bag:
        topic = f'{choose_arm(bag.topics, namespace, str(bag.paths[0]))}/{topics.POLICY_OBSERVED}'
        text = Decoders(bag.topics.values()).fields(STRING, ['data'])
        for message in bag.messages([topic]):
            try:
                # Only what is needed: what else the policy logs may change from version to version.
                said = json.loads(text(message.data).data)
                live.setdefault((int(said['episode']), int(said['index'])), set()).add(str(said['sha256']))
            except (DecodeError, ValueError, KeyError, TypeError) as error:
                raise BagError(
                    f'expected JSON with episode, index and sha256 on {topic}, got {type(error).__name__} ({error}); '
                    f'record again'
                ) from error
    return live


def _compare(assembler: Assembler, live: set[str] | None, key: tuple[int, int], report: ParityReport) -> None:
    if live is None:
        report.unseen += assembler.ready(*key)
        return
    try:
        offline = observation_digest(assembler.observation(*key))
    except AssemblyError as error:
        report.lost.append((*key, str(error)))
        return
    report.compared += 1
    if offline not in live:
        report.different.append(key)


Stamps = npt.NDArray[np.int64]


class TopicTimes:
    """When the messages of one topic were stamped, and when they were received."""

    def __init__(self, topic: str, msgtype: str, stamped: bool) -> None:
        self.topic, self.msgtype, self._stamped = topic, msgtype, stamped
        self._logs, self._stamps = array('q'), array('q')

    def push(self, message: RawMessage) -> None:
        """Take a message."""
        self._logs.append(message.log_ns)
        stamp_ns = stamp_of(message.data) if self._stamped else None
        if stamp_ns is not None:
            self._stamps.append(stamp_ns)

    @property
    def logs(self) -> Stamps:
        """Times of reception [ns], in the order of the bag."""
        return np.frombuffer(self._logs, np.int64) if self._logs else np.empty(0, np.int64)

    @property
    def stamps(self) -> Stamps:
        """Header stamps [ns]; empty where not every message has one."""
        whole = len(self._stamps) == len(self._logs) and self._stamps
        stamps = np.frombuffer(self._stamps, np.int64) if whole else np.empty(0, np.int64)
        return stamps if stamps.any() else np.empty(0, np.int64)  # /rosout and the like may stamp nothing

    def row(self) -> TopicRow:
        """Return the summary of the topic."""
        logs, stamps = self.logs, self.stamps
        times = np.sort(stamps if stamps.size else logs)
        periods = np.diff(times) / 1e9
        rate = periods.size / float(periods.sum()) if periods.any() else 0.0
        delay = float(np.median(logs - stamps)) / 1e9 if stamps.size else None
        return TopicRow(
            self.topic, self.msgtype, len(logs), rate, float(periods.max()) if periods.size else 0.0, delay
        )

    def gap_s(self, window: tuple[int, int]) -> float:
        """Return the longest time without a message between two times [ns], in seconds."""
        times = np.sort(self.stamps if self.stamps.size else self.logs)
        inside = times[(times > window[0]) & (times < window[1])]
        edges = np.concatenate([[window[0]], inside, [window[1]]])
        return float(np.diff(edges).max()) / 1e9


def judge_clocks(
    times: Mapping[str, TopicTimes], arm: ArmTopics, limits: CheckLimits, report: CheckReport
) -> None:
    """Find clocks that went backwards or jumped."""
    for topic in (arm.joints, *arm.images.values(), arm.step):
        found = times.get(topic)
        if found is None or not found.stamps.size:
            continue
        stamps, logs = found.stamps, found.logs
        back = np.flatnonzero(np.diff(stamps) < 0)
        if back.size:
            largest = float(-np.diff(stamps).min()) / 1e9
            report.fault(
                'clock-back',
                f'The stamps of {topic} go back {back.size} times, by up to {largest:.3f} s: a clock was set, or two '
                f'nodes publish there; record again.',
            )
        offset = (logs - stamps) / 1e9
        jumps = np.abs(np.diff(offset))
        # A recorder that was held up receives a burst: its delay falls back. A clock that was set stays away.
        settled = _settled(offset)
        if jumps.size and jumps.max() > limits.clock_jump_s and settled > limits.clock_jump_s:
            report.fault(
                'clock-jump',
                f'The stamps of {topic} and the clock of the recorder moved {settled:.3f} s apart during the bag: '
                f'a clock was set, or two machines are not in step; synchronise them and record again.',
            )
        twice = len(stamps) - len(np.unique(stamps))
        if twice > 0.05 * len(stamps):
            report.warn(
                'repeated', f'{twice} of {len(stamps)} messages on {topic} have a stamp that came before.'
            )


def judge_gaps(
    times: Mapping[str, TopicTimes],
    arm: ArmTopics,
    windows: Mapping[str, tuple[int, int]],
    limits: CheckLimits,
    report: CheckReport,
) -> None:
    """Find the episodes during which joint states or images stayed away."""
    bounds = {arm.joints: limits.joint_gap_s, **dict.fromkeys(arm.images.values(), limits.image_gap_s)}
    for topic, bound in bounds.items():
        found = times.get(topic)
        if found is None:
            continue
        gaps = {episode: found.gap_s(window) for episode, window in windows.items() if window[1] > window[0]}
        late = {episode: gap for episode, gap in gaps.items() if gap > bound}
        if late:
            worst = max(late, key=lambda episode: late[episode])
            report.warn(
                'gap',
                f'{topic} stayed away for {late[worst]:.2f} s in episode {worst}, and for more than {bound} s in '
                f'{len(late)} of {len(windows)} episodes.',
            )


def _settled(offset: npt.NDArray[np.float64]) -> float:
    """Return how much the lowest delay of the last tenth differs from that of the first tenth [s]."""
    tenth = max(len(offset) // 10, 1)
    return abs(float(np.min(offset[-tenth:]) - np.min(offset[:tenth])))


_Seen: TypeAlias = tuple[dict[str, TopicTimes], RecordMaker, EpisodeBook]


def check_bag(
    paths: Iterable[Path | str] | Path | str,
    *,
    spec: ObservationSpec | None = None,
    namespace: str | None = None,
    limits: CheckLimits | None = None,
    parity: bool = False,
    progress: Progress | None = None,
) -> CheckReport:
    """Check bags, read as one.

    Args:
        paths: bag folders, bare files, or folders of bags.
        spec: the observation that they must have been recorded with; None takes the one that they name.
        namespace: which arm; None for the only one.
        limits: by which to judge.
        parity: also rebuild every observation and compare it with what the policy logged.
        progress: called now and then with messages read and messages in all.

    Raises:
        BagError: they cannot be read at all.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    limits = limits or CheckLimits()
    with open_bags(paths) as bag:
        report = CheckReport([str(path) for path in bag.paths])
        report.namespace = choose_arm(bag.topics, namespace, ', '.join(report.bags))
        report.messages, report.seconds = bag.count, max(bag.end_ns - bag.start_ns, 0) / 1e9
        metadata: dict[str, str] = {}
        for path in bag.paths:
            metadata.update(read_session_metadata(path))
            _check_metadata(path, bag, report)
        for file in bag.unfinished:
            report.warn(
                'unfinished',
                f'{file} has no end, since its recorder still runs or was killed: it is checked up to its last whole '
                f'chunk; bag-fix closes it for other readers.',
            )
        decoders = Decoders(bag.topics.values())
        starts = _starts(bag, report.namespace, decoders)
        named = observation_of_bag([start.observation_hash for start in starts], metadata)
        used = spec or named or get_observation('compact')
        arm = ArmTopics.of(report.namespace, used)
        _check_contract(report, starts, metadata, spec, named)
        times, maker, book = _look_through(bag, arm, used, decoders, progress)
        _judge(bag, arm, (times, maker, book), limits, report)
    if parity:
        _check_parity(paths, used, report)
    return report


def _look_through(
    bag: RawBag, arm: ArmTopics, spec: ObservationSpec, decoders: Decoders, progress: Progress | None
) -> _Seen:
    """Read every message once."""
    times = {
        topic: TopicTimes(topic, info.msgtype, decoders.is_stamped(info.msgtype))
        for topic, info in bag.topics.items()
    }
    maker, book = RecordMaker(arm, spec, decoders), EpisodeBook(spec)
    for message in bag.messages(None, progress):
        times[message.topic].push(message)
        if message.topic in arm.all and message.msgtype == _type_of(arm, message.topic):
            for record in maker.push(message):
                book.push(record)
    book.finish()
    return times, maker, book


def _judge(bag: RawBag, arm: ArmTopics, seen: _Seen, limits: CheckLimits, report: CheckReport) -> None:
    times, maker, book = seen
    report.topics = [times[topic].row() for topic in sorted(times)]
    report.episodes, report.human = book.rows(), book.human
    for topic in arm.missing(bag.topics):
        report.fault(
            'missing-topic', f'{topic} is missing: nothing can be learned without it; record it too.'
        )
    for topic, msgtype in arm.needed.items():
        if topic in bag.topics and bag.topics[topic].msgtype != msgtype:
            report.fault(
                'wrong-type', f'{topic} has the type {bag.topics[topic].msgtype}, expected {msgtype}.'
            )
    judge_clocks(times, arm, limits, report)
    judge_gaps(times, arm, {e.name: e.window for e in book.episodes.values()}, limits, report)
    judge_messages(maker, report)
    judge_order(book, limits, report)
    judge_episodes(report, limits)


def _type_of(arm: ArmTopics, topic: str) -> str:
    return {**arm.needed, **arm.optional}[topic]


def _starts(bag: RawBag, namespace: str, decoders: Decoders) -> list[EpisodeEventRecord]:
    """Return the contract that each episode began with, before the bag is looked through."""
    arm = ArmTopics.of(namespace, get_observation('compact'))
    maker = RecordMaker(arm, get_observation('compact'), decoders)
    if arm.event in bag.topics and bag.topics[arm.event].msgtype == EVENT:
        for message in bag.messages([arm.event]):
            maker.push(message)
    return maker.starts


def _check_metadata(path: Path, bag: RawBag, report: CheckReport) -> None:
    if not path.is_dir():
        return
    try:
        metadata = read_metadata(path)
    except BagError as error:
        report.fault('metadata', str(error))
        return
    if not metadata:
        report.warn('metadata', f'{path} has no metadata.yaml; ros2 bag cannot open it: run bag-fix on it.')
    elif len(bag.paths) == 1 and metadata.get('message_count') != bag.count:
        report.warn(
            'metadata',
            f'metadata.yaml of {path} tells {metadata.get("message_count")} messages, its files hold {bag.count}: '
            f'the recorder was killed or still runs; run bag-fix on it.',
        )


def _check_contract(
    report: CheckReport,
    starts: list[EpisodeEventRecord],
    metadata: dict[str, str],
    spec: ObservationSpec | None,
    named: ObservationSpec | None,
) -> None:
    hashes = list(dict.fromkeys(start.observation_hash for start in starts if start.observation_hash))
    actions = list(dict.fromkeys(start.action_hash for start in starts if start.action_hash))
    calibrations = list(dict.fromkeys(start.calibration_id for start in starts if start.calibration_id))
    report.observation = (hashes or [metadata.get('observation_hash', '')])[0]
    report.calibration = (calibrations or [metadata.get('calibration_id', '')])[0]
    if len(hashes) > 1:
        short = ', '.join(one[:12] for one in hashes)
        report.fault(
            'mixed-spec',
            f'The episodes were recorded with {len(hashes)} observations ({short}); split the bag.',
        )
    if len(actions) > 1:
        report.fault(
            'mixed-spec', f'The episodes were recorded with {len(actions)} action specs; split the bag.'
        )
    if len(calibrations) > 1:
        report.warn('calibration', f'The arm was calibrated anew during the bag: {", ".join(calibrations)}.')
    if spec is not None and hashes and spec.hash not in hashes:
        lines = named.diff(spec, ('bag', 'expected')) if named is not None else []
        detail = f': {"; ".join(lines)}' if lines else ''
        report.fault(
            'spec-mismatch',
            f'The bag was recorded with the observation {hashes[0][:12]}, expected {spec.hash[:12]}{detail}.',
        )
    elif spec is None and named is None and hashes:
        report.warn(
            'spec-unknown',
            f'The observation {hashes[0][:12]} is none of the presets and the bag does not carry it.',
        )
    if actions and ActionSpec().hash not in actions:
        report.warn('action-spec', f'The action spec {actions[0][:12]} is not the default one.')
    if starts and not calibrations:
        report.warn('calibration', 'No episode names the calibration of the arm.')


def _check_parity(paths: list[Path | str], spec: ObservationSpec, report: CheckReport) -> None:
    found = check_parity(paths, spec, namespace=report.namespace)
    report.parity = {
        'compared': found.compared,
        'equal': found.equal,
        'lost': len(found.lost),
        'unseen': found.unseen,
    }
    if found.different:
        report.fault(
            'parity',
            f'{len(found.different)} of {found.compared} observations differ from what the policy saw, the first at '
            f'step {found.different[0][1]} of episode {found.different[0][0]}.',
        )
    if found.lost:
        episode, index, reason = found.lost[0]
        report.warn(
            'parity-lost',
            f'{len(found.lost)} observations that the policy saw cannot be rebuilt, the first at step {index} of '
            f'episode {episode}: {reason}.',
        )
