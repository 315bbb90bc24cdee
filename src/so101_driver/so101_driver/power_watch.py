# SPDX-License-Identifier: Apache-2.0
"""Notices a servo that was without power for a moment, before a goal makes it jump."""

from so101_driver.bus.bus import ServoBus
from so101_driver.bus.readings import BusReading
from so101_driver.bus.registers import Reg

# A servo that restarts is silent for longer; on a wire that loses every fifth answer this is rare.
SILENT_CYCLES = 3


class PowerWatch:
    """Asks each servo that was silent for some cycles whether it still knows how it was set up.

    A servo that restarts forgets what is kept in RAM: its torque is off, and the joint falls. Its port is
    still there, and its next goal would switch the torque on again, far from where the joint now is.

    Args:
        bus: The servos.
        acceleration: What Acceleration was set to, another value than that of a new start.

    Attributes:
        unsure: A servo came back and did not answer the question; write nothing until it has.
    """

    def __init__(self, bus: ServoBus, acceleration: int) -> None:
        self.unsure = False
        self._bus = bus
        self._acceleration = acceleration
        self._silent = dict.fromkeys(bus.ids, 0)

    def reset(self) -> None:
        """Forget the silence: the servos have just been set up."""
        self.unsure = False
        self._silent = dict.fromkeys(self._bus.ids, 0)

    def restarted(self, reading: BusReading) -> tuple[int, ...]:
        """Ids of the servos that are back after a silence and have forgotten how they were set up.

        Raises:
            PortError: the port is gone.
        """
        back = []
        for servo in reading.servos:
            if not servo.ok:
                self._silent[servo.servo_id] += 1
            elif self._silent[servo.servo_id] >= SILENT_CYCLES:
                back.append(servo.servo_id)
            else:
                self._silent[servo.servo_id] = 0
        found = self._bus.read_available(Reg.ACCELERATION, back) if back else {}
        self._silent |= dict.fromkeys(found, 0)
        self.unsure = len(found) < len(back)
        return tuple(servo_id for servo_id, value in found.items() if value != self._acceleration)
