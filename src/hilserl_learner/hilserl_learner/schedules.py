# SPDX-License-Identifier: Apache-2.0
"""Exploration noise over training: RoboBase's schedules, driven by a step that only counts up and is saved."""

from collections.abc import Mapping

from drqv2_policy_node.robobase.schedule import Leg, parse_schedule, Schedule, ScheduleError
from so101_contract.manifest import StepUnit

__all__ = ['FINE_TUNE', 'FROM_SCRATCH', 'Leg', 'NoiseSchedule', 'Schedule', 'ScheduleError', 'parse_schedule']

FINE_TUNE = 'linear(0.2,0.1,10000)'
"""For a policy that can do something already: more noise would hide what it can."""

FROM_SCRATCH = 'linear(1.0,0.1,100000)'
"""For a policy that knows nothing, without demonstrations."""


class NoiseSchedule:
    """The std of the exploration noise at the present step.

    Args:
        text: a schedule.
        unit: what its step counts.
        step: where it begins.
    """

    def __init__(self, text: str = FINE_TUNE, unit: StepUnit = StepUnit.ENV_STEPS, step: int = 0) -> None:
        self.schedule = parse_schedule(text)
        self.text = text
        self.unit = unit
        self._step = 0
        self.advance(step)

    @property
    def step(self) -> int:
        """How far it is."""
        return self._step

    @property
    def std(self) -> float:
        """Std now, in network units."""
        return self.schedule(self._step)

    def advance(self, step: int) -> float:
        """Go to a step and return the std there.

        Raises:
            ScheduleError: the step lies behind the present one; noise does not come back.
        """
        if step < self._step:
            raise ScheduleError(
                f'expected a step of at least {self._step}, got {step}; resume from the checkpoint that has it'
            )
        self._step = int(step)
        return self.std

    def state_dict(self) -> dict[str, int | str]:
        """Return what `load_state_dict` takes, as plain values."""
        return {'text': self.text, 'unit': self.unit.value, 'step': self._step}

    def load_state_dict(self, state: Mapping[str, int | str]) -> None:
        """Go on where another one stopped; its schedule and its unit come along."""
        restored = NoiseSchedule(str(state['text']), StepUnit(state['unit']), int(state['step']))
        self.schedule, self.text, self.unit, self._step = (
            restored.schedule,
            restored.text,
            restored.unit,
            restored.step,
        )
