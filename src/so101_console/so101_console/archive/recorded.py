# SPDX-License-Identifier: Apache-2.0
"""One bag, read for people: its episodes, what happened in each step, and the pictures around a step. No ROS needed."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
import logging
import math
from pathlib import Path
import statistics
from typing import Any

import cv2
import numpy as np

from so101_bags.messages import Decoders
from so101_bags.metadata import observation_of_bag, read_session_metadata
from so101_bags.storage import BagError, DecodeError, open_bags, RawBag, RawMessage
from so101_contract.errors import ContractError, ImageError
from so101_contract.messages import EpisodeEventRecord, ExecutedAction, image_pixels, StepRecord
from so101_contract.session import EventKind, NO_EPISODE, Source
from so101_interfaces_py import topics
from so101_interfaces_py.conversions import stamp_to_ns

_log = logging.getLogger(__name__)

SLACK_NS = 1_000_000_000
"""A picture is received at most this long before or after its step."""
AHEAD_NS = 2_000_000_000
"""So much of the replay is read at a time."""
MOST_STEPS, MOST_EVENTS = 5000, 200
"""Of one episode that a page is told of."""
SAID = (topics.SUCCESS_OPINION, topics.LEARNER_STATUS)
READ = (topics.STEP, topics.EE_DELTA_CMD, topics.EPISODE_EVENT, topics.ARM_STATUS, *SAID)

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
        began_ns: when it was said to begin [ns]; 0 where nobody did.
        events: what happened to it.
        scores: what a classifier said of the pictures, by the index of the step: probability of success.
        values: mean value of the learner's batches when a step began, by its index.
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
    began_ns: int = 0
    events: list[EpisodeEventRecord] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)
    values: dict[int, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What a page names it by."""
        return f'{self.bag}{self.arm}{self.number}'

    def add_step(self, step: StepRecord, heard_ns: int) -> None:
        """Add the next step."""
        self.steps.append(step)
        self.heard_ns.append(heard_ns)

    def happened(self, event: EpisodeEventRecord, counters: Mapping[str, int]) -> None:
        """Note an event, and how the arm's counters stand."""
        if len(self.events) < MOST_EVENTS:
            self.events.append(event)
        if event.kind is EventKind.START:
            self.began_ns, self.before = event.stamp_ns, counters
        elif event.kind.outcome is not None:
            self.end(event.kind.outcome.name.lower().replace('_', ' '), event.reason, counters)

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
            'stamp': str(self.began_ns),
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

    def account(self) -> dict[str, Any]:
        """Return all that a replay shows but the pictures: steps, events, and where they stand on the time line."""
        steps = self.steps[:MOST_STEPS]
        first = steps[0].stamp_ns if steps else 0
        places = {step.index: n for n, step in enumerate(steps)}
        marks = [
            {'step': place, 'said': _said(event)}
            for event in self.events
            if (place := _place(event, places, len(steps))) is not None
        ]
        return {
            **self.row(),
            'steps': [self._line(step, first) for step in steps],
            'events': marks,
            'cameras': list(self.cameras),
        }

    def _line(self, step: StepRecord, first_ns: int) -> dict[str, Any]:
        action = self.actions.get(step.index)
        who = 'nobody' if action is None else WHO.get(action.source, 'nobody')
        moved = None
        if action is None or who == 'nobody':
            said = 'Nobody acted: the arm held, or the episode ended'
        else:
            x, y, z = (1000.0 * metre for metre in action.translation)
            said = f'{who.capitalize()}: {x:+.0f}, {y:+.0f}, {z:+.0f} mm, gripper {action.opening:.0%} open'
            moved = [_rounded(value) for value in (x, y, z, action.opening)]
        reward = f' · reward {step.reward:g}' if step.reward else ''
        return {
            'index': step.index,
            'at': round((step.stamp_ns - first_ns) / 1e9, 3),
            'who': who,
            'said': said + reward,
            'action': moved,
            'score': _rounded(self.scores.get(step.index, math.nan)),
            'q': _rounded(self.values.get(step.index, math.nan)),
        }


