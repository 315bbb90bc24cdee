# SPDX-License-Identifier: Apache-2.0
"""The episode browser: the episodes that lie in bags, and one of them step by step. No ROS needed.

A bag is read once, and what the list needs is kept until the file changes. A picture is looked for around the time
of its step only, and those of the next second come with it.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import logging
from pathlib import Path
import statistics
import threading
from typing import Any

import cv2
import numpy as np

from so101_bags.messages import Decoders, DeltaMessage, ImageMessage
from so101_bags.storage import BagError, DecodeError, find_bags, open_bags, RawBag, RawMessage
from so101_contract.errors import ImageError
from so101_contract.image import message_to_rgb
from so101_contract.messages import StepRecord
from so101_contract.session import EventKind, NO_EPISODE, Source
from so101_interfaces_py import topics

_log = logging.getLogger(__name__)

MOST_BAGS = 20
"""The newest bags are listed."""
MOST_PICTURES = 600
"""Kept as JPEG."""
SLACK_NS = 1_000_000_000
"""A picture is received at most this long before or after its step."""
AHEAD_NS = 2_000_000_000
"""So much of the replay is read at a time."""
READ = (topics.STEP, topics.EE_DELTA_CMD, topics.EPISODE_EVENT, topics.ARM_STATUS)


WHO: Mapping[int, str] = {Source.POLICY: 'policy', Source.TELEOP: 'human'}


@dataclass
class RecordedEpisode:
    """One episode of one arm of a bag.

    Attributes:
        bag: its folder.
        arm: namespace of the arm, with a slash at its end.
        number: of the episode.
        outcome: how it ended; empty where the bag does not say.
        reason: why.
        steps: in order.
        heard_ns: when each was received [ns].
        actions: by the index of the step that they answer.
        before: counters of the arm when it began.
        grown: by how much they grew until it ended.
    """

    bag: Path
    arm: str
    number: int
    outcome: str = ''
    reason: str = ''
    steps: list[StepRecord] = field(default_factory=list)
    heard_ns: list[int] = field(default_factory=list)
    actions: dict[int, DeltaMessage] = field(default_factory=dict)
    before: Mapping[str, int] = field(default_factory=dict)
    grown: Mapping[str, int] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What a page names it by."""
        return f'{self.bag.name}{self.arm}{self.number}'

    def add_step(self, step: StepRecord, heard_ns: int) -> None:
        """Add the next step."""
        self.steps.append(step)
        self.heard_ns.append(heard_ns)

    def end(self, outcome: str, reason: str, counters: Mapping[str, int]) -> None:
        """Note an outcome; a late label replaces the one before, but not what was counted."""
        if not self.outcome and self.before:
            self.grown = {name: counters[name] - self.before.get(name, 0) for name in counters}
        self.outcome, self.reason = outcome, reason

    def row(self) -> dict[str, Any]:
        """Return its line in the list."""
        said = [self.actions[index].source for index in sorted(self.actions)]
        by_hand = [source == Source.TELEOP for source in said]
        runs = sum(now and not before for before, now in zip([False, *by_hand], by_hand, strict=False))
        acted = sum(source in WHO for source in said)
        latencies = [
            (action.stamp_ns - step.stamp_ns) / 1e6
            for step in self.steps
            if (action := self.actions.get(step.index)) is not None and action.source in WHO
        ]
        return {
            'key': self.key,
            'episode': self.number,
            'label': f'{self.bag.name} · {self.number}',
            'outcome': self.outcome,
            'reason': self.reason,
            'steps': acted,
            'intervened': sum(by_hand),
            'interventions': runs,
            'dropped': max(len(self.steps) - 1, 0) - acted,
            'latency_ms': round(statistics.median(latencies), 1) if latencies else None,
            **self.grown,
        }

    def lines(self) -> list[dict[str, Any]]:
        """Return what each step is called in a replay."""
        return [_line(step, self.actions.get(step.index)) for step in self.steps]


def _line(step: StepRecord, action: DeltaMessage | None) -> dict[str, Any]:
    who = 'nobody' if action is None else WHO.get(action.source, 'nobody')
    if action is None or who == 'nobody':
        said = 'Nobody acted: the arm held, or the episode ended'
    else:
        x, y, z = (1000.0 * metre for metre in action.translation)
        said = f'{who.capitalize()}: {x:+.0f}, {y:+.0f}, {z:+.0f} mm, gripper {action.gripper:.0%} open'
    reward = f' · reward {step.reward:g}' if step.reward else ''
    return {'index': step.index, 'who': who, 'said': said + reward}


