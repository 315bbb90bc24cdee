# SPDX-License-Identifier: Apache-2.0
"""Which key does what, and how that is said in a parameter: 'w=x+', 'o=open', 't=takeover', '1=speed 0.2'."""

from collections.abc import Iterable
from dataclasses import dataclass

from so101_session.teleop.devices.base import DeviceError, Event

DEFAULT_KEYS = (
    *('w=x+', 's=x-', 'a=y+', 'd=y-', 'r=z+', 'f=z-'),
    *('up=x+', 'down=x-', 'left=y+', 'right=y-', 'page_up=z+', 'page_down=z-'),
    *('o=open', 'c=close', '1=speed 0.2', '2=speed 0.5', '3=speed 1.0'),
    *('space=e_stop', 't=takeover', 'g=give_back', 'enter=start', 'y=success', 'n=failure', 'x=discard'),
    *('b=reset', 'p=pause'),
)
_MOTIONS = {
    **{f'{name}{sign}': (axis, 1 if sign == '+' else -1) for axis, name in enumerate('xyz') for sign in '+-'},
    'open': (3, 1),
    'close': (3, -1),
}
MEANINGS = {
    'x+': 'forward',
    'x-': 'back',
    'y+': 'left',
    'y-': 'right',
    'z+': 'up',
    'z-': 'down',
    'open': 'open the gripper',
    'close': 'close the gripper',
    'takeover': 'take over',
    'give_back': 'give back to the policy',
    'start': 'start the next episode',
    'success': 'it worked: episode ends',
    'failure': 'it failed: episode ends',
    'discard': 'forget this episode',
    'reset': 'back to the start',
    'pause': 'pause, go on',
    'e_stop': 'STOP the arm',
}


@dataclass(frozen=True)
class KeyMap:
    """What keys mean.

    Attributes:
        motions: key -> axis (0, 1, 2 for x, y, z, 3 for the gripper) and sign.
        events: key -> what it asks for.
        speeds: key -> share of the fastest speed.
    """

    motions: dict[str, tuple[int, int]]
    events: dict[str, Event]
    speeds: dict[str, float]

    @classmethod
    def parse(cls, entries: Iterable[str]) -> 'KeyMap':
        """Read a parameter.

        Raises:
            DeviceError: an entry means nothing, or a key means two things.
        """
        motions: dict[str, tuple[int, int]] = {}
        events: dict[str, Event] = {}
        speeds: dict[str, float] = {}
        for entry in entries:
            key, _, meaning = entry.rpartition('=')
            if not key or key in motions or key in events or key in speeds:
                raise DeviceError(f'expected each key once, as in w=x+, got {entry!r}; correct keys')
            if meaning in _MOTIONS:
                motions[key] = _MOTIONS[meaning]
            elif meaning in set(Event):
                events[key] = Event(meaning)
            else:
                speeds[key] = _speed(entry, meaning)
        return cls(motions, events, speeds)

    @property
    def opposites(self) -> dict[str, frozenset[str]]:
        """Return for each key of a motion those that move the other way."""
        return {
            key: frozenset(
                other for other, (axis2, sign2) in self.motions.items() if axis == axis2 and sign != sign2
            )
            for key, (axis, sign) in self.motions.items()
        }

    def lines(self) -> list[tuple[str, str]]:
        """Return what the keys do, for people: the keys, and their meaning."""
        said: dict[str, list[str]] = {}
        for key, motion in self.motions.items():
            name = next(name for name, value in _MOTIONS.items() if value == motion)
            said.setdefault(MEANINGS[name], []).append(key)
        for key, event in self.events.items():
            said.setdefault(MEANINGS[event.value], []).append(key)
        for key, speed in self.speeds.items():
            said.setdefault(f'{speed:.0%} of the fastest speed', []).append(key)
        return [(' '.join(keys), meaning) for meaning, keys in said.items()]


def _speed(entry: str, meaning: str) -> float:
    word, _, number = meaning.partition(' ')
    try:
        speed = float(number)
    except ValueError:
        speed = -1.0
    if word != 'speed' or not 0.0 < speed <= 1.0:
        known = ', '.join([*MEANINGS, 'speed 0.2'])
        raise DeviceError(f'expected one of {known} for a key, got {entry!r}; correct keys')
    return speed
