# SPDX-License-Identifier: Apache-2.0
"""The episode browser: the episodes that lie in bags, and one of them step by step. No ROS needed.

A bag is read once, and what the list needs is kept until the file changes; one that is being recorded is listed too.
A picture is looked for around the time of its step only, and those of the next second come with it.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
import logging
from pathlib import Path
import statistics
import threading
import time
from typing import Any

import cv2
import numpy as np

from so101_bags.messages import Decoders
from so101_bags.metadata import observation_of_bag, read_session_metadata
from so101_bags.storage import BagError, DecodeError, find_bags, open_bags, RawBag, RawMessage
from so101_contract.errors import ContractError, ImageError
from so101_contract.messages import ExecutedAction, image_pixels, StepRecord
from so101_contract.session import EventKind, NO_EPISODE, Source
from so101_interfaces_py import topics
from so101_interfaces_py.conversions import stamp_to_ns

_log = logging.getLogger(__name__)

MOST_BAGS = 20
"""The newest bags are listed."""
MOST_PICTURES = 600
"""Kept as JPEG."""
SLACK_NS = 1_000_000_000
"""A picture is received at most this long before or after its step."""
AHEAD_NS = 2_000_000_000
"""So much of the replay is read at a time."""
GROWING_S = 3.0
"""A bag that is being recorded is read again no sooner than after so long [s]."""
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
        cameras: in the order in which steps name their pictures, what the topics of each begin with.
    """

    bag: Path
    arm: str
    number: int
    outcome: str = ''
    reason: str = ''
    steps: list[StepRecord] = field(default_factory=list)
    heard_ns: list[int] = field(default_factory=list)
    actions: dict[int, ExecutedAction] = field(default_factory=dict)
    before: Mapping[str, int] = field(default_factory=dict)
    grown: Mapping[str, int] = field(default_factory=dict)
    cameras: tuple[str, ...] = ()

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
        acted = [source for source in said if source in WHO]  # a step that nobody answered gives nothing back
        by_hand = [source == Source.TELEOP for source in acted]
        runs = sum(now and not before for before, now in zip([False, *by_hand], by_hand, strict=False))
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
            'steps': len(acted),
            'intervened': sum(by_hand),
            'interventions': runs,
            'dropped': max(len(self.steps) - 1, 0) - len(acted),
            'latency_ms': round(statistics.median(latencies), 1) if latencies else None,
            **self.grown,
        }

    def lines(self) -> list[dict[str, Any]]:
        """Return what each step is called in a replay."""
        return [_line(step, self.actions.get(step.index)) for step in self.steps]


def _line(step: StepRecord, action: ExecutedAction | None) -> dict[str, Any]:
    who = 'nobody' if action is None else WHO.get(action.source, 'nobody')
    if action is None or who == 'nobody':
        said = 'Nobody acted: the arm held, or the episode ended'
    else:
        x, y, z = (1000.0 * metre for metre in action.translation)
        said = f'{who.capitalize()}: {x:+.0f}, {y:+.0f}, {z:+.0f} mm, gripper {action.opening:.0%} open'
    reward = f' · reward {step.reward:g}' if step.reward else ''
    return {'index': step.index, 'who': who, 'said': said + reward}


