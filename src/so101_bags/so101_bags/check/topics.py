# SPDX-License-Identifier: Apache-2.0
"""Rates, gaps and clocks of the topics of a bag."""

from array import array
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from so101_bags.arms import ArmTopics
from so101_bags.cdr import LITTLE_ENDIAN, read_stamp
from so101_bags.check.report import CheckLimits, CheckReport, TopicRow
from so101_bags.raw import RawMessage

Stamps = npt.NDArray[np.int64]


class TopicTimes:
    """When the messages of one topic were stamped, and when they were received."""

    def __init__(self, topic: str, msgtype: str, stamped: bool) -> None:
        self.topic, self.msgtype, self._stamped = topic, msgtype, stamped
        self._logs, self._stamps = array('q'), array('q')

    def push(self, message: RawMessage) -> None:
        """Take a message."""
        self._logs.append(message.log_ns)
        if self._stamped and message.data[:2] == LITTLE_ENDIAN and len(message.data) >= 12:
            self._stamps.append(read_stamp(message.data))

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
