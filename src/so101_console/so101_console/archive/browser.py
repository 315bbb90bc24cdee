# SPDX-License-Identifier: Apache-2.0
"""The episode browser: the episodes that lie in bags, and one of them step by step. No ROS needed.

A bag is read once, and what the list needs is kept until the file changes; one that is being recorded is listed too.
A picture is looked for around the time of its step only, and those of the next second come with it.
"""

from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
import threading
import time
from typing import Any

from so101_bags.storage import BagError, DecodeError, find_bags
from so101_console.archive.recorded import pictures_of, read_bag, RecordedEpisode

MOST_BAGS = 20
"""The newest bags are listed."""
MOST_PICTURES = 600
"""Kept as JPEG."""
GROWING_S = 3.0
"""A bag that is being recorded is read again no sooner than after so long [s]."""


class EpisodeBrowser:
    """Reads bags when somebody asks; keeps what it has read of a bag until the bag changes."""

    def __init__(self, folder: str) -> None:
        self._folders = [Path(folder).expanduser()]
        self._lock = threading.Lock()
        self._read: dict[Path, tuple[float, float, list[RecordedEpisode]]] = {}
        self._pictures: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._reader: threading.Thread | None = None
        self._reading: dict[str, Any] | None = None
        self.problems: list[str] = []
        """Why bags are not in the list, a sentence each."""

    def also_in(self, folder: Path) -> None:
        """Look in another folder too, such as that of the recorder that runs; the two last ones are remembered."""
        if folder not in self._folders:
            self._folders = [self._folders[0], *self._folders[1:][-1:], folder]

    def look(self) -> dict[str, Any]:
        """Begin to look through the bags, unless that goes on already; return what is known by now.

        `reading` says how far it is, and is None when all is in `rows`.
        """
        if self._reader is None or not self._reader.is_alive():
            if self._reading is not None:  # it has ended since somebody asked the last time
                self._reading = None
                return self._known()
            self._reading = {'done': 0, 'of': 0, 'bag': ''}
            self._reader = threading.Thread(target=self._look, name='episode-browser', daemon=True)
            self._reader.start()
        return self._known()

    def _known(self) -> dict[str, Any]:
        read = dict(self._read)
        newest = sorted(read, key=lambda bag: read[bag][0], reverse=True)
        rows = [episode.row() for bag in newest for episode in read[bag][2][::-1]]
        return {'rows': rows, 'problems': self.problems, 'reading': self._reading}

    def _look(self) -> None:
        with self._lock:
            self._recorded()

    def episodes(self) -> list[dict[str, Any]]:
        """Return a line for each episode, the newest first."""
        with self._lock:
            return [episode.row() for episode in self._recorded()]

    def episode(self, key: str) -> dict[str, Any] | None:
        """Return all of an episode but its pictures."""
        episode = self.find(key)
        return None if episode is None else episode.account()

    def frame(self, key: str, index: int, camera: int = 0) -> bytes | None:
        """Return the picture of a camera, by its place among those of the episode, that a step names as JPEG."""
        episode = self.find(key)
        if episode is None or camera >= len(episode.cameras):
            return None
        with self._lock:
            if (key, camera, index) not in self._pictures:
                self._keep(key, camera, pictures_of(episode, index, camera))
            return self._pictures.get((key, camera, index))

    def find(self, key: str) -> RecordedEpisode | None:
        """Return an episode; what has been read is not read again to find it."""
        known = [episode for *_, episodes in list(self._read.values()) for episode in episodes]
        found = next((episode for episode in known if episode.key == key), None)
        if found is not None:
            return found
        with self._lock:
            return next((episode for episode in self._recorded() if episode.key == key), None)

    def _keep(self, key: str, camera: int, pictures: dict[int, bytes]) -> None:
        for index, picture in pictures.items():
            self._pictures[key, camera, index] = picture
        while len(self._pictures) > MOST_PICTURES:
            self._pictures.popitem(last=False)

    def _recorded(self) -> list[RecordedEpisode]:
        found: list[RecordedEpisode] = []
        self.problems, problems = [], []
        bags, left = self._newest()
        for number, bag in enumerate(bags):
            if self._reading is not None:
                self._reading = {'done': number, 'of': len(bags), 'bag': bag.name}
            try:
                self._read_again(bag)
            except (BagError, DecodeError, OSError) as error:
                problems.append(str(error) or f'{bag.name} is damaged: run bag-fix on it.')
                self._read.pop(bag, None)
                continue
            found += self._read[bag][2][::-1]
        for gone in set(self._read) - set(bags):
            del self._read[gone]
        if left:
            problems.append(f'{left} older bags are not listed.')
        self.problems = problems
        return found

    def _read_again(self, bag: Path) -> None:
        """Read a bag that has changed; one that grows not each time that it does."""
        known, now = self._read.get(bag), time.monotonic()
        changed = max(path.stat().st_mtime for path in [bag, *bag.glob('*')])
        if known is None or (known[0] != changed and now - known[1] > GROWING_S):
            self._read[bag] = changed, now, read_bag(bag)

    def _newest(self) -> tuple[list[Path], int]:
        """Return the bags to list, the newest first, and how many older ones there are."""
        bags = [bag for folder in self._folders for bag in _bags_in(folder)]
        newest = sorted(dict.fromkeys(bags), key=lambda bag: bag.stat().st_mtime, reverse=True)
        return newest[:MOST_BAGS], max(len(newest) - MOST_BAGS, 0)


def _bags_in(folder: Path) -> Iterable[Path]:
    try:
        return [bag for bag in find_bags(folder) if bag.is_dir()]
    except (BagError, OSError):
        return []
