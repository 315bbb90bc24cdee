# SPDX-License-Identifier: Apache-2.0
"""One request to one servo at a time, by the vendor's SDK, and how long answers take; not for the control loop.

The SDK's packet handler builds and finds the frames. What it does not do is added: it matches an answer by id only,
so the size of every answer is checked too; late answers are waited out after a miss; the error byte is kept and is
not a failure; and an exception leaves nothing latched.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from scservo_sdk import scservo_def
from scservo_sdk.protocol_packet_handler import protocol_packet_handler

from so101_driver.bus.config import BusConfig, BusCounters
from so101_driver.bus.errors import CorruptAnswer, ServoTimeout
from so101_driver.bus.port import ArmPort
from so101_driver.bus.protocol import Instruction, OVERHEAD, wire_time_s
from so101_driver.bus.registers import Reg, ServoError

_QUIET_S: Final = 0.003  # a damaged answer is over when the line has been quiet for this long


class _Request(NamedTuple):
    servo_id: int
    instruction: Instruction
    params: bytes
    answer_size: int
    name: str


class LateAnswers:
    """Remembers whose answer is still due, so that it is not taken for the answer to the next request.

    Args:
        window_s: how late an answer can come [s].
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._until_s: dict[int, float] = {}

    def missed(self, servo_id: int) -> None:
        """An answer of this servo did not come."""
        self._until_s[servo_id] = time.monotonic() + self._window_s

    def wait_out(self, port: ArmPort, ids: tuple[int, ...]) -> None:
        """Throw away what comes until no answer of these servos is due any more."""
        port.drain_until(max(self._until_s.pop(servo_id, 0.0) for servo_id in ids))


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


class SingleTransactions:
    """Requests to one servo at a time, with bounded retries: not for the control loop.

    Attributes:
        errors: faults in the last answer of each servo.
    """

    def __init__(self, port: ArmPort, counters: BusCounters, late: LateAnswers, config: BusConfig) -> None:
        self.errors: dict[int, ServoError] = {}
        self._port = port
        self._counters = counters
        self._late = late
        self._config = config
        self._handler = protocol_packet_handler()

    def ping(self, servo_id: int, *, retries: int | None = None, timeout_s: float | None = None) -> None:
        """Return when the servo answers.

        Raises:
            ServoTimeout: no answer.
            CorruptAnswer: only damaged answers.
            PortError: the port is gone.
        """
        request = _Request(servo_id, Instruction.PING, b'', 0, 'ping')
        self._exchange(request, retries, timeout_s)

    def read(self, servo_id: int, register: Reg) -> bytes:
        """Bytes of a register; raises as `ping`."""
        params = bytes((register.address, register.size))
        return self._exchange(_Request(servo_id, Instruction.READ, params, register.size, register.name))

    def write(self, servo_id: int, register: Reg, data: bytes) -> None:
        """Store the bytes of a register and wait for the acknowledgement; raises as `ping`."""
        params = bytes((register.address,)) + data
        self._exchange(_Request(servo_id, Instruction.WRITE, params, 0, register.name))

    def _exchange(
        self, request: _Request, retries: int | None = None, timeout_s: float | None = None
    ) -> bytes:
        attempts = 1 + (self._config.single_retries if retries is None else retries)
        wait_s = self._config.single_timeout_s if timeout_s is None else timeout_s
        damaged = False
        for attempt in range(attempts):
            self._counters.retried += attempt > 0
            self._late.wait_out(self._port, (request.servo_id,))
            result, answer = self._attempt(request, wait_s)
            if answer is not None:
                self._counters.received += 1
                return answer
            if result == scservo_def.COMM_RX_CORRUPT:
                damaged = True
                self._counters.corrupt += 1
                self._let_pass()
            else:
                self._counters.lost += 1
                self._late.missed(request.servo_id)
        if damaged:
            reason = f'no whole answer for {request.name} in {attempts} attempt(s)'
            raise CorruptAnswer(reason, request.servo_id)
        raise ServoTimeout(request.servo_id, request.name, attempts)

    def _attempt(self, request: _Request, wait_s: float) -> tuple[int, bytes | None]:
        port, handler = self._port, self._handler
        frame = [0] * (OVERHEAD + len(request.params))  # the SDK fills in the header and the checksum
        frame[2:5] = request.servo_id, len(request.params) + 2, request.instruction
        frame[5:-1] = request.params
        self._counters.sent += 1
        try:
            result = handler.txPacket(port, frame)
            if result != scservo_def.COMM_SUCCESS:
                return result, None
            wire_s = wire_time_s(len(frame) + OVERHEAD + request.answer_size, port.baudrate)
            port.setPacketTimeoutMillis(1000.0 * (wire_s + wait_s))
            while True:
                answer, result = handler.rxPacket(port)
                if result != scservo_def.COMM_SUCCESS:
                    return result, None
                if answer[2] == request.servo_id and answer[3] == request.answer_size + 2:
                    self.errors[request.servo_id] = ServoError(answer[4])
                    return result, bytes(answer[5:-1])
                self._counters.late += 1
        except BaseException:
            self._late.missed(request.servo_id)  # an interrupt leaves an answer on the way
            raise
        finally:
            port.is_using = False  # the SDK leaves it set when an exception passes through

    def _let_pass(self) -> None:
        """Throw away the rest of a damaged answer."""
        deadline = time.monotonic() + self._config.single_timeout_s
        while time.monotonic() < deadline and self._port.receive(time.monotonic() + _QUIET_S):
            pass
