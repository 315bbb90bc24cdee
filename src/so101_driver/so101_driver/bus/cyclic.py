# SPDX-License-Identifier: Apache-2.0
"""What the state registers of a servo mean, and how long to wait for them."""

from __future__ import annotations

import struct

from so101_driver.bus.readings import ServoReading
from so101_driver.bus.registers import (
    CURRENT_UNIT_A,
    decode_sign_magnitude,
    LOAD_FULL_SCALE,
    NO_FAULT,
    ServoError,
    VOLTAGE_UNIT_V,
)
from so101_driver.bus.windows import Window

# position, velocity, load, voltage, temperature, REG WRITE flag, status, moving, target, current
_STATE = struct.Struct('<HHHBBBBBHH')


def decode_state(servo_id: int, error: int, payload: bytes, window: Window) -> ServoReading:
    """State of a servo from the answer that has just come.

    Args:
        servo_id: the servo.
        error: error byte of the answer.
        payload: registers of `window`.
        window: the block that was asked for.
    """
    position, velocity, load, voltage, temperature, _, status, moving, _, current = _STATE.unpack_from(
        payload, window.state_offset
    )
    return ServoReading(
        servo_id=servo_id,
        ok=True,
        age_s=0.0,
        position_ticks=decode_sign_magnitude(position, 15),
        velocity_ticks_s=decode_sign_magnitude(velocity, 15),
        load=decode_sign_magnitude(load, 10) / LOAD_FULL_SCALE,
        voltage_v=voltage * VOLTAGE_UNIT_V,
        temperature_c=float(temperature),
        current_a=decode_sign_magnitude(current, 15) * CURRENT_UNIT_A,
        status=ServoError(status) if status else NO_FAULT,
        error=ServoError(error) if error else NO_FAULT,
        moving=bool(moving),
    )


class AnswerTimer:
    """How long to wait for answers, learnt from how long they usually take.

    A fixed time-out is either too short for a slow USB adapter or wastes a control period on every lost
    packet. This is the estimate of TCP: the mean of what an answer takes beyond its time on the wire, and
    four times its deviation.

    Args:
        floor_s: shortest wait beyond the time on the wire [s].
        ceiling_s: longest wait beyond the time on the wire [s].
    """

    _GAIN = 0.125
    _DEVIATION_GAIN = 0.25
    _PATIENCE = 3  # unfinished answers in a row after which the line counts as having become slower

    def __init__(self, floor_s: float, ceiling_s: float) -> None:
        self._ceiling_s = ceiling_s
        self._floor_s = floor_s
        self._mean_s = ceiling_s
        self._deviation_s = 0.0
        self._learnt = False
        self._unfinished = 0

    def timeout_s(self, wire_s: float) -> float:
        """Time to wait for answers that need `wire_s` on the wire [s]."""
        margin = max(self._floor_s, self._mean_s + 4.0 * self._deviation_s)
        margin *= 2.0 ** max(0, min(10, self._unfinished - self._PATIENCE))
        return wire_s + min(margin, self._ceiling_s)

    def finished(self, extra_s: float) -> None:
        """The last answer came, `extra_s` later than the time of all on the wire [s]."""
        self._unfinished = 0
        if not self._learnt:
            self._learnt = True
            self._mean_s, self._deviation_s = extra_s, extra_s / 2.0
            return
        self._deviation_s += self._DEVIATION_GAIN * (abs(extra_s - self._mean_s) - self._deviation_s)
        self._mean_s += self._GAIN * (extra_s - self._mean_s)

    def unfinished(self) -> None:
        """The last answer did not come."""
        self._unfinished += 1
