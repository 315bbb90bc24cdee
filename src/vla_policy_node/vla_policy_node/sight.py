# SPDX-License-Identifier: Apache-2.0
"""What a server is shown at a step: pictures as the cameras sent them, joints in its units, and the instruction.

A server may want some of its past too. So pictures and joints are kept as long as it looks back, and no longer.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from so101_contract.messages import JointSample, StepRecord
from so101_driver.calibration.lerobot_units import JointScale
from vla_policy_node.protocol import FloatArray, Offer, Pictures, Seen
from vla_policy_node.zmtp import ServerError

KEPT_S = 0.6
"""How long pictures and joints are kept beyond what a server looks back [s]: a step names those of a moment ago."""

MOST_PICTURES = 200
MOST_READINGS = 1000


@dataclass
class Sight:
    """Pictures and joints of the last moments.

    Attributes:
        cameras: our names of the cameras, in the order of a step's image stamps.
        scale: the server's units.
        period_ns: of the entries that the server counts its past in [ns].
        shown: our camera for each of the server's.
    """

    cameras: Sequence[str]
    scale: JointScale
    period_ns: int
    shown: Mapping[str, str] = field(default_factory=dict)
    _kept_ns: int = round(KEPT_S * 1e9)

    def __post_init__(self) -> None:
        """Begin with nothing."""
        self._pictures: dict[str, deque[tuple[int, Pictures]]] = {
            name: deque(maxlen=MOST_PICTURES) for name in self.cameras
        }
        self._joints: deque[tuple[int, FloatArray]] = deque(maxlen=MOST_READINGS)

    def fit(self, offer: Offer, named: Mapping[str, str]) -> None:
        """Settle which camera is which, and how far back is remembered.

        Args:
            offer: of the server.
            named: our camera for each of the server's, as far as somebody has said it.

        Raises:
            ServerError: the server wants a camera that there is not.
        """
        one_each = len(offer.cameras) == len(self.cameras) == 1
        guess = dict(zip(offer.cameras, self.cameras, strict=True)) if one_each else {}
        same = {name: name for name in offer.cameras if name in self.cameras}
        shown = guess | same | {name: named[name] for name in offer.cameras if name in named}
        lacking = [name for name in offer.cameras if shown.get(name) not in self.cameras]
        if lacking:
            raise ServerError(
                f'expected a camera here for each of the server, got none for {lacking}; there are '
                f'{list(self.cameras)}: say which is which with cameras, e.g. "{lacking[0]}={self.cameras[0]}"'
            )
        self.shown = shown
        back = -min(*offer.video_times, *offer.state_times, 0)
        self._kept_ns = round(KEPT_S * 1e9) + back * self.period_ns

    def add_picture(self, camera: str, stamp_ns: int, pixels: Pictures) -> None:
        """Keep a picture (height, width, 3) RGB."""
        kept = self._pictures[camera]
        kept.append((stamp_ns, pixels))
        while kept[0][0] < stamp_ns - self._kept_ns:
            kept.popleft()

    def add_joints(self, sample: JointSample) -> None:
        """Keep a reading."""
        self._joints.append((sample.stamp_ns, sample.position))
        while self._joints[0][0] < sample.stamp_ns - self._kept_ns:
            self._joints.popleft()

    def measured(self, step: StepRecord) -> FloatArray | None:
        """Return the joints (6,) that a step names [rad]; None where they have not come, or are gone."""
        return next((q for stamp, q in reversed(self._joints) if stamp == step.joint_stamp_ns), None)

    def seen(self, step: StepRecord, offer: Offer, instruction: str) -> Seen | None:
        """Return what a server is shown at a step; None where a picture that the step names has not come."""
        if self.measured(step) is None:
            return None
        stamps = dict(zip(self.cameras, step.image_stamps_ns, strict=True))
        if not all(any(stamp == stamps[name] for stamp, _ in self._pictures[name]) for name in self.cameras):
            return None
        video = {
            server: np.stack(self._at(self._pictures[ours], stamps[ours], offer.video_times))
            for server, ours in self.shown.items()
        }
        joints = np.stack(self._at(self._joints, step.joint_stamp_ns, offer.state_times))
        return Seen(video, self.scale.from_rad(joints), instruction)

    def _at(self, kept: Sequence[tuple[int, Any]], now_ns: int, times: Sequence[int]) -> list[Any]:
        """Return what was nearest to each time; the first that there is where it was not yet."""
        return [min(kept, key=lambda one: abs(one[0] - now_ns - time * self.period_ns))[1] for time in times]