class EpisodeBrowser:
    """Reads bags when somebody asks; keeps what it has read of a bag until the bag changes."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._lock = threading.Lock()
        self._read: dict[Path, tuple[float, float, list[RecordedEpisode]]] = {}
        self._pictures: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self.problems: list[str] = []
        """Why bags are not in the list, a sentence each."""

    def episodes(self) -> list[dict[str, Any]]:
        """Return a line for each episode, the newest first."""
        with self._lock:
            return [episode.row() for episode in self._recorded()]

    def episode(self, key: str) -> dict[str, Any] | None:
        """Return an episode's steps."""
        episode = self._find(key)
        if episode is None:
            return None
        return {**episode.row(), 'steps': episode.lines(), 'cameras': list(episode.cameras)}

    def frame(self, key: str, index: int, camera: int = 0) -> bytes | None:
        """Return the picture of a camera, by its place among those of the episode, that a step names as JPEG."""
        episode = self._find(key)
        if episode is None or camera >= len(episode.cameras):
            return None
        with self._lock:
            if (key, camera, index) not in self._pictures:
                self._keep(key, camera, _pictures(episode, index, camera))
            return self._pictures.get((key, camera, index))

    def _keep(self, key: str, camera: int, pictures: dict[int, bytes]) -> None:
        for index, picture in pictures.items():
            self._pictures[key, camera, index] = picture
        while len(self._pictures) > MOST_PICTURES:
            self._pictures.popitem(last=False)

    def _find(self, key: str) -> RecordedEpisode | None:
        """Return an episode; what has been read is not read again to find it."""
        with self._lock:
            known = [episode for *_, episodes in self._read.values() for episode in episodes]
            found = next((episode for episode in known if episode.key == key), None)
            return found or next((episode for episode in self._recorded() if episode.key == key), None)

    def _recorded(self) -> list[RecordedEpisode]:
        found: list[RecordedEpisode] = []
        self.problems = []
        for bag in self._newest():
            try:
                self._read_again(bag)
            except (BagError, DecodeError, OSError) as error:
                self.problems.append(str(error) or f'{bag.name} is damaged: run bag-fix on it.')
                continue
            found += self._read[bag][2][::-1]
        return found

    def _read_again(self, bag: Path) -> None:
        """Read a bag that has changed; one that grows not each time that it does."""
        known, now = self._read.get(bag), time.monotonic()
        changed = max(path.stat().st_mtime for path in [bag, *bag.glob('*')])
        if known is None or (known[0] != changed and now - known[1] > GROWING_S):
            self._read[bag] = changed, now, _read(bag)

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
        hashes: set[str] = set()
        step, action, event = decoders.step(), decoders.action(), decoders.event()

        def recorded(topic: str, name: str, number: int) -> RecordedEpisode:
            arm = topic.removesuffix(name)
            return episodes.setdefault((arm, number), RecordedEpisode(bag, arm, number))

        def take(message: RawMessage) -> None:
            topic = message.topic
            if topic.endswith(topics.STEP):
                seen = step(message.data)
                recorded(topic, topics.STEP, seen.episode).add_step(seen, message.log_ns)
            elif topic.endswith(topics.EE_DELTA_CMD):
                told = action(message.data)
                recorded(topic, topics.EE_DELTA_CMD, told.episode).actions[told.index] = told
            elif topic.endswith(topics.ARM_STATUS):
                status[topic.removesuffix(topics.ARM_STATUS)] = message
            else:
                said = event(message.data)
                about = recorded(topic, topics.EPISODE_EVENT, said.episode)
                now = _counters(decoders, status.get(about.arm))
                if said.kind is EventKind.START:
                    hashes.add(said.observation_hash)
                    about.before = now
                elif said.kind.outcome is not None:
                    about.end(said.kind.outcome.name.lower().replace('_', ' '), said.reason, now)

        for message in raw.messages(_named(raw, READ)):
            with suppress(ContractError):  # such as an event of a kind that only a newer version knows
                take(message)
        spec = observation_of_bag(sorted(hashes), read_session_metadata(bag))
        for episode in episodes.values():
            named = max((len(step.image_stamps_ns) for step in episode.steps), default=0)
            known = () if spec is None else spec.camera_names
            episode.cameras = tuple(known if len(known) == named else _cameras(raw, episode.arm)[:named])
    whole = [episode for key, episode in episodes.items() if key[1] != NO_EPISODE and episode.steps]
    return sorted(whole, key=lambda episode: episode.steps[0].stamp_ns)


def _cameras(raw: RawBag, arm: str) -> list[str]:
    """Return the cameras of an arm where the bag does not say in which order steps name them: the wrist's first."""
    prefix, suffix = arm, '/image_raw'
    names = [
        topic.removeprefix(prefix).removesuffix(suffix)
        for topic in raw.topics
        if topic.startswith(prefix) and topic.endswith(suffix)
    ]
    return sorted(names, key=lambda name: (name != topics.WRIST_CAMERA, name))


def _counters(decoders: Decoders, status: RawMessage | None) -> dict[str, int]:
    if status is None:
        return {}
    try:
        arm = decoders.fields(status.msgtype, ('clamped', 'lost', 'corrupt', 'late'))(status.data)
    except BagError:  # bytes that are none, or a message of a time before these fields
        return {}
    return {'clamped': arm.clamped, 'lost': arm.lost + arm.corrupt + arm.late}


def _named(raw: RawBag, names: Sequence[str]) -> list[str]:
    return [topic for topic in raw.topics if topic.endswith(tuple(f'/{name}' for name in names))]


def _pictures(episode: RecordedEpisode, index: int, camera: int) -> dict[int, bytes]:
    """Return the pictures of a camera of a step and of those after it as JPEG."""
    first = next((n for n, step in enumerate(episode.steps) if step.index == index), None)
    if first is None:
        return {}
    begin = episode.heard_ns[first]
    wanted = {
        step.image_stamps_ns[camera]: step.index
        for step, heard in zip(episode.steps[first:], episode.heard_ns[first:], strict=True)
        if len(step.image_stamps_ns) > camera and heard <= begin + AHEAD_NS
    }
    found: dict[int, bytes] = {}
    try:
        with open_bags(episode.bag) as raw:
            decode = Decoders(raw.topics.values()).image()
            window = begin - SLACK_NS, begin + AHEAD_NS + SLACK_NS
            for message in raw.messages(
                [f'{episode.arm}{episode.cameras[camera]}/image_raw'], window_ns=window
            ):
                image = decode(message.data)
                stamp_ns = stamp_to_ns(image.header.stamp)
                if stamp_ns in wanted and (picture := _jpeg(image)) is not None:
                    found[wanted[stamp_ns]] = picture
                if len(found) == len(wanted):
                    break
    except (BagError, DecodeError) as error:
        _log.warning('%s', error)
    return found


def _jpeg(image: Any) -> bytes | None:
    try:
        rgb = image_pixels(image)
    except ImageError as error:
        _log.warning('%s', error)
        return None
    done, encoded = cv2.imencode('.jpg', cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGR))
    return encoded.tobytes() if done else None
