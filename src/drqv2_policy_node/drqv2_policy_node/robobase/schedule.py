# SPDX-License-Identifier: Apache-2.0
"""The schedules of exploration noise that RoboBase writes as text.

* `0.2`: constant
* `linear(initial,final,duration)`
* `step_linear(initial,final1,duration1,final2,duration2)`
"""

from dataclasses import dataclass
import math
import re

from so101_contract.errors import ContractError

_FORM = re.compile(r'\s*(linear|step_linear)\s*\(([^()]*)\)\s*')
_SIZES = {'linear': 3, 'step_linear': 5}


class ScheduleError(ContractError):
    """A text is not a schedule."""


@dataclass(frozen=True)
class Leg:
    """A straight line to a value.

    Attributes:
        final: the value at its end.
        duration: how many steps it takes.
    """

    final: float
    duration: float


@dataclass(frozen=True)
class Schedule:
    """A value over steps: straight lines one after the other, then constant.

    Attributes:
        initial: value at step 0.
        legs: the lines.
    """

    initial: float
    legs: tuple[Leg, ...] = ()

    def __call__(self, step: float) -> float:
        """Return the value at a step; what the step counts is for the caller to know."""
        value = self.initial
        for leg in self.legs:
            mix = min(max(step / leg.duration, 0.0), 1.0)
            value = (1.0 - mix) * value + mix * leg.final
            if mix < 1.0:
                return value
            step -= leg.duration
        return value

    def __str__(self) -> str:
        """Return the text that `parse_schedule` takes."""
        if not self.legs:
            return f'{self.initial!r}'
        numbers = [self.initial, *(number for leg in self.legs for number in (leg.final, leg.duration))]
        return f'{"linear" if len(self.legs) == 1 else "step_linear"}({",".join(map(repr, numbers))})'


def parse_schedule(text: str | float) -> Schedule:
    """Return the schedule that a text stands for.

    Raises:
        ScheduleError: the text has none of the three forms, or a value is negative, or a duration is not above 0.
    """
    found = _FORM.fullmatch(str(text))
    name, body = (found[1], found[2].split(',')) if found else ('constant', [str(text)])
    try:
        numbers = [float(part) for part in body]
    except ValueError:
        numbers = []
    durations = numbers[2::2]
    good = len(numbers) == _SIZES.get(name, 1) and all(math.isfinite(x) and x >= 0 for x in numbers)
    if not good or not all(duration > 0 for duration in durations):
        raise ScheduleError(
            f'expected a schedule such as 0.2, linear(0.2,0.1,10000) or step_linear(1.0,0.2,10000,0.1,50000) '
            f'with values of at least 0 and durations above 0, got {text!r}; correct it'
        )
    legs = tuple(Leg(numbers[i], numbers[i + 1]) for i in range(1, len(numbers), 2))
    return Schedule(numbers[0], legs)