def _rounded(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None


def _said(event: EpisodeEventRecord) -> str:
    name = event.kind.name.lower().replace('_', ' ')
    return f'{name}: {event.reason[:200]}' if event.reason else name


def _place(event: EpisodeEventRecord, places: Mapping[int, int], steps: int) -> int | None:
    """Return by which step an event stands; what came after the end, a late label say, stands at the end."""
    if event.kind in (EventKind.RESET_START, EventKind.RESET_DONE) or not steps:
        return None
    late = event.kind.outcome is not None and event.index == 0
    return steps - 1 if late else places.get(event.index, steps - 1)


def read_bag(bag: Path) -> list[RecordedEpisode]:
    """Return the episodes of a bag, in the order in which they began.

    Raises:
        BagError, DecodeError, OSError: it cannot be read.
    """
    with open_bags(bag) as raw:
        return _Reader(bag, raw).read()


class _Reader:
    """Goes through a bag once."""

    def __init__(self, bag: Path, raw: RawBag) -> None:
        self._bag, self._raw = bag, raw
        self._decoders = decoders = Decoders(raw.topics.values())
        self._step, self._action, self._event = decoders.step(), decoders.action(), decoders.event()
        self._opinion = self._optional(topics.SUCCESS_OPINION, ('episode', 'index', 'probability'))
        self._learner = self._optional(topics.LEARNER_STATUS, ('q_mean',))
        self._episodes: dict[tuple[str, int], RecordedEpisode] = {}
        self._status: dict[str, RawMessage] = {}
        self._value: dict[str, float] = {}
        self._hashes: set[str] = set()

    def read(self) -> list[RecordedEpisode]:
        """Return the episodes."""
        for message in self._raw.messages(_named(self._raw, READ)):
            with suppress(ContractError):  # such as an event of a kind that only a newer version knows
                self._take(message)
        spec = observation_of_bag(sorted(self._hashes), read_session_metadata(self._bag))
        for episode in self._episodes.values():
            named = max((len(step.image_stamps_ns) for step in episode.steps), default=0)
            known = () if spec is None else spec.camera_names
            episode.cameras = tuple(
                known if len(known) == named else _cameras(self._raw, episode.arm)[:named]
            )
        whole = [one for key, one in self._episodes.items() if key[1] != NO_EPISODE and one.steps]
        return sorted(whole, key=lambda episode: episode.steps[0].stamp_ns)

    def _optional(self, name: str, fields: Sequence[str]) -> Any:
        """Return a decoder of what a bag may lack, or has in another form."""
        kinds = [topic.msgtype for path, topic in self._raw.topics.items() if path.endswith(f'/{name}')]
        with suppress(BagError):
            return self._decoders.fields(kinds[0], fields) if kinds else None
        return None

    def _of(self, topic: str, name: str, number: int) -> RecordedEpisode:
        arm = topic.removesuffix(name)
        return self._episodes.setdefault((arm, number), RecordedEpisode(self._bag, arm, number))

    def _take(self, message: RawMessage) -> None:
        topic = message.topic
        if topic.endswith(topics.STEP):
            seen = self._step(message.data)
            episode = self._of(topic, topics.STEP, seen.episode)
            episode.add_step(seen, message.log_ns)
            if (value := self._value.get(episode.arm)) is not None:
                episode.values[seen.index] = value
        elif topic.endswith(topics.EE_DELTA_CMD):
            told = self._action(message.data)
            self._of(topic, topics.EE_DELTA_CMD, told.episode).actions[told.index] = told
        elif topic.endswith(topics.ARM_STATUS):
            self._status[topic.removesuffix(topics.ARM_STATUS)] = message
        elif topic.endswith(topics.EPISODE_EVENT):
            said = self._event(message.data)
            about = self._of(topic, topics.EPISODE_EVENT, said.episode)
            if said.kind is EventKind.START:
                self._hashes.add(said.observation_hash)
            about.happened(said, _counters(self._decoders, self._status.get(about.arm)))
        else:
            with suppress(DecodeError):
                self._take_word(message)

    def _take_word(self, message: RawMessage) -> None:
        """Take what a classifier or a learner says, where it can be read."""
        topic = message.topic
        if topic.endswith(topics.SUCCESS_OPINION) and self._opinion is not None:
            opinion = self._opinion(message.data)
            self._of(topic, topics.SUCCESS_OPINION, opinion.episode).scores[opinion.index] = (
                opinion.probability
            )
        elif topic.endswith(topics.LEARNER_STATUS) and self._learner is not None:
            arm = topic.removesuffix(topics.LEARNER_STATUS)
            self._value[arm] = self._learner(message.data).q_mean


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


def pictures_of(episode: RecordedEpisode, index: int, camera: int) -> dict[int, bytes]:
    """Return the pictures of a camera of a step and of those after it as JPEG, by the index of the step."""
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
