# SPDX-License-Identifier: Apache-2.0
"""A leader arm: a second arm on a second bus, held by a person.

While the policy drives, the leader is the follower's shadow, with gentle torque. Whoever pulls it away, or takes over
in any other way, finds it limp, and the follower goes on from where it is. The arm, its bus and its gate are those of
the driver: nothing is enabled with a jump, a lost port comes back, and a hot servo lets go.
"""

from dataclasses import replace
import math
import time

import numpy as np

from so101_contract.joints import JOINT_NAMES
from so101_driver.arm import Arm, ArmMismatchError
from so101_driver.bus import ServoBus
from so101_driver.calibration import ArmCalibration
from so101_driver.errors import BusError
from so101_driver.gate import SafetyGate
from so101_driver.gate_config import GateConfig
from so101_driver.gate_types import GateState
from so101_session.teleop.devices.base import Device, DeviceError, DeviceState, Event, Feedback, FloatArray
from so101_session.teleop.devices.leader_tracking import Tracker
from so101_session.teleop.devices.shadow import Shadow

SILENCE_S = 0.3
"""A leader whose joints were not all read for this long is dead [s]."""

ENABLE_PERIOD_S = 0.5
CONFIRM_S = 1.5
"""A pull that the session does not answer for this long is forgotten [s]."""

MAX_TICK_S = 0.1
# A shadow may be slower to hold than the arm that works: nothing depends on where it is.
READING_MAX_AGE_S = 0.15
READING_TIMEOUT_S = 1.0
COMMAND_TIMEOUT_S = 0.5
_ON = (GateState.ENABLED, GateState.HOLD)


def leader_arm(port: str, calibration: ArmCalibration, torque: float, supply_max_v: float) -> Arm:
    """Return a leader that is not connected yet.

    Args:
        port: of its bus.
        calibration: its own; its handle is no jaw, so the range of the handle stands for that of the jaw.
        torque: share of the full torque with which it follows.
        supply_max_v: above this it is not enabled [V].
    """
    calibration = replace(calibration, gripper_map='linear')
    gate = GateConfig(
        torque_limit=(torque,) * len(JOINT_NAMES),
        gripper_hot_torque=torque,
        gripper_contact_load=min(0.2, 0.5 * torque),
        max_tick_s=MAX_TICK_S,
        reading_max_age_s=READING_MAX_AGE_S,
        reading_timeout_s=READING_TIMEOUT_S,
        command_timeout_s=COMMAND_TIMEOUT_S,
        supply_max_v=supply_max_v,
        exit_policy='release',
        fault_action='release',
        overheat_action='release',
        e_stop_action='release',
    )
    ids = tuple(joint.id for joint in calibration.joints.values())
    return Arm(ServoBus(port, ids=ids), calibration, SafetyGate(gate, ids), time.monotonic)


class Leader(Device):
    """The leader as a device; drives while the session says so, or from the moment of a pull."""

    def __init__(self, arm: Arm, tracker: Tracker, shadow: Shadow) -> None:
        """Connect.

        Raises:
            DeviceError: the arm is not there, or is another one.
        """
        self._arm, self._tracker, self._shadow = arm, tracker, shadow
        self._feedback = Feedback()
        self._pose: FloatArray | None = None
        self._drives = False
        self._heard_s = self._enable_s = -math.inf
        self._pulled_s = math.inf
        try:
            arm.connect()
        except (BusError, ArmMismatchError) as error:
            arm.close()
            raise DeviceError(f'the leader arm cannot be used: {error}') from error

    @property
    def drives(self) -> bool:
        """Whether the leader leads, as opposed to follows."""
        return self._drives

    def feel(self, feedback: Feedback, now: float) -> None:
        """Take what the follower does; the session says who drives."""
        was, self._feedback = self._feedback.intervening, feedback
        if feedback.intervening:
            self._pulled_s = math.inf
            self._lead(True)
        elif was or now - self._pulled_s > CONFIRM_S:
            self._pulled_s = math.inf
            self._lead(False)

    def poll(self, now: float) -> DeviceState:
        """Read the leader, and lead it or be led."""
        state = self._arm.cycle()
        if state.complete:
            self._heard_s, self._pose = now, state.reading.position_rad.copy()
        elif now - self._heard_s > SILENCE_S:
            self._pose = None
            self._tracker.release()
            self._shadow.begin()
            return DeviceState(alive=False, note='the leader arm does not answer; check its cable and power')
        if self._pose is None:
            return DeviceState(note='waiting for the joints of the leader')
        # A reading that was missed now and then leaves no gap in what the person does.
        return self._drive(self._pose, now) if self._drives else self._follow(self._pose, now)

    def close(self) -> None:
        """Let the leader go limp and close its port."""
        self._arm.close()

    def _lead(self, wanted: bool) -> None:
        if wanted == self._drives:
            return
        self._drives = wanted
        self._tracker.release()
        self._shadow.begin()

    def _drive(self, leader: FloatArray, now: float) -> DeviceState:
        gate = self._arm.gate
        if gate.state in _ON:
            gate.request_disable(now, 'the person leads')
        drive = self._tracker.follow(leader, self._feedback, now)
        if drive is None:
            return DeviceState(note='waiting for the joints of the follower')
        slipped = self._tracker.slipped_m
        note = f'leading, {100 * slipped:.0f} cm slipped' if slipped > 0.01 else 'leading'
        return DeviceState(active=True, displacement=drive.displacement, opening=drive.opening, note=note)

    def _follow(self, leader: FloatArray, now: float) -> DeviceState:
        follower = self._feedback.joints_rad
        if follower is None:
            self._shadow.begin()  # the gate holds the leader where it is
            return DeviceState(note='waiting for the joints of the follower')
        gate = self._arm.gate
        if gate.state not in _ON:
            self._shadow.begin()
            self._enable(now)
            return DeviceState(note=f'the leader is limp: {gate.reason}')
        goal = self._shadow.goal(leader, np.asarray(follower), now)
        gate.command(now, 0.0, JOINT_NAMES, goal)
        if self._shadow.pulled(leader, now):
            self._pulled_s = now
            self._lead(True)
            return replace(self._drive(leader, now), events=(Event.TAKEOVER,))
        return DeviceState(note='shadowing' if self._shadow.aligned else 'aligning with the follower')

    def _enable(self, now: float) -> None:
        if now - self._enable_s < ENABLE_PERIOD_S:
            return
        self._enable_s = now
        gate = self._arm.gate
        if gate.state is GateState.FAULT:
            gate.clear_fault(now)
        gate.request_enable(now)
