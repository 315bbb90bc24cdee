# SPDX-License-Identifier: Apache-2.0
"""A device that moves, and another one that only asks: a leader arm beside a keyboard or a gamepad."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from so101_session.teleop.devices.base import Device, DeviceState, Feedback


class Combined(Device):
    """Motion comes from the first device, events from all; the others may be missing."""

    def __init__(self, mover: Device, askers: Sequence[Device]) -> None:
        self._mover, self._askers = mover, tuple(askers)

    def poll(self, now: float) -> DeviceState:
        """Join what they say."""
        asked = [asker.poll(now) for asker in self._askers]
        state = self._mover.poll(now)
        events = state.events + tuple(event for one in asked for event in one.events)
        return replace(state, events=events, quit=state.quit or any(one.quit for one in asked))

    def feel(self, feedback: Feedback, now: float) -> None:
        """Pass on."""
        for device in (self._mover, *self._askers):
            device.feel(feedback, now)

    def close(self) -> None:
        """Close all, whatever one of them does."""
        with ExitStack() as stack:
            for device in (self._mover, *self._askers):
                stack.callback(device.close)
