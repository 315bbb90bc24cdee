# SPDX-License-Identifier: Apache-2.0
"""The safety gate: the last thing between a joint command and the servos, whatever is upstream.

A pure state machine: no clock, no bus, no ROS. `now` is monotonic time [s], angles are [rad], vectors are
(6,) in the order of `JOINT_NAMES`. Call `tick` once per cycle of the bus and write what it returns, goal
first, torque switch second. One thread owns a gate; `request_e_stop` alone is safe to call from another one.

| state    | torque            | goals written               | leaves by                           -> to   |
|----------|-------------------|-----------------------------|---------------------------------------------|
| DISABLED | off               | none                        | request_enable, fresh and well -> HOLD      |
| HOLD     | on, after priming | the frozen goal; none while | fresh command                  -> ENABLED   |
|          |                   | readings are stale          | priming failed, hold_release_s -> DISABLED  |
| ENABLED  | on                | ramped towards the command, | command or reading stale       -> HOLD      |
|          |                   | or along the park path      | parked                         -> DISABLED  |
| FAULT    | fault_action,     | none; the park path after   | request_enable, cause gone     -> HOLD      |
|          | overheat_action   | overheating                 | clear_fault                    -> DISABLED  |
| E_STOP   | e_stop_action     | none                        | clear_e_stop                   -> DISABLED  |

A fault leads from HOLD and ENABLED to FAULT, request_disable to DISABLED; request_e_stop leads from anywhere
to E_STOP. Enabling primes first: one tick writes goal := measured position, the next switches torque on if
the arm has stayed there. No command from before that moment is followed.
"""

from collections.abc import Sequence
import math

import numpy as np
import numpy.typing as npt

from so101_contract.joints import GRIPPER
from so101_driver.bus.registers import ServoError
from so101_driver.calibration.calibration import ArmReading
from so101_driver.gate.config import ExitPolicy, GateConfig, GRIPPER_INDEX, StopAction
from so101_driver.gate.follower import GoalFollower, Grip, ParkPath
from so101_driver.gate.health import HealthMonitor
from so101_driver.gate.inputs import CommandSlot, ReadingWatch, TickClock, TorqueSwitch
from so101_driver.gate.types import (
    Finding,
    GateCounters,
    GateOutput,
    GateState,
    Level,
    NUM_JOINTS,
    Reply,
    Vector,
)

SERVO_IDS = (1, 2, 3, 4, 5, 6)
HEAT = ('overheat', 'temperature')
"""Codes of the findings after which the arm may park."""
MAX_EVENTS = 50
"""Events kept while nobody ticks; the newest stay."""


