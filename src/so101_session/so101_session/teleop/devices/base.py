# SPDX-License-Identifier: Apache-2.0
"""What every device says, and what it is told: one interface for keys, pads and arms. No ROS."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Axes = tuple[float, float, float]
STILL: Axes = (0.0, 0.0, 0.0)


class DeviceError(ValueError):
    """A device cannot be used: it is missing, is another one, or was set up wrongly."""


class Event(StrEnum):
    """What a human asks for, once for each press."""

    TAKEOVER = 'takeover'
    GIVE_BACK = 'give_back'
    START = 'start'
    SUCCESS = 'success'
    FAILURE = 'failure'
    DISCARD = 'discard'
    SUCCESS_NOW = 'success_now'
    NOT_YET = 'not_yet'
    RESET = 'reset'
    PAUSE = 'pause'
    RECOVER = 'recover'
    """Clear a stop or a fault; once it is cleared, switch the motors on, where the arm is."""
    E_STOP = 'e_stop'


@dataclass(frozen=True)
class DeviceState:
    """What a human does with a device at one moment.

    Attributes:
        alive: the device is there and can be believed; a dead one says nothing else.
        active: the human acts; what follows counts only then.
        axes: speed along x, y, z of the base frame as a share of the fastest, -1..1.
        gripper: -1 closes, 1 opens, 0 leaves it; for devices that say how the opening changes.
        opening: target opening 0 closed .. 1 open, for devices that say it absolutely.
        displacement: of the TCP in the coming step (3,) [m], for devices that have a pose; then `axes` is not
            used.
        events: what was asked for since the last poll, each once.
        quit: the human wants the program to end.
        note: what to tell the human about the device, in a few words; for a dead one why.
    """

    alive: bool = True
    active: bool = False
    axes: Axes = STILL
    gripper: float = 0.0
    opening: float | None = None
    displacement: Axes | None = None
    events: tuple[Event, ...] = ()
    quit: bool = False
    note: str = ''


@dataclass(frozen=True, eq=False)
class Feedback:
    """What a device may want to know of the arm that it drives.

    Attributes:
        joints_rad: measured joint positions (6,) [rad]; None while they are unknown or old.
        opening: opening commanded last, 0 closed .. 1 open; None before the first command.
        executed_m: sum of all displacements that were executed so far (3,) [m].
        intervening: the session lets the human drive.
    """

    joints_rad: FloatArray | None = None
    opening: float | None = None
    executed_m: Axes = STILL
    intervening: bool = False


class Device(Protocol):
    """A device. One thread owns it; times are monotonic [s]."""

    def poll(self, now: float) -> DeviceState:
        """Say what the human does; never waits for the human."""

    def feel(self, feedback: Feedback, now: float) -> None:
        """Take what the arm does."""

    def close(self) -> None:
        """Let go of the device and leave it as it was found; safe to call twice."""


def limited(value: float) -> float:
    """Return a share cut to -1..1."""
    return min(max(value, -1.0), 1.0)


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
