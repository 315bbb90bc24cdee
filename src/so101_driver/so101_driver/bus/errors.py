# SPDX-License-Identifier: Apache-2.0
"""What can go wrong on the servo bus. Every message says what was expected, what came and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class BusError(Exception):
    """Base of every failure of the servo bus."""


class PortError(BusError):
    """The serial port is missing, taken, closed or unplugged."""


class ServoTimeout(BusError):  # noqa: N818  (says more than ServoTimeoutError)
    """A servo gave no answer at all.

    Attributes:
        servo_id: the servo that was asked.
        register: name of the register or of the instruction.
    """

    def __init__(self, servo_id: int, register: str, attempts: int = 1) -> None:
        self.servo_id = servo_id
        self.register = register
        super().__init__(
            f'Servo {servo_id} gave no answer for {register} in {attempts} attempt(s). Check its power and '
            'its 3-pin cable, and that no other program uses the port.'
        )


class CorruptAnswer(BusError):  # noqa: N818
    """Bytes came, but they are no valid answer.

    Attributes:
        servo_id: the servo that was asked, or None where that is not known.
    """

    def __init__(self, reason: str, servo_id: int | None = None) -> None:
        self.servo_id = servo_id
        of = '' if servo_id is None else f' of servo {servo_id}'
        super().__init__(
            f'Damaged answer{of}: {reason}. Two servos with one id, a loose cable and electrical noise '
            'do this; ask again.'
        )


class ChecksumError(CorruptAnswer):
    """The checksum of an answer does not fit its bytes."""

    def __init__(self, expected: int, got: int, servo_id: int | None = None) -> None:
        self.expected = expected
        self.got = got
        super().__init__(f'the checksum should be 0x{expected:02X} and is 0x{got:02X}', servo_id)


class WriteNotTaken(BusError):  # noqa: N818
    """A register reads back another value than was written.

    Attributes:
        servo_id: the servo.
        register: name of the register.
        wanted: value written.
        found: value read back.
    """

    def __init__(self, servo_id: int, register: str, wanted: int, found: int) -> None:
        self.servo_id = servo_id
        self.register = register
        self.wanted = wanted
        self.found = found
        super().__init__(
            f'{register} of servo {servo_id} was set to {wanted} and reads back {found}; '
            'the servo does not take this value, or another program writes it too.'
        )


class HandshakeError(BusError):
    """The servos on the bus are not the arm that was expected.

    Attributes:
        problems: one sentence per problem, most important first.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(' '.join(self.problems))
