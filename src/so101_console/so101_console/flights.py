# SPDX-License-Identifier: Apache-2.0
"""The flight recorder: the episodes that lie in bags, and one of them step by step. No ROS needed.

A bag is read once, and what the list needs is kept until the file changes. A picture is looked for around the time
of its step only, and those of the next second come with it.
"""

from collections import OrderedDict
from collections.abc import Sequence
import logging
from pathlib import Path
import threading
from typing import Any

import cv2
import numpy as np

from so101_bags.messages import Decoders, ImageMessage
from so101_bags.storage import BagError, DecodeError, find_bags, open_bags, RawBag, RawMessage
from so101_console.flight import Flight
from so101_contract.episodes import EventKind, NO_EPISODE
from so101_contract.errors import ImageError
from so101_contract.image import message_to_rgb
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


class Flights:
    """Reads bags when somebody asks; keeps what it has read of a bag until the bag changes."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._lock = threading.Lock()
        self._read: dict[Path, tuple[float, list[Flight]]] = {}
        self._pictures: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self.problems: list[str] = []
        """Why bags are not in the list, a sentence each."""

    def episodes(self) -> list[dict[str, Any]]:
        """Return a line for each episode, the newest first."""
        with self._lock:
            return [flight.row() for flight in self._flights()]

    def episode(self, key: str) -> dict[str, Any] | None:
        """Return an episode's steps."""
        flight = self._find(key)
        return None if flight is None else {**flight.row(), 'steps': flight.lines()}

    def frame(self, key: str, index: int) -> bytes | None:
        """Return the picture that a step names as JPEG."""
        flight = self._find(key)
        if flight is None:
            return None
        with self._lock:
            if (key, index) not in self._pictures:
                self._keep(key, _pictures(flight, index))
            return self._pictures.get((key, index))

    def _keep(self, key: str, pictures: dict[int, bytes]) -> None:
        for index, picture in pictures.items():
            self._pictures[key, index] = picture
        while len(self._pictures) > MOST_PICTURES:
            self._pictures.popitem(last=False)

    def _find(self, key: str) -> Flight | None:
        """Return an episode; what has been read is not read again to find it."""
        with self._lock:
            known = [flight for _, flights in self._read.values() for flight in flights]
            found = next((flight for flight in known if flight.key == key), None)
            return found or next((flight for flight in self._flights() if flight.key == key), None)

    def _flights(self) -> list[Flight]:
        found: list[Flight] = []
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


def _read(bag: Path) -> list[Flight]:
    flights: dict[tuple[str, int], Flight] = {}
    status: dict[str, RawMessage] = {}
    with open_bags(bag) as raw:
        decoders = Decoders(raw.topics.values())
        step, delta, event = decoders.step(), decoders.delta(), decoders.event()

        def flight(topic: str, name: str, number: int) -> Flight:
            arm = topic.removesuffix(name)
            return flights.setdefault((arm, number), Flight(bag, arm, number))

        for message in raw.messages(_named(raw, READ)):
            topic = message.topic
            if topic.endswith(topics.STEP):
                seen = step(message.data)
                flight(topic, topics.STEP, seen.episode).add_step(seen, message.log_ns)
            elif topic.endswith(topics.EE_DELTA_CMD):
                action = delta(message.data)
                flight(topic, topics.EE_DELTA_CMD, action.episode).actions[action.index] = action
            elif topic.endswith(topics.ARM_STATUS):
                status[topic.removesuffix(topics.ARM_STATUS)] = message
            else:
                said = event(message.data)
                kind, about = EventKind(said.kind), flight(topic, topics.EPISODE_EVENT, said.episode)
                now = _counters(decoders, status.get(about.arm))
                if kind is EventKind.START:
                    about.before = now
                elif kind.outcome is not None:
                    about.end(kind.outcome.name.lower().replace('_', ' '), said.reason, now)
    whole = [flight for key, flight in flights.items() if key[1] != NO_EPISODE and flight.steps]
    return sorted(whole, key=lambda flight: flight.steps[0].stamp_ns)


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


def _pictures(flight: Flight, index: int) -> dict[int, bytes]:
    """Return the pictures of a step and of those after it as JPEG."""
    first = next((n for n, step in enumerate(flight.steps) if step.index == index), None)
    if first is None:
        return {}
    begin = flight.heard_ns[first]
    wanted = {
        step.image_stamps_ns[0]: step.index
        for step, heard in zip(flight.steps[first:], flight.heard_ns[first:], strict=True)
        if step.image_stamps_ns and heard <= begin + AHEAD_NS
    }
    found: dict[int, bytes] = {}
    try:
        with open_bags(flight.bag) as raw:
            decode = Decoders(raw.topics.values()).image()
            window = begin - SLACK_NS, begin + AHEAD_NS + SLACK_NS
            for message in raw.messages([f'{flight.arm}{topics.IMAGE}'], window_ns=window):
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
