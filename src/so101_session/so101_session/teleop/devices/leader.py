# SPDX-License-Identifier: Apache-2.0
"""A leader arm: a second arm on a second bus, held by a human.

While the policy drives, the leader is the follower's shadow, with gentle torque (`Shadow`). Whoever pulls it away, or
takes over in any other way, finds it limp, and the follower goes on from where it is. The arm, its bus and its gate
are those of the driver: nothing is enabled with a jump, a lost port comes back, and a hot servo lets go.

At a take-over the two arms may disagree. What counts is how the leader moves from there on (`Tracker`): the follower's
target is the leader's TCP plus an offset that is fixed at that moment (a clutch). Each step asks for the way from
where the follower was told to be to its target, so nothing that was cut or lost adds up.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
import math
import time

import numpy as np
import numpy.typing as npt

from so101_contract.joints import GRIPPER_CLOSED_RAD, GRIPPER_OPEN_RAD, gripper_rad_to_opening, JOINT_NAMES
from so101_driver.arm import Arm, ArmMismatchError
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import BusError
from so101_driver.calibration.calibration import ArmCalibration
from so101_driver.gate.config import GateConfig
from so101_driver.gate.gate import SafetyGate
from so101_driver.gate.types import GateState
from so101_kinematics.fk import ForwardKinematics
from so101_session.teleop.devices.base import (
    Axes,
    Device,
    DeviceError,
    DeviceState,
    Event,
    Feedback,
    FloatArray,
)

ALIGNED_RAD = 0.1
ALIGNED_FOR_S = 0.3
PATH_S = 0.8
"""A leader that lags is somewhere on the way that it was led in this time [s]; one that is pulled is not."""

ARM = slice(0, 5)


class Shadow:
    """Leads the leader to the follower: slowly until they agree, then as fast as the follower moves."""

    def __init__(self, align_speed_rad_s: float, speed_rad_s: float, pull_rad: float, pull_s: float) -> None:
        """Prepare.

        Args:
            align_speed_rad_s: of a joint, on the way to the follower.
            speed_rad_s: of a joint, once they agree.
            pull_rad: distance of a joint from where it was led that counts as pulled.
            pull_s: for how long.
        """
        self._align_speed, self._speed = align_speed_rad_s, speed_rad_s
        self._pull_rad, self._pull_s = pull_rad, pull_s
        self.begin()

    def begin(self) -> None:
        """Begin from where the leader is."""
        self.aligned = False
        self._goal: FloatArray | None = None
        self._path: deque[tuple[float, FloatArray]] = deque()
        self._near_s = self._pulled_s = math.inf
        self._now_s = -math.inf

    def goal(self, leader_rad: FloatArray, follower_rad: FloatArray, now: float) -> FloatArray:
        """Return where the leader is to go now (6,) [rad]."""
        if self._goal is None:
            self._goal, self._now_s = np.array(leader_rad), now
        largest = (self._speed if self.aligned else self._align_speed) * min(now - self._now_s, 0.1)
        self._goal = self._goal + np.clip(follower_rad - self._goal, -largest, largest)
        self._now_s = now
        self._path.append((now, self._goal))
        while self._path[0][0] < now - PATH_S:
            self._path.popleft()
        self._align(leader_rad, follower_rad, now)
        return self._goal

    def pulled(self, leader_rad: FloatArray, now: float) -> bool:
        """Return whether a hand holds the leader away from where it was led."""
        if not self.aligned or not self._path:
            self._pulled_s = math.inf
            return False
        off = min(float(np.max(np.abs(leader_rad - goal)[ARM])) for _, goal in self._path)
        if off <= self._pull_rad:
            self._pulled_s = math.inf
            return False
        self._pulled_s = min(self._pulled_s, now)
        return now - self._pulled_s >= self._pull_s

    def _align(self, leader_rad: FloatArray, follower_rad: FloatArray, now: float) -> None:
        if self.aligned:
            return
        if float(np.max(np.abs(leader_rad - follower_rad)[ARM])) > ALIGNED_RAD:
            self._near_s = math.inf
            return
        self._near_s = min(self._near_s, now)
        self.aligned = now - self._near_s >= ALIGNED_FOR_S


REST_SPEED_M_S = 0.005
SAG_S = 0.5
"""While leader and follower rest, what the follower lacks to its target is asked for again with this time constant."""

HANDLE_MOVE = 0.08
"""The gripper stays as it was commanded until the handle has moved by this share of its way."""

CATCH_UP_PER_S = 1.0
"""How fast the opening then goes to where the handle is [strokes/s]."""

CONTROLLER_LEASH_M = 0.04


@dataclass(frozen=True)
class Drive:
    """What the leader says.

    Attributes:
        displacement: of the follower's TCP in the coming step (3,) [m].
        opening: target opening, 0 closed .. 1 open.
    """

    displacement: Axes
    opening: float


class Handle:
    """The gripper's handle: absolute, and yet nothing is dropped at a take-over."""

    def __init__(self) -> None:
        self._opening: float | None = None
        self._begin = 0.0
        self._moved = False

    def engage(self, handle: float, commanded: float | None) -> None:
        """Begin with what the gripper was told last."""
        self._opening = handle if commanded is None else commanded
        self._begin, self._moved = handle, False

    def follow(self, handle: float, dt: float) -> float:
        """Return the opening for the handle's position; both 0..1."""
        assert self._opening is not None
        self._moved |= abs(handle - self._begin) > HANDLE_MOVE
        if self._moved:
            largest = CATCH_UP_PER_S * dt + abs(handle - self._begin)
            self._opening += min(max(handle - self._opening, -largest), largest)
            self._begin = handle
        return self._opening


