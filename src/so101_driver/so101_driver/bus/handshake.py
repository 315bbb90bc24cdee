# SPDX-License-Identifier: Apache-2.0
"""Is this the arm that was expected? Checks servos before anything moves, and says what to do when not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from so101_driver.bus.errors import HandshakeError
from so101_driver.bus.registers import MODEL_STS3215, Reg, ServoError, VOLTAGE_UNIT_V

ReadRegister = Callable[[Reg, tuple[int, ...]], Mapping[int, int]]
_OVER_VOLTAGE_V = 0.4  # the limit of the 7.4 V type is 8.0 V, a fresh supply gives up to 8.4 V
_MODEL_NAMES = {MODEL_STS3215: 'STS3215', 2825: 'STS3250'}


@dataclass(frozen=True)
class ServoIdentity:
    """What a servo is and how it is at the start.

    Attributes:
        servo_id: id on the bus.
        model: model number.
        firmware: major and minor version.
        voltage_v: supply voltage [V].
        faults: faults that it already reports; an overload is cleared by switching the arm off and on.
    """

    servo_id: int
    model: int
    firmware: tuple[int, int]
    voltage_v: float
    faults: ServoError


def check_servos(
    port: str, ids: tuple[int, ...], read: ReadRegister, model: int = MODEL_STS3215
) -> tuple[ServoIdentity, ...]:
    """Identities of the servos, in the order of `ids`.

    Args:
        port: name of the port, for messages.
        ids: the servos that must be there.
        read: reads a register of several servos; leaves out those that do not answer.
        model: model number that all must have.

    Raises:
        HandshakeError: a servo is missing, of another model or firmware, or on a wrong voltage.
    """
    models = read(Reg.MODEL_NUMBER, ids)
    missing = [servo_id for servo_id in ids if servo_id not in models]
    if len(missing) == len(ids):
        raise HandshakeError(
            [
                f'No servo answers on {port}, expected the ids {_list(ids)}: is the power supply of the arm '
                'on, is this the right port, and are the servos set up (ids and 1 Mbaud)?'
            ]
        )
    if missing:
        raise HandshakeError(
            [
                f'Expected the servos {_list(ids)} on {port}, no answer from {_list(missing)}: check the '
                f'3-pin cable that leads to servo {missing[0]}, and that its id was set up.'
            ]
        )
    tables = {
        reg: read(reg, ids)
        for reg in (
            Reg.FIRMWARE_MAJOR_VERSION,
            Reg.FIRMWARE_MINOR_VERSION,
            Reg.PRESENT_VOLTAGE,
            Reg.MIN_VOLTAGE_LIMIT,
            Reg.MAX_VOLTAGE_LIMIT,
            Reg.STATUS,
        )
    }
    lost = [servo_id for servo_id in ids if any(servo_id not in table for table in tables.values())]
    if lost:
        raise HandshakeError(
            [
                f'The servos {_list(lost)} on {port} answer only now and then: check the 3-pin cables, and '
                'that no other program uses the port.'
            ]
        )
    identities = tuple(
        ServoIdentity(
            servo_id=servo_id,
            model=models[servo_id],
            firmware=(
                tables[Reg.FIRMWARE_MAJOR_VERSION][servo_id],
                tables[Reg.FIRMWARE_MINOR_VERSION][servo_id],
            ),
            voltage_v=tables[Reg.PRESENT_VOLTAGE][servo_id] * VOLTAGE_UNIT_V,
            faults=ServoError(tables[Reg.STATUS][servo_id]),
        )
        for servo_id in ids
    )
    problems = [
        *_model_problems(identities, model),
        *_firmware_problems(identities),
        *_voltage_problems(identities, tables[Reg.MIN_VOLTAGE_LIMIT], tables[Reg.MAX_VOLTAGE_LIMIT]),
    ]
    if problems:
        raise HandshakeError(problems)
    return identities


def _model_problems(identities: tuple[ServoIdentity, ...], model: int) -> list[str]:
    expected = f'{_MODEL_NAMES.get(model, "model")} ({model})'
    return [
        f'Servo {servo.servo_id} should be an {expected}, its model number is {servo.model}: is another '
        'device on this port?'
        for servo in identities
        if servo.model != model
    ]


def _firmware_problems(identities: tuple[ServoIdentity, ...]) -> list[str]:
    versions = {servo.firmware for servo in identities}
    if len(versions) == 1:
        return []
    which = ', '.join(f'{servo.servo_id}: {servo.firmware[0]}.{servo.firmware[1]}' for servo in identities)
    return [
        f"All servos should have one firmware, found {which}: update them with the vendor's FD program, so "
        'that they behave alike.'
    ]


def _voltage_problems(
    identities: tuple[ServoIdentity, ...], lowest: Mapping[int, int], highest: Mapping[int, int]
) -> list[str]:
    problems = []
    for servo in identities:
        low, high = lowest[servo.servo_id] * VOLTAGE_UNIT_V, highest[servo.servo_id] * VOLTAGE_UNIT_V
        measured = (
            f'Servo {servo.servo_id} takes {low:.1f} to {high:.1f} V and measures {servo.voltage_v:.1f} V'
        )
        if servo.voltage_v > high + _OVER_VOLTAGE_V:
            problems.append(f'{measured}: switch the supply off, it is the one of another servo type.')
        elif servo.voltage_v < low:
            problems.append(f'{measured}: the supply is too weak or the cable too long.')
    return problems


def _list(ids: list[int] | tuple[int, ...]) -> str:
    return ', '.join(map(str, ids))