class EpisodeBrowser:
    """Reads bags when somebody asks; keeps what it has read of a bag until the bag changes."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._lock = threading.Lock()
        self._read: dict[Path, tuple[float, list[RecordedEpisode]]] = {}
        self._pictures: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self.problems: list[str] = []
        """Why bags are not in the list, a sentence each."""

    def episodes(self) -> list[dict[str, Any]]:
        """Return a line for each episode, the newest first."""
        with self._lock:
            return [episode.row() for episode in self._recorded()]

    def episode(self, key: str) -> dict[str, Any] | None:
        """Return an episode's steps."""
        episode = self._find(key)
        return None if episode is None else {**episode.row(), 'steps': episode.lines()}

    def frame(self, key: str, index: int) -> bytes | None:
        """Return the picture that a step names as JPEG."""
        episode = self._find(key)
        if episode is None:
            return None
        with self._lock:
            if (key, index) not in self._pictures:
                self._keep(key, _pictures(episode, index))
            return self._pictures.get((key, index))

    def _keep(self, key: str, pictures: dict[int, bytes]) -> None:
        for index, picture in pictures.items():
            self._pictures[key, index] = picture
        while len(self._pictures) > MOST_PICTURES:
            self._pictures.popitem(last=False)

    def _find(self, key: str) -> RecordedEpisode | None:
        """Return an episode; what has been read is not read again to find it."""
        with self._lock:
            known = [episode for _, episodes in self._read.values() for episode in episodes]
            found = next((episode for episode in known if episode.key == key), None)
            return found or next((episode for episode in self._recorded() if episode.key == key), None)

    def _recorded(self) -> list[RecordedEpisode]:
        found: list[RecordedEpisode] = []
        self.problems = []
        for bag in self._newest():
            if not (bag / 'metadata.yaml').exists():  # it is written when a bag is closed
                self.problems.append(
                    f'{bag.name} is still being recorded, or its recorder was killed: wait, or run bag-fix on it.'
                )
                continue
            try:
                changed = max(path.stat().st_mtime for path in [bag, *bag.glob('*')])
                if self._read.get(bag, (0.0, []))[0] != changed:
                    self._read[bag] = changed, _read(bag)
            except (BagError, DecodeError, OSError, MemoryError) as error:
                self.problems.append(str(error) or f'{bag.name} is damaged: run bag-fix on it.')
                continue
            found += self._read[bag][1][::-1]
        return found

    def _newest(self) -> list[Path]:
        try:
            bags = [bag for bag in find_bags(self._folder) if bag.is_dir()]
            return sorted(bags, key=lambda bag: bag.stat().st_mtime, reverse=True)[:MOST_BAGS]
        except (BagError, OSError):
            return []


def _read(bag: Path) -> list[RecordedEpisode]:
    episodes: dict[tuple[str, int], RecordedEpisode] = {}
    status: dict[str, RawMessage] = {}
    with open_bags(bag) as raw:
        decoders = Decoders(raw.topics.values())
        step, delta, event = decoders.step(), decoders.delta(), decoders.event()

        def recorded(topic: str, name: str, number: int) -> RecordedEpisode:
            arm = topic.removesuffix(name)
            return episodes.setdefault((arm, number), RecordedEpisode(bag, arm, number))

        for message in raw.messages(_named(raw, READ)):
            topic = message.topic
            if topic.endswith(topics.STEP):
                seen = step(message.data)
                recorded(topic, topics.STEP, seen.episode).add_step(seen, message.log_ns)
            elif topic.endswith(topics.EE_DELTA_CMD):
                action = delta(message.data)
                recorded(topic, topics.EE_DELTA_CMD, action.episode).actions[action.index] = action
            elif topic.endswith(topics.ARM_STATUS):
                status[topic.removesuffix(topics.ARM_STATUS)] = message
            else:
                said = event(message.data)
                kind, about = EventKind(said.kind), recorded(topic, topics.EPISODE_EVENT, said.episode)
                now = _counters(decoders, status.get(about.arm))
                if kind is EventKind.START:
                    about.before = now
                elif kind.outcome is not None:
                    about.end(kind.outcome.name.lower().replace('_', ' '), said.reason, now)
    whole = [episode for key, episode in episodes.items() if key[1] != NO_EPISODE and episode.steps]
    return sorted(whole, key=lambda episode: episode.steps[0].stamp_ns)


def _counters(decoders: Decoders, status: RawMessage | None) -> dict[str, int]:
    if status is None:
        return {}
    try:
        arm = decoders.fields(status.msgtype, ('clamped', 'lost', 'corrupt', 'late'))(status.data)
    except BagError:  # bytes that are none, or a message of a time before these fields
        return {}
    return {'clamped': int(arm['clamped']), 'lost': int(arm['lost'] + arm['corrupt'] + arm['late'])}


def _named(raw: RawBag, names: Sequence[str]) -> list[str]:
    return [topic for topic in raw.topics if topic.endswith(tuple(f'/{name}' for name in names))]


def _pictures(episode: RecordedEpisode, index: int) -> dict[int, bytes]:
    """Return the pictures of a step and of those after it as JPEG."""
    first = next((n for n, step in enumerate(episode.steps) if step.index == index), None)
    if first is None:
        return {}
    begin = episode.heard_ns[first]
    wanted = {
        step.image_stamps_ns[0]: step.index
        for step, heard in zip(episode.steps[first:], episode.heard_ns[first:], strict=True)
        if step.image_stamps_ns and heard <= begin + AHEAD_NS
    }
    found: dict[int, bytes] = {}
    try:
        with open_bags(episode.bag) as raw:
            decode = Decoders(raw.topics.values()).image()
            window = begin - SLACK_NS, begin + AHEAD_NS + SLACK_NS
            for message in raw.messages([f'{episode.arm}{topics.IMAGE}'], window_ns=window):
                image = decode(message.data)
                if image.stamp_ns in wanted and (picture := _jpeg(image)) is not None:
                    found[wanted[image.stamp_ns]] = picture
                if len(found) == len(wanted):
                    break
    except (BagError, DecodeError) as error:
        _log.warning('%s', error)
    return found


def _jpeg(image: ImageMessage) -> bytes | None:
    try:
        rgb = message_to_rgb(image.height, image.width, image.encoding, image.step, image.data)
    except ImageError as error:
        _log.warning('%s', error)
        return None
    done, encoded = cv2.imencode('.jpg', cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGR))
    return encoded.tobytes() if done else None