class SafetyGate:
    """Decides in each tick which goals and which torque switch the servos get."""

    def __init__(self, config: GateConfig, servo_ids: tuple[int, ...] = SERVO_IDS) -> None:
        """Make a disabled gate.

        Args:
            config: every limit.
            servo_ids: id of each joint's servo, for messages.
        """
        if len(servo_ids) != NUM_JOINTS:
            raise ValueError(f'expected {NUM_JOINTS} servo ids, one per joint, got {servo_ids}.')
        self.config = config
        self.counters = GateCounters()
        self._clock = TickClock(config.max_tick_s)
        self._watch = ReadingWatch(config, servo_ids)
        self._health = HealthMonitor(config, servo_ids)
        self._follower = GoalFollower(config)
        self._command = CommandSlot(config, self.counters)
        self._torque = TorqueSwitch(config.torque_refresh_s)
        self._latched = False  # the e-stop: set before anything else, asked after everything else
        self._state = GateState.DISABLED
        self._reason = 'torque is off until the arm is enabled'
        self._in_state_s = 0.0
        self._priming = self._primed = False
        self._park: ParkPath | None = None
        self._exiting = False
        self._deaf_until = -math.inf
        self._findings: tuple[Finding, ...] = ()
        self._events: list[str] = []

    @property
    def state(self) -> GateState:
        """State now; E_STOP from the moment of the request."""
        return GateState.E_STOP if self._latched else self._state

    @property
    def reason(self) -> str:
        """Why the gate is in this state."""
        return self._reason

    @property
    def parking(self) -> bool:
        """Whether the arm is on its way to the rest pose. After `request_exit`: wait while this is true."""
        return self._park is not None and not self._latched

    @property
    def permits_goals(self) -> bool:
        """Whether a goal may be written at this moment; for a writer whose gate another thread can stop."""
        return self.state in (GateState.ENABLED, GateState.HOLD) or self.parking

    # Requests -----------------------------------------------------------------------------------------------

    def request_enable(self, now: float) -> Reply:
        """Switch torque on without a jump, if the arm is fresh and healthy; while parking: stop that."""
        if self._latched:
            return Reply(False, 'the e-stop is latched; clear it, then enable')
        if self._state in (GateState.ENABLED, GateState.HOLD):
            if not self.parking:
                return Reply(True, f'already enabled ({self._reason})')
            self._exiting = False
            self._enter(GateState.HOLD, 'parking was called off; waiting for a command')
            return Reply(True, self._reason)
        blocker = self._enable_blocker(now)
        if blocker:
            return Reply(False, f'not enabled: {blocker}')
        self._exiting = False
        self._enter(GateState.HOLD, 'enabling: writing the present position as the goal')
        self._priming, self._primed = True, False
        return Reply(True, 'enabling: the arm stays where it is until the first command')

    def request_disable(self, now: float, why: str = 'disabled on request') -> Reply:
        """Switch torque off; the arm falls. A latched e-stop and a fault stay."""
        self._torque.on = False
        if self._latched or self._state is GateState.FAULT:
            self._park = None
            return Reply(True, f'torque is off; the gate stays in {self.state}: {self._reason}')
        self._enter(GateState.DISABLED, why)
        return Reply(True, 'torque is off')

    def request_e_stop(self, now: float, why: str = 'e-stop pressed') -> Reply:
        """Stop: no goal leaves the gate from now until the stop is cleared and the arm enabled again."""
        first = not self._latched
        self._latched = True
        if first:
            self.counters.e_stops += 1
            self._enter(GateState.E_STOP, why)
        return Reply(True, f'stopped: {self._reason}; clear the e-stop, then enable')

    def clear_e_stop(self, now: float) -> Reply:
        """Take the latch back; torque is off until the arm is enabled."""
        if not self._latched:
            return Reply(True, 'the e-stop is not latched')
        self._enter(GateState.DISABLED, 'the e-stop was cleared; enable to go on')
        self._latched = False
        return Reply(True, self._reason)

    def clear_fault(self, now: float) -> Reply:
        """Leave FAULT with torque off; an arm that still held falls. Enabling goes on without a fall."""
        if self.state is not GateState.FAULT:
            return Reply(True, f'there is no fault to clear; the gate is in {self.state}')
        self._enter(GateState.DISABLED, 'the fault was cleared; enable to go on')
        return Reply(True, self._reason)

    def reconnected(self, now: float) -> None:
        """Take note that the arm was lost and is back: what was commanded before, or is on its way, moves nothing.

        Who commands has to hear of it first; so for as long as a command would last, none is taken.
        """
        if self.state in (GateState.ENABLED, GateState.HOLD) and not self._priming and not self.parking:
            self._enter(GateState.HOLD, 'the arm was connected again; waiting for a command')
            self._deaf_until = now + self.config.command_timeout_s

    def request_park(self, now: float) -> Reply:
        """Move slowly to the rest pose and release; commands are not followed meanwhile."""
        if self.state not in (GateState.ENABLED, GateState.HOLD) or self._priming:
            return Reply(False, f'cannot park in {self.state}: {self._reason}; enable the arm first')
        if not self.parking:
            self._park = ParkPath(self._follower.goal, self.config)
            self._enter(GateState.ENABLED, 'parking', keep_park=True)
        return Reply(True, 'moving to the rest pose, then releasing')

    def request_exit(self, now: float) -> Reply:
        """Do what the exit policy says; tick on while `parking`, then close the bus.

        Where the arm shall park and cannot (a fault, a stop), it is released: nobody watches it any longer.
        """
        if self.config.exit_policy == ExitPolicy.HOLD:
            return Reply(True, 'the torque stays as it is')
        self._exiting = True
        if self.config.exit_policy == ExitPolicy.PARK_AND_RELEASE:
            if self.parking:
                return Reply(True, 'already moving to the rest pose')
            reply = self.request_park(now)
            if reply.accepted:
                return reply
        return self.request_disable(now)

    def command(self, now: float, stamp_age: float, names: Sequence[str], positions: npt.ArrayLike) -> Reply:
        """Take a joint command for the coming ticks.

        Args:
            now: monotonic time [s].
            stamp_age: age of the command on arrival [s]; slightly negative where two clocks disagree.
            names: joint names, every joint of the arm once, in any order.
            positions: wanted joint positions [rad]; clipped into the limits.
        """
        active = self.state in (GateState.ENABLED, GateState.HOLD)
        following = active and not self._priming and not self.parking and now >= self._deaf_until
        closed = '' if following else f'{self.state}: {self._reason}'
        return self._command.offer(now, stamp_age, names, positions, closed)

    # The tick -----------------------------------------------------------------------------------------------

    def tick(self, now: float, measured: ArmReading) -> GateOutput:
        """Decide what the servos get now.

        Args:
            now: monotonic time [s].
            measured: the joints, read in this cycle.
        """
        tick = self._clock.advance(now)
        self._in_state_s += tick.dt
        self._torque.advance(tick.dt)
        self.counters.late_ticks += tick.late
        if tick.jumped:
            self.counters.clock_jumps += 1
            self._command.drop()  # its age can no longer be told
        self._watch.take(now, measured)
        self._findings = self._announced(self._health.update(measured))
        goal: Vector | None = None
        if not self._latched:
            if self._state in (GateState.ENABLED, GateState.HOLD):
                goal = self._tick_active(now, tick.dt)
            elif self._state is GateState.FAULT and self._park is not None:
                goal = self._tick_overheated(tick.dt)
        return self._output(goal)

    def _tick_active(self, now: float, dt: float) -> Vector | None:
        if self._priming:
            return self._tick_prime(now)
        worst = next((finding for finding in self._findings if finding.level is Level.FAULT), None)
        if worst is not None:
            self._fault(worst.sentence, overheat=worst.code in HEAT)
            return None
        if not self._watch.fresh:
            self._stale_readings()
            return None
        if self._park is not None:
            return self._tick_park(dt)
        return self._follow(now, dt)

    def _follow(self, now: float, dt: float) -> Vector | None:
        command = self._command.fresh(now)
        if command is not None:
            if self._state is not GateState.ENABLED:
                self._enter(GateState.ENABLED, 'following commands', keep_command=True)
            return self._move(command, dt)
        if self._state is GateState.ENABLED:
            self.counters.holds += 1
            self._enter(GateState.HOLD, f'no command for {self.config.command_timeout_s} s; waiting for one')
        if 0.0 < self.config.hold_release_s < self._in_state_s:
            self._enter(GateState.DISABLED, f'released: no command for {self.config.hold_release_s} s')
            return None
        # The goal stays, but for a joint outside its limits, pushed beyond the lead, or squeezing too hard.
        return self._move(self._follower.goal, dt)

    def _stale_readings(self) -> None:
        """Freeze without writing; readings that stay away are a fault."""
        self._follower.stop()
        who = self._watch.silent_joints()
        if self._watch.silent_s > self.config.reading_timeout_s:
            silent = f'{self._watch.silent_s:.1f} s'
            self._fault(f'no believable reading of {who} for {silent}; check cable and power')
        elif self._state is GateState.ENABLED and self._park is None:
            self.counters.holds += 1
            self._enter(GateState.HOLD, f'no fresh reading of {who}; holding', keep_command=True)

    def _tick_prime(self, now: float) -> Vector | None:
        """Write goal := measured, then switch torque on if the arm has stayed there."""
        blocker = self._enable_blocker(now)
        if not blocker:
            position = self._watch.reading.position_rad
            moved = float(np.max(np.abs(position - self._follower.goal)))
            if self._primed and moved <= self.config.enable_tolerance_rad:
                self._torque.on = True
                self._enter(GateState.HOLD, 'enabled; waiting for a command')
                return self._follower.goal.copy()
            if self._in_state_s <= self.config.enable_timeout_s:
                self._follower.seed(position)
                self._primed = True
                return self._follower.goal.copy()
            blocker = f'the arm moved by {moved:.2f} rad between two readings; hold it still'
        self._primed = False  # the goal written last may be old by the time that nothing blocks any longer
        if self._in_state_s > self.config.enable_timeout_s:
            if self._torque.on:  # it came from FAULT, where it still held
                self._fault(f'not enabled: {blocker}')
            else:
                self._enter(GateState.DISABLED, f'not enabled: {blocker}')
        return None

    def _tick_overheated(self, dt: float) -> Vector | None:
        """Go on parking after overheating, unless something worse comes."""
        worse = any(finding.level is Level.FAULT and finding.code not in HEAT for finding in self._findings)
        if worse or self._watch.silent_s > self.config.reading_timeout_s:
            self._park = None
            self._torque.on = self._torque.on and not self._releases_on_fault()
            self._say(f'parking was given up; {self._reason}')
        return self._tick_park(dt) if self._park is not None and self._watch.fresh else None

    def _tick_park(self, dt: float) -> Vector | None:
        park = self._park
        if park is None:
            return None
        park.advance(dt)
        if not park.finished(self._watch.reading.position_rad):
            return self._move(park.goal(), dt)
        if self._state is GateState.FAULT:
            self._park, self._torque.on = None, False
            self._say(f'parked and released; {self._reason}')
        else:
            self._enter(GateState.DISABLED, 'parked and released')
        return None

    def _move(self, target: Vector, dt: float) -> Vector:
        """Lead the goal towards a target; return it."""
        reading = self._watch.reading
        grip = Grip(
            velocity_rad_s=float(reading.velocity_rad_s[GRIPPER_INDEX]),
            load=float(reading.load[GRIPPER_INDEX]),
            overloaded=bool(int(reading.error[GRIPPER_INDEX]) & ServoError.OVERLOAD),
            fresh=bool(reading.fresh[GRIPPER_INDEX]),
        )
        goal = self._follower.lead(target, reading.position_rad, dt, grip)
        self.counters.ramp_limited += self._follower.ramp_limited
        self.counters.lead_limited += self._follower.lead_limited
        return goal

    # Helpers ------------------------------------------------------------------------------------------------

    def _output(self, goal: Vector | None) -> GateOutput:
        if self._latched:
            goal = None
            self._torque.on = self._torque.on and self.config.e_stop_action == StopAction.HOLD
        if goal is not None:
            goal.setflags(write=False)
        events, self._events = tuple(self._events), []
        return GateOutput(
            state=self.state,
            reason=self._reason,
            torque=self._torque.on,
            write_torque=self._torque.to_write(always=self._latched, quiet=goal is None),
            goal_rad=goal,
            prime=goal is not None and self._priming,
            torque_limit=self._torque_limit(),
            parking=self.parking,
            findings=self._findings,
            events=events,
        )

    def _torque_limit(self) -> Vector:
        limit = np.array(self.config.torque_limit)
        if any(found.joint == GRIPPER and found.code in ('hot', 'overheat') for found in self._findings):
            limit[GRIPPER_INDEX] = min(limit[GRIPPER_INDEX], self.config.gripper_hot_torque)
        limit.setflags(write=False)
        return limit

    def _enable_blocker(self, now: float) -> str:
        """Return why torque must not come on now, or an empty string."""
        if not self._watch.fresh:
            return (
                'expected a fresh and possible reading of every joint, got none of '
                f'{self._watch.silent_joints()}; check cable, power and calibration.'
            )
        if self._clock.since(now) > self.config.reading_max_age_s:
            return 'the readings are not being updated; check that the control loop runs.'
        return next(iter(self._health.enable_blockers(self._watch.reading)), '')

    def _releases_on_fault(self) -> bool:
        return self._exiting or self.config.fault_action == StopAction.RELEASE

    def _fault(self, sentence: str, *, overheat: bool = False) -> None:
        self.counters.faults += 1
        parks = overheat and self.config.overheat_action == StopAction.PARK
        if parks and self._park is None:
            self._park = ParkPath(self._follower.goal, self.config)
        self._enter(GateState.FAULT, sentence, keep_park=parks)
        if overheat and not parks:
            releases = self._exiting or self.config.overheat_action == StopAction.RELEASE
        else:
            releases = not parks and self._releases_on_fault()
        self._torque.on = self._torque.on and not releases

    def _enter(
        self, state: GateState, reason: str, *, keep_command: bool = False, keep_park: bool = False
    ) -> None:
        """Change the state. Priming ends; so do the command and parking, unless they are kept."""
        self._priming = False
        if not keep_command:
            self._command.drop()
        if not keep_park:
            self._park = None
        if state is GateState.DISABLED or (
            state is GateState.E_STOP and self.config.e_stop_action == StopAction.RELEASE
        ):
            self._torque.on = False
        if state is not GateState.ENABLED:
            self._follower.stop()
        if not self._torque.on:
            self._follower.let_go()
        self._state, self._reason, self._in_state_s = state, reason, 0.0
        self._say(f'{state}: {reason}')

    def _announced(self, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
        """Say each new finding once; return all."""
        known = {(finding.code, finding.joint) for finding in self._findings}
        for finding in findings:
            if (finding.code, finding.joint) not in known:
                self._say(f'{finding.level}: {finding.sentence}')
        return findings

    def _say(self, sentence: str) -> None:
        self._events.append(sentence)
        del self._events[:-MAX_EVENTS]
