# SPDX-License-Identifier: Apache-2.0
"""Judges a reading: temperatures, voltages and error bits, in sentences."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from so101_contract.joints import GRIPPER, JOINT_NAMES
from so101_driver.bus.registers import ServoError
from so101_driver.calibration.calibration import ArmReading
from so101_driver.gate.config import GateConfig, GRIPPER_INDEX
from so101_driver.gate.types import Finding, Level, NUM_JOINTS

HYSTERESIS_C = 3.0
"""A warm servo counts as warm until it is this much cooler than the warning [degC]."""


class _Check(NamedTuple):
    code: str
    level: Level
    sentence: str  # {joint}, {id} and the values of the reading are filled in


_CHECKS = (
    _Check(
        'overheat',
        Level.FAULT,
        '{joint} (servo {id}) is at {temperature:.0f} degC; let it cool and look for what it pushes against.',
    ),
    _Check(
        'hot',
        Level.WARN,
        '{joint} (servo {id}) is at {temperature:.0f} degC; let it rest before it has to stop.',
    ),
    _Check(
        'overvoltage',
        Level.FAULT,
        '{joint} (servo {id}) reads {voltage:.1f} V, more than supply_max_v; unplug the supply, '
        'it is the wrong one for this servo.',
    ),
    _Check(
        'sag',
        Level.WARN,
        '{joint} (servo {id}) reads {voltage:.1f} V, less than supply_min_v; the supply is too weak '
        'or a plug is loose.',
    ),
    _Check(
        'voltage',
        Level.WARN,
        '{joint} (servo {id}) reports a voltage error at {voltage:.1f} V; check supply and cable.',
    ),
    _Check(
        'encoder',
        Level.FAULT,
        '{joint} (servo {id}) reports an encoder error; its position cannot be trusted, replace the servo.',
    ),
    _Check(
        'temperature',
        Level.FAULT,
        '{joint} (servo {id}) reports overheating at {temperature:.0f} degC and cuts its torque; '
        'let it cool.',
    ),
    _Check(
        'current',
        Level.FAULT,
        '{joint} (servo {id}) reports overcurrent at {current:.2f} A; free the joint, and power-cycle '
        'the arm if the error stays.',
    ),
    _Check(
        'overload',
        Level.FAULT,
        '{joint} (servo {id}) reports overload at load {load:.0%} and reduces its torque; free the joint, '
        'and power-cycle the arm if the error stays.',
    ),
)
_BITS = {
    'voltage': ServoError.VOLTAGE,
    'encoder': ServoError.ENCODER,
    'temperature': ServoError.TEMPERATURE,
    'current': ServoError.CURRENT,
    'overload': ServoError.OVERLOAD,
}


class HealthMonitor:
    """Turns readings into findings; a condition counts after several fresh readings in a row.

    Overload of the gripper is a warning, not a fault: gripping at the torque limit provokes it in normal use,
    and the gripper guard takes the pressure off. A voltage error is a warning because motion makes the supply
    sag.
    """

    def __init__(self, config: GateConfig, servo_ids: tuple[int, ...]) -> None:
        self._config = config
        self._ids = servo_ids
        self._seen = np.zeros((len(_CHECKS), NUM_JOINTS), dtype=np.int64)

    def update(self, reading: ArmReading) -> tuple[Finding, ...]:
        """Take one reading in and return what is wrong now, worst first."""
        true_now = self._conditions(reading, self._seen[1] >= self._config.confirm_readings)
        counted = np.where(true_now, np.minimum(self._seen + 1, self._config.confirm_readings), 0)
        self._seen = np.where(reading.fresh, counted, self._seen)
        return self._findings(reading, self._seen >= self._config.confirm_readings)

    def enable_blockers(self, reading: ArmReading) -> tuple[str, ...]:
        """Return every reason of a reading against switching torque on, without waiting for confirmation."""
        config = self._config
        found = self._findings(reading, self._conditions(reading, np.zeros(NUM_JOINTS, dtype=np.bool_)))
        # The gripper's overload may end only when its goal is set to where it is, which enabling does.
        ignored = (('hot', ''), ('overheat', ''), ('overload', GRIPPER))
        blockers = [
            finding.sentence
            for finding in found
            if (finding.code, '') not in ignored and (finding.code, finding.joint) not in ignored
        ]
        # Cooled down to the middle between warning and stop, so that the arm does not stop again at once.
        cool = 0.5 * (config.temperature_warn_c + config.temperature_stop_c)
        for i, joint in enumerate(JOINT_NAMES):
            if not np.isfinite(reading.voltage_v[i]) or not np.isfinite(reading.temperature_c[i]):
                blockers.append(
                    f'{joint} (servo {self._ids[i]}) gives no voltage or temperature; check its cable.'
                )
            elif reading.temperature_c[i] >= cool:
                blockers.append(
                    f'{joint} (servo {self._ids[i]}) is at {reading.temperature_c[i]:.0f} degC; '
                    f'wait until it is below {cool:.0f}.'
                )
        return tuple(blockers)

    def _conditions(self, reading: ArmReading, was_hot: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        config = self._config
        warn = config.temperature_warn_c - HYSTERESIS_C * was_hot
        rows = {
            'overheat': reading.temperature_c >= config.temperature_stop_c,
            'hot': reading.temperature_c >= warn,
            'overvoltage': reading.voltage_v > config.supply_max_v,
            'sag': reading.voltage_v < config.supply_min_v,
            **{code: (reading.error & bit) != 0 for code, bit in _BITS.items()},
        }
        return np.array([rows[check.code] for check in _CHECKS])

    def _findings(self, reading: ArmReading, active: npt.NDArray[np.bool_]) -> tuple[Finding, ...]:
        found = []
        for row, i in np.argwhere(active):
            check = _CHECKS[row]
            if check.code == 'hot' and active[0, i]:
                continue  # said already, as overheat
            level = Level.WARN if check.code == 'overload' and i == GRIPPER_INDEX else check.level
            sentence = check.sentence.format(
                joint=JOINT_NAMES[i],
                id=self._ids[i],
                temperature=reading.temperature_c[i],
                voltage=reading.voltage_v[i],
                current=reading.current_a[i],
                load=abs(reading.load[i]),
            )
            found.append(Finding(level, check.code, JOINT_NAMES[i], sentence))
        return tuple(sorted(found, key=lambda finding: finding.level is not Level.FAULT))
