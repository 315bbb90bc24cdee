# SPDX-License-Identifier: Apache-2.0
"""Hostile sequences of commands, readings, times and requests: what may never happen, never happens."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, RuleBasedStateMachine
import numpy as np

from so101_contract.joints import JOINT_NAMES
from so101_driver.calibration.calibration import ArmReading
from so101_driver.gate.config import GateConfig, GRIPPER_INDEX
from so101_driver.gate.follower import GoalFollower
from so101_driver.gate.gate import SafetyGate
from so101_driver.gate.types import GateOutput, GateState, NUM_JOINTS

EPS = 1e-9
ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True, width=32)
SANE_POSITION = st.floats(-2.0, 2.0, width=32)
NAMES = st.one_of(
    st.just(JOINT_NAMES),
    st.permutations(JOINT_NAMES),
    st.lists(st.sampled_from([*JOINT_NAMES, 'tool', '']), max_size=8),
)
POSITIONS = st.one_of(
    st.lists(SANE_POSITION, min_size=6, max_size=6),
    st.lists(st.one_of(SANE_POSITION, ANY_FLOAT), min_size=6, max_size=6),
    st.lists(ANY_FLOAT, max_size=8),
)
# Mostly a 100 Hz loop with jitter, now and then a stall, a clock that runs backwards, or no time at all.
TIME_STEP = st.one_of(
    st.floats(0.005, 0.015),
    st.floats(0.005, 0.015),
    st.floats(0.005, 0.015),
    st.sampled_from([0.0, 1e-9, 0.1, 0.19, 0.6, 5.0, -0.01, -3.0, 1e9, math.nan, math.inf, -math.inf]),
)
SPOILED = {
    'position_rad': st.one_of(SANE_POSITION, ANY_FLOAT),
    'velocity_rad_s': ANY_FLOAT,
    'temperature_c': st.one_of(st.sampled_from([56.0, 66.0, 200.0]), ANY_FLOAT),
    'voltage_v': st.one_of(st.sampled_from([0.0, 4.2, 12.0]), ANY_FLOAT),
    'load': st.one_of(st.sampled_from([0.4, -0.9]), ANY_FLOAT),
    'error': st.integers(0, 255),
    'age_s': st.one_of(st.sampled_from([0.03, 0.06, 0.6, math.inf, -1.0]), ANY_FLOAT),
    'fresh': st.booleans(),
}


@st.composite
def spoilings(draw: st.DrawFn) -> tuple[str, int, object]:
    name = draw(st.sampled_from(sorted(SPOILED)))
    return name, draw(st.integers(0, NUM_JOINTS - 1)), draw(SPOILED[name])


class HostileWorld(RuleBasedStateMachine):
    """Drives a gate with anything and checks every output against the safety rules."""

    @initialize(
        e_stop_action=st.sampled_from(['release', 'hold']),
        fault_action=st.sampled_from(['release', 'hold']),
        overheat_action=st.sampled_from(['release', 'hold', 'park']),
        acceleration=st.sampled_from([0.0, 10.0]),
        hold_release_s=st.sampled_from([0.0, 0.3]),
        position=st.lists(st.floats(-2.0, 1.8), min_size=6, max_size=6),
    )
    def begin(self, e_stop_action, fault_action, overheat_action, acceleration, hold_release_s, position):
        self.config = GateConfig(
            e_stop_action=e_stop_action,
            fault_action=fault_action,
            overheat_action=overheat_action,
            max_acceleration_rad_s2=acceleration,
            hold_release_s=hold_release_s,
        )
        self.gate = SafetyGate(self.config)
        self.position = np.array(position)
        self.now = 1000.0
        self.last_now: float | None = None
        self.latched = False
        self.commanded = False  # a command was accepted since the last enabling
        self.armed = False  # an enabling was accepted since the last stop, disabling or release
        self.goal: np.ndarray | None = None  # the last one written
        self.last: GateOutput | None = None
        self.follow = 0.3

    @rule(names=NAMES, positions=POSITIONS, age=st.one_of(st.just(0.0), ANY_FLOAT))
    def send_anything(self, names, positions, age):
        self.commanded |= self.gate.command(self.now, age, names, positions).accepted

    @rule(
        dt=TIME_STEP,
        n=st.integers(1, 30),
        spoiling=st.one_of(st.none(), st.none(), spoilings()),
        wanted=st.one_of(st.none(), st.lists(st.floats(-9.0, 9.0), min_size=6, max_size=6)),
    )
    def let_time_pass(self, dt, n, spoiling, wanted):
        for _ in range(n):
            if wanted is not None:
                self.commanded |= self.gate.command(self.now, 0.0, JOINT_NAMES, wanted).accepted
            self.step(dt, spoiling)

    @rule(follow=st.sampled_from([0.0, 0.3, 1.0]))
    def let_the_joints_be_stuck_or_free(self, follow):
        self.follow = follow

    @rule(joint=st.integers(0, 5), by=st.floats(-2.5, 2.5))
    def push_a_joint(self, joint, by):
        self.position[joint] = np.clip(self.position[joint] + by, -2.2, 2.2)

    @rule()
    def enable_a_healthy_arm(self):
        """Reach the states that matter often."""
        self.position = np.clip(self.position, self.config.joint_lower_rad, self.config.joint_upper_rad)
        self.clear_e_stop()
        for _ in range(4):
            self.step(0.01, None)
        self.enable()
        for _ in range(3):
            self.step(0.01, None)

    @rule(
        request=st.sampled_from(
            ['enable', 'disable', 'e_stop', 'clear_e_stop', 'clear_fault', 'park', 'exit']
        )
    )
    def request_anything(self, request):
        getattr(self, request)()

    def enable(self):
        if self.gate.parking:
            self.commanded = False
        self.armed = self.gate.request_enable(self.now).accepted or self.armed

    def disable(self):
        assert self.gate.request_disable(self.now).accepted
        self.armed = False

    def e_stop(self):
        assert self.gate.request_e_stop(self.now).accepted
        self.latched, self.armed = True, False

    def clear_e_stop(self):
        assert self.gate.clear_e_stop(self.now).accepted
        self.latched = False

    def clear_fault(self):
        if self.gate.state is GateState.FAULT:
            self.armed = False
        self.gate.clear_fault(self.now)

    def park(self):
        self.gate.request_park(self.now)

    def exit(self):
        self.gate.request_exit(self.now)

    def step(self, dt: float, spoiling: tuple[str, int, object] | None) -> None:
        now = self.now + dt
        if math.isfinite(now):
            self.now = now
        if self.goal is not None and self.last is not None and self.last.torque:
            self.position = self.position + self.follow * np.clip(self.goal - self.position, -0.1, 0.1)
        values = {
            'position_rad': self.position.copy(),
            'velocity_rad_s': np.zeros(6),
            'temperature_c': np.full(6, 35.0),
            'voltage_v': np.full(6, 7.2),
            'current_a': np.zeros(6),
            'load': np.full(6, 0.05),
            'error': np.zeros(6, dtype=int),
            'age_s': np.zeros(6),
            'fresh': np.ones(6, dtype=bool),
        }
        if spoiling is not None:
            name, joint, value = spoiling
            values[name][joint] = value
        reading = ArmReading(**values)
        output = self.gate.tick(now, reading)
        self.check(output, reading, now)
        if output.goal_rad is not None:
            self.goal = output.goal_rad
        self.last = output
        if math.isfinite(now):
            self.last_now = now
        if not output.torque and not output.prime and output.state is not GateState.HOLD:
            self.armed = False

    def check(self, output: GateOutput, reading: ArmReading, now: float) -> None:
        config, goal = self.config, output.goal_rad
        was_on = self.last is not None and self.last.torque
        if output.state is GateState.DISABLED:
            assert not output.torque
            assert goal is None
        if self.latched:
            assert output.state is GateState.E_STOP
            assert goal is None
            assert not output.torque or (config.e_stop_action == 'hold' and was_on)
            assert output.torque or output.write_torque
        if output.state is GateState.FAULT and not output.parking:
            assert goal is None
        if output.torque and not was_on:
            assert self.last is not None
            assert self.last.prime, 'torque came on without a primed goal'
            assert goal is not None
            assert np.all(np.abs(goal - reading.position_rad) <= config.enable_tolerance_rad + EPS)
        if output.torque != was_on:
            assert output.write_torque
        if goal is None:
            return
        assert self.armed, 'a goal without an accepted enabling'
        assert goal.shape == (6,)
        assert np.all(np.isfinite(goal))
        assert np.all(reading.age_s <= config.reading_max_age_s)
        if output.prime:
            assert np.array_equal(goal, reading.position_rad)
            self.commanded = False
            return
        assert self.goal is not None
        step = np.abs(goal - self.goal)
        dt = now - self.last_now if self.last_now is not None and math.isfinite(now) else 0.0
        dt = min(max(dt, 0.0), config.max_tick_s)
        assert np.all(step <= np.array(config.max_speed_rad_s) * dt + EPS), 'faster than the ramp'
        inside = (self.goal >= config.joint_lower_rad) & (self.goal <= config.joint_upper_rad)
        inside[GRIPPER_INDEX] = False  # it may give way
        if not self.commanded and not output.parking:
            free = inside & (np.abs(self.goal - reading.position_rad) <= config.max_lead_rad)
            assert np.all(step[free] <= EPS), 'moves without a command'
        low = np.minimum(config.joint_lower_rad, self.goal)
        high = np.maximum(config.joint_upper_rad, self.goal)
        assert np.all((goal >= low - EPS) & (goal <= high + EPS)), 'outside the limits, or farther outside'
        lead = np.abs(goal - reading.position_rad)
        before = np.abs(self.goal - reading.position_rad)
        assert np.all(lead <= np.maximum(config.max_lead_rad, before) + EPS), 'leads too far'


TestHostileWorld = HostileWorld.TestCase
TestHostileWorld.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

VECTOR = st.lists(st.floats(-4.0, 4.0), min_size=6, max_size=6).map(np.array)


@given(
    start=VECTOR,
    target=VECTOR,
    measured=VECTOR,
    dts=st.lists(st.floats(0.0, 0.02), min_size=1, max_size=30),
    acceleration=st.sampled_from([0.0, 1.0, 50.0]),
)
@settings(max_examples=150, deadline=None)
def test_no_step_of_the_ramp_breaks_a_limit(start, target, measured, dts, acceleration):
    config = GateConfig(max_acceleration_rad_s2=acceleration)
    ramp = GoalFollower(config)
    ramp.seed(start)
    for dt in dts:
        before = ramp.goal.copy()
        goal = ramp.lead(target, measured, dt)
        assert np.all(np.abs(goal - before) <= np.array(config.max_speed_rad_s) * dt + EPS)
        assert np.all(goal >= np.minimum(ramp.lower, before) - EPS)
        assert np.all(goal <= np.maximum(ramp.upper, before) + EPS)
        lead = np.abs(goal - measured)
        assert np.all(lead <= np.maximum(config.max_lead_rad, np.abs(before - measured)) + EPS)


@given(start=VECTOR, target=VECTOR, acceleration=st.sampled_from([0.0, 5.0, 50.0]))
@settings(max_examples=40, deadline=None)
def test_a_free_arm_always_reaches_the_clamped_target(start, target, acceleration):
    ramp = GoalFollower(GateConfig(max_acceleration_rad_s2=acceleration, recovery_speed_rad_s=1.0))
    ramp.seed(ramp.clamp(start))
    for _ in range(600):
        ramp.lead(target, ramp.goal.copy(), 0.02)
    np.testing.assert_allclose(ramp.goal, ramp.clamp(target), atol=1e-3)


def test_a_target_in_reach_is_where_the_ramp_would_end(monkeypatch):
    short, ramp = GoalFollower(GateConfig()), GoalFollower(GateConfig())
    monkeypatch.setattr(ramp, '_in_reach', lambda *_: False)
    rng = np.random.default_rng(0)
    position = np.array([0.0, -0.25, 0.3, 1.2, 0.0, 0.5])
    short.seed(position)
    ramp.seed(position)
    for number in range(400):
        spread = (0.005, 0.05, 0.5, 3.0)[number % 4]
        target = ramp.goal + rng.normal(0.0, spread, 6)
        position = ramp.goal + rng.normal(0.0, 0.1, 6)
        short.lead(target, position, 0.01)
        ramp.lead(target, position, 0.01)
        assert np.allclose(short.goal, ramp.goal, atol=1e-12)
