# SPDX-License-Identifier: Apache-2.0
"""From the sticks and buttons of a pad to what the person wants, whichever way they come in."""

from dataclasses import dataclass, field

from so101_session.teleop.devices.base import DeviceState, Event, limited
from so101_session.teleop.devices.pads import DEADMAN, PadMap

HAT_SHARE = 0.5
TRIGGER_START = 0.1


@dataclass
class Pad:
    """A pad with its present sticks and buttons.

    Attributes:
        map: where they are.
        deadzone: share of a stick's way that counts as rest.
        speed: share of the fastest speed at the end of a stick.
        needs_deadman: the stick counts only while the deadman button is down.
        axes: number -> value -1..1, positive to the right, down, pulled.
        buttons: those that are down.
    """

    map: PadMap
    deadzone: float = 0.15
    speed: float = 1.0
    needs_deadman: bool = True
    axes: dict[int, float] = field(default_factory=dict)
    buttons: set[int] = field(default_factory=set)
    _events: list[Event] = field(default_factory=list)
    _hat: int = 0
    _rested: set[str] = field(default_factory=set)
    _trusted: bool = True

    def axis(self, number: int, value: float, *, initial: bool = False) -> None:
        """Take the position of an axis.

        Args:
            number: of the axis.
            value: -1..1.
            initial: it was there before anybody looked.
        """
        self.axes[number] = limited(value)
        for name in ('close', 'open'):
            if self.map.axes.get(name) == number and self._pulled(value) < TRIGGER_START:
                self._rested.add(name)  # before its first report a trigger reads half pulled
        if self.map.axes.get('hat_y') == number:
            hat = -1 if value < -HAT_SHARE else 1 if value > HAT_SHARE else 0
            if hat != self._hat and hat in self.map.hat and not initial:
                self._events.append(self.map.hat[hat])
            self._hat = hat

    def button(self, number: int, down: bool, *, initial: bool = False) -> None:
        """Take the state of a button; its event comes with the edge, and with no other state."""
        meaning = self.map.buttons.get(number)
        if down and initial and meaning == DEADMAN:
            self._trusted = False  # it was down before anybody looked: let it go first
        if not down and meaning == DEADMAN:
            self._trusted = True
        if down and number not in self.buttons and meaning not in (None, DEADMAN) and not initial:
            self._events.append(Event(meaning))
        (self.buttons.add if down else self.buttons.discard)(number)

    def forget(self) -> None:
        """The pad is gone: nothing is held any more, and a deadman that is down when it returns must be let go."""
        self.axes.clear()
        self.buttons.clear()
        self._events.clear()
        self._rested.clear()
        self._hat = 0

    @property
    def held(self) -> bool:
        """Whether the deadman button is down, or none is needed."""
        if not self.needs_deadman:
            return True
        deadman = {number for number, meaning in self.map.buttons.items() if meaning == DEADMAN}
        return self._trusted and bool(deadman & self.buttons)

    def state(self) -> DeviceState:
        """Return what the person wants now; the events are told once."""
        # Forward is a stick pushed up, which is negative; left is negative too.
        x, y, z = (-self._stick(name) * self.speed for name in 'xyz')
        gripper = self._trigger('open') - self._trigger('close')
        events, self._events = tuple(self._events), []
        moving = bool(x or y or z or gripper)
        if not self.held:
            return DeviceState(events=events, note='hold the deadman button to move' if moving else '')
        return DeviceState(active=moving, axes=(x, y, z), gripper=gripper, events=events)

    def _stick(self, name: str) -> float:
        value = self.axes.get(self.map.axes.get(name, -1), 0.0)
        beyond = max(abs(value) - self.deadzone, 0.0) / (1.0 - self.deadzone)
        return beyond if value > 0 else -beyond

    def _pulled(self, value: float) -> float:
        rest = self.map.triggers_from
        return max((value - rest) / (1.0 - rest), 0.0)

    def _trigger(self, name: str) -> float:
        if name not in self._rested:
            return 0.0
        pulled = self._pulled(self.axes.get(self.map.axes.get(name, -1), self.map.triggers_from))
        return pulled if pulled >= TRIGGER_START else 0.0
