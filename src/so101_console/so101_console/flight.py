# SPDX-License-Identifier: Apache-2.0
"""One recorded episode: its line in the list, and its steps in words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
import statistics
from typing import Any

from so101_bags.messages import DeltaMessage
from so101_contract.episodes import Source
from so101_contract.records import StepRecord

WHO: Mapping[int, str] = {Source.POLICY: 'policy', Source.TELEOP: 'person'}


@dataclass
class Flight:
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
