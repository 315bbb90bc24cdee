# SPDX-License-Identifier: Apache-2.0
"""The last episodes of this run, kept so that they can be looked at again where nothing is recorded.

Steps and actions are small. Pictures are those that an open page was shown anyway, so that nothing is encoded for it.
"""

from bisect import bisect_left
from collections import deque, OrderedDict
from pathlib import Path
import threading
from typing import Any

from so101_console.archive.recorded import MOST_STEPS, RecordedEpisode
from so101_console.coach import FAILED
from so101_contract.messages import EpisodeEventRecord, ExecutedAction, StepRecord
from so101_contract.session import EventKind

KEPT = 40
"""Episodes."""
MOST_BYTES = 48 * 2**20
"""Of pictures of all cameras."""
NEAR_NS = 500_000_000
"""A picture that is further from that of the step is another one."""


class Memory:
    """The newest episodes; the node's thread and the server's both come here."""

    def __init__(self, cameras: tuple[str, ...] = ()) -> None:
        self._cameras = cameras
        self._episodes: OrderedDict[tuple[int, int], RecordedEpisode] = OrderedDict()
        self._pictures: dict[str, deque[tuple[int, bytes]]] = {name: deque() for name in cameras}
        self._bytes = 0
        self._lock = threading.Lock()
        self._value: float | None = None
        self.life = 0
        """Of the session, whose numbers begin anew with each."""

    def step(self, step: StepRecord) -> None:
        """Take a step. With it begins an episode whose START was not heard, as by a console that came later."""
        episode = self._of(step.episode) or self._begin(step.episode)
        if len(episode.steps) < MOST_STEPS:
            episode.add_step(step, step.stamp_ns)
            if self._value is not None:
                episode.values[step.index] = self._value

    def action(self, action: ExecutedAction) -> None:
        """Take what the arm was told."""
        episode = self._of(action.episode)
        if episode is not None and len(episode.actions) < MOST_STEPS:
            episode.actions[action.index] = action

    def event(self, event: EpisodeEventRecord, life: int) -> None:
        """Take what happened to an episode; one begins with its START, which its first step may overtake."""
        self.life = life
        episode = self._of(event.episode)
        if event.kind is EventKind.START and (episode is None or episode.events):
            episode = self._begin(event.episode)
        if episode is not None:
            episode.happened(event, {})

    def value(self, q_mean: float) -> None:
        """Note the mean value of the learner's batches."""
        self._value = q_mean

    def picture(self, camera: str, stamp_ns: int, jpeg: bytes) -> None:
        """Keep a picture that pages are shown."""
        with self._lock:
            kept = self._pictures.get(camera)
            if kept is None or (kept and kept[-1][0] >= stamp_ns):
                return
            kept.append((stamp_ns, jpeg))
            self._bytes += len(jpeg)
            while self._bytes > MOST_BYTES:
                oldest = min((one for one in self._pictures.values() if one), key=lambda one: one[0][0])
                self._bytes -= len(oldest.popleft()[1])

    def key(self, life: int, number: int) -> str:
        """Return what a page names an episode by; empty where it is not kept, or has no steps."""
        episode = self._episodes.get((life, number))
        return episode.key if episode is not None and episode.steps else ''

    def find(self, key: str) -> RecordedEpisode | None:
        """Return the episode with this name."""
        return next((one for one in list(self._episodes.values()) if one.key == key), None)

    def account(self, key: str) -> dict[str, Any] | None:
        """Return all of an episode but its pictures; None where it is not kept."""
        episode = self.find(key)
        if episode is None:
            return None
        return {**episode.account(), 'label': f'This run · {episode.number}'}

    def frame(self, key: str, index: int, camera: int) -> bytes | None:
        """Return the picture nearest to that of a step as JPEG; None where no page was shown one about then."""
        episode = self.find(key)
        if episode is None or camera >= len(self._cameras):
            return None
        step = next((one for one in list(episode.steps) if one.index == index), None)
        if step is None:
            return None
        stamps = step.image_stamps_ns
        wanted = stamps[camera] if camera < len(stamps) else step.stamp_ns
        with self._lock:
            kept = list(self._pictures[self._cameras[camera]])
        place = bisect_left(kept, wanted, key=lambda one: one[0])
        near = min(kept[max(place - 1, 0) : place + 1], key=lambda one: abs(one[0] - wanted), default=None)
        return near[1] if near is not None and abs(near[0] - wanted) <= NEAR_NS else None

    def _dispensable(self) -> tuple[int, int]:
        """Return the oldest episode, unless it is the last one that failed: somebody will ask for that."""
        failed = [key for key, one in self._episodes.items() if one.outcome in FAILED]
        return next(key for key in self._episodes if key not in failed[-1:])

    def _begin(self, number: int) -> RecordedEpisode:
        made = RecordedEpisode(Path(f'this run, {self.life}'), '/', number, cameras=self._cameras)
        self._episodes[self.life, number] = made
        while len(self._episodes) > KEPT:
            del self._episodes[self._dispensable()]
        return made

    def _of(self, number: int) -> RecordedEpisode | None:
        return self._episodes.get((self.life, number))
