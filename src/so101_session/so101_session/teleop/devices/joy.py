# SPDX-License-Identifier: Apache-2.0
"""A pad that another node publishes as `sensor_msgs/Joy`, on this machine or another one."""

from collections.abc import Iterable, Sequence
import math

from so101_session.teleop.devices.base import Device, DeviceState, Feedback
from so101_session.teleop.devices.pad import Pad
from so101_session.teleop.devices.pads import changed, find_pad

SILENCE_S = 0.3
"""A pad that is not heard of for longer is dead [s]; joy_node repeats itself 20 times a second."""


class Joy(Device):
    """A pad, message by message. `joy_node` turns every axis round: left, up and pulled are its positive ones."""

    def __init__(
        self,
        *,
        pad: str = 'auto',
        changes: Iterable[str] = (),
        deadzone: float = 0.15,
        speed: float = 1.0,
        needs_deadman: bool = True,
    ) -> None:
        """Prepare; see `Gamepad`. `sdl` as pad is for game_controller_node."""
        known, found = find_pad(pad, '')
        # What is released reads +1 from joy_node, and 0 from game_controller_node, which does not turn triggers.
        self._turned_triggers = known != 'sdl'
        self._pad = Pad(changed(found, changes), deadzone, speed, needs_deadman)
        self._heard_s = -math.inf
        self._fresh = True

    def hear(self, axes: Sequence[float], buttons: Sequence[int], now: float) -> None:
        """Take a message; what is down in the first one after a silence was not pressed for us."""
        if now - self._heard_s > SILENCE_S:
            self._pad.forget()
            self._fresh = True
        self._heard_s = now
        triggers = {self._pad.map.axes.get(name) for name in ('close', 'open')}
        for number, value in enumerate(axes):
            keeps = number in triggers and not self._turned_triggers
            turned = value if keeps else -value
            self._pad.axis(number, turned if math.isfinite(turned) else 0.0, initial=self._fresh)
        for number, down in enumerate(buttons):
            self._pad.button(number, bool(down), initial=self._fresh)
        self._fresh = False

    def poll(self, now: float) -> DeviceState:
        """Say what the last message means."""
        if now - self._heard_s > SILENCE_S:
            return DeviceState(alive=False, note='no message of the pad; does joy_node run?')
        return self._pad.state()

    def feel(self, feedback: Feedback, now: float) -> None:
        """Nothing: pads do not push back."""

    def close(self) -> None:
        """Nothing is held."""