class Tracker:
    """Follows the leader while the human drives. Times are monotonic [s]."""

    def __init__(
        self,
        tcp: str,
        scale_m: npt.ArrayLike,
        leash_m: float,
        locked: Mapping[str, float | None] | None = None,
    ) -> None:
        """Prepare.

        Args:
            tcp: TCP preset whose displacement is asked for.
            scale_m: largest displacement of a step along each axis (3,) [m].
            leash_m: how far the target may lead the follower; beyond, the clutch slips.
            locked: joints of the follower that do not move, and where they are locked [rad]; None: where it is.
                The leader's own such joints count for nothing.
        """
        self._fk = ForwardKinematics(tcp)
        self._scale = np.array(scale_m, dtype=np.float64)
        self._leash = leash_m
        self._locked = dict(locked or {})
        self._handle = Handle()
        self._offset: FloatArray | None = None
        self._told: FloatArray = np.zeros(3)
        self._executed: FloatArray = np.zeros(3)
        self._target: FloatArray = np.zeros(3)
        self._follower: FloatArray = np.zeros(3)
        self._now_s = -math.inf
        self.slipped_m = 0.0
        """How far the clutch has slipped since it was engaged [m]."""

    @property
    def engaged(self) -> bool:
        """Whether the clutch is in."""
        return self._offset is not None

    def release(self) -> None:
        """Take the clutch out."""
        self._offset = None

    def follow(self, leader_rad: FloatArray, feedback: Feedback, now: float) -> Drive | None:
        """Return what the leader says; the first call after `release` engages, and asks for no displacement.

        Args:
            leader_rad: joints of the leader (6,) [rad].
            feedback: the follower; without its joints nothing can be said.
            now: time [s].
        """
        if feedback.joints_rad is None:
            self.release()
            return None
        leader = self._tcp(leader_rad, feedback.joints_rad)
        follower = self._fk.position(np.asarray(feedback.joints_rad)[:5])
        handle = handle_opening(leader_rad)
        executed = np.array(feedback.executed_m)
        if self._offset is None:
            self._offset, self._told, self.slipped_m = follower - leader, follower, 0.0
            self._handle.engage(handle, feedback.opening)
            dt = 0.0
        else:
            dt = now - self._now_s
            self._told = self._told + (executed - self._executed)
        self._keep_near(follower, leader + self._offset, dt)
        self._executed, self._now_s, self._follower = executed, now, follower
        self._target = self._slip(leader)
        wanted = self._target - self._told
        wanted = wanted / max(1.0, float(np.max(np.abs(wanted) / self._scale)))
        x, y, z = map(float, wanted)
        return Drive((x, y, z), self._handle.follow(handle, dt))

    def _tcp(self, leader_rad: FloatArray, follower_rad: FloatArray) -> FloatArray:
        joints = np.array(leader_rad[:5], dtype=np.float64)
        for name, value in self._locked.items():
            index = JOINT_NAMES.index(name)
            joints[index] = follower_rad[index] if value is None else value
        return self._fk.position(joints)

    def _keep_near(self, follower: FloatArray, target: FloatArray, dt: float) -> None:
        """Do as the controller does: its setpoint is on a leash; and take out sag while all rest."""
        if dt > 0.0:
            speeds = (follower - self._follower, target - self._target)
            if all(np.linalg.norm(way) / dt < REST_SPEED_M_S for way in speeds):
                self._told = self._told + (follower - self._told) * min(dt / SAG_S, 1.0)
        ahead = self._told - follower
        far = float(np.linalg.norm(ahead))
        if far > CONTROLLER_LEASH_M:
            self._told = follower + ahead * (CONTROLLER_LEASH_M / far)

    def _slip(self, leader: FloatArray) -> FloatArray:
        assert self._offset is not None
        ahead = leader + self._offset - self._told
        far = float(np.linalg.norm(ahead))
        if far > self._leash:
            slip = ahead * (1.0 - self._leash / far)
            self._offset = self._offset - slip
            self.slipped_m += float(np.linalg.norm(slip))
        target: FloatArray = leader + self._offset
        return target


def handle_opening(leader_rad: FloatArray) -> float:
    """Return how open a leader's handle is, 0..1."""
    angle = min(max(float(leader_rad[-1]), GRIPPER_CLOSED_RAD), GRIPPER_OPEN_RAD)
    return float(gripper_rad_to_opening(angle))


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
        # A reading that was missed now and then leaves no gap in what the human does.
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
            gate.request_disable(now, 'the human leads')
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
