# SPDX-License-Identifier: Apache-2.0
from dataclasses import fields, replace
import math

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.registers import ServoError
from so101_driver.calibration.calibration import ArmReading
from so101_driver.gate.config import GateConfig
from so101_driver.gate.follower import ParkPath
from so101_driver.gate.gate import SafetyGate
from so101_driver.gate.types import GateOutput, GateState, Level
from so101_interfaces_py.params import describe

DT = 0.01
GRIPPER = 5
HOME = np.array([0.1, -0.5, 0.6, 0.3, -0.2, 0.5])


class Bench:
    """A gate on six servos with a lag, at 100 Hz."""

    def __init__(self, config: GateConfig | None = None, position: np.ndarray = HOME) -> None:
        self.config = config or GateConfig()
        self.gate = SafetyGate(self.config)
        self.position = np.array(position, dtype=float)
        self.now = 100.0
        self.blocked = np.zeros(6, dtype=bool)
        self.silent = np.zeros(6, dtype=bool)
        self.age = np.zeros(6)
        self.change: dict[str, np.ndarray] = {}
        self.outputs: list[GateOutput] = []
        self.servo_goal: np.ndarray | None = None
        self.tick()

    def reading(self, velocity: np.ndarray | None = None) -> ArmReading:
        values = {
            'position_rad': self.position,
            'velocity_rad_s': np.zeros(6) if velocity is None else velocity,
            'temperature_c': np.full(6, 35.0),
            'voltage_v': np.full(6, 7.2),
            'current_a': np.full(6, 0.1),
            'load': np.where(self.blocked, 0.5, 0.05),
            'error': np.zeros(6, dtype=int),
            'age_s': self.age,
            'fresh': ~self.silent,
            **self.change,
        }
        return ArmReading(**values)

    def tick(self, command: np.ndarray | None = None, dt: float = DT) -> GateOutput:
        self.now += dt
        if command is not None:
            self.gate.command(self.now, 0.0, JOINT_NAMES, command)
        before = self.position.copy()
        if self.servo_goal is not None:
            step = np.clip(0.2 * (self.servo_goal - self.position), -4.7 * dt, 4.7 * dt)
            self.position = np.where(self.blocked, self.position, self.position + step)
        self.age = np.where(self.silent, self.age + dt, 0.0)
        output = self.gate.tick(self.now, self.reading((self.position - before) / dt))
        if output.goal_rad is not None:
            self.servo_goal = output.goal_rad
        if not output.torque and output.goal_rad is None:
            self.servo_goal = None
        self.outputs.append(output)
        return output

    def run(self, seconds: float, command: np.ndarray | None = None) -> list[GateOutput]:
        return [self.tick(command) for _ in range(round(seconds / DT))]

    def enable(self) -> 'Bench':
        verdict = self.gate.request_enable(self.now)
        assert verdict.accepted, verdict.sentence
        self.run(0.03)
        assert self.gate.state is GateState.HOLD
        assert self.outputs[-1].torque
        return self

    def set(self, **change: object) -> None:
        """Change one value of one joint: `set(temperature_c=(4, 70.0))`."""
        for name, (joint, value) in change.items():
            values = np.array(getattr(self.reading(), name))
            values[joint] = value
            self.change[name] = values


def enabled(**change: object) -> Bench:
    return Bench(GateConfig(**change)).enable()


def away(joint: int, by: float) -> np.ndarray:
    target = HOME.copy()
    target[joint] += by
    return target


# Disabled and enabling


def test_disabled_gate_keeps_torque_off_and_never_writes_a_goal():
    bench = Bench()
    outputs = bench.run(2.0, away(0, 1.0))
    assert all(not o.torque and o.goal_rad is None and o.state is GateState.DISABLED for o in outputs)


def test_first_output_switches_torque_off_and_repeats_it_later():
    bench = Bench()
    bench.run(1.1)
    writes = [o.write_torque for o in bench.outputs]
    assert writes[0]
    assert sum(writes) == 3


def test_P8_goal_is_the_present_position_before_torque_comes_on():
    bench = Bench()
    bench.gate.request_enable(bench.now)
    first, second = bench.tick(), bench.tick()
    assert (first.prime, first.torque) == (True, False)
    np.testing.assert_array_equal(first.goal_rad, HOME)
    assert (second.prime, second.torque, second.write_torque) == (False, True, True)
    np.testing.assert_array_equal(second.goal_rad, HOME)


@given(
    position=st.lists(st.floats(-1.6, 1.6), min_size=6, max_size=6),
    target=st.lists(st.floats(-9.0, 9.0), min_size=6, max_size=6),
)
@settings(max_examples=30, deadline=None)
def test_P8_first_command_after_enabling_moves_no_joint_faster_than_the_ramp(position, target):
    bench = Bench(position=np.clip(position, GateConfig().joint_lower_rad, GateConfig().joint_upper_rad))
    start = bench.position.copy()
    bench.gate.command(bench.now, 0.0, JOINT_NAMES, target)
    bench.enable()
    speeds = np.array(bench.config.max_speed_rad_s)
    previous = start
    for _ in range(20):
        goal = bench.tick(np.array(target)).goal_rad
        assert np.all(np.abs(goal - previous) <= speeds * DT + 1e-12)
        previous = goal


def test_P8_a_command_from_before_enabling_is_dropped():
    bench = Bench()
    assert not bench.gate.command(bench.now, 0.0, JOINT_NAMES, away(0, 1.0)).accepted
    bench.enable()
    bench.run(0.1)
    np.testing.assert_array_equal(bench.outputs[-1].goal_rad, HOME)
    assert bench.gate.counters.dropped == 1


def test_a_command_during_priming_is_dropped():
    bench = Bench()
    bench.gate.request_enable(bench.now)
    bench.tick(away(0, 1.0))
    bench.tick()
    assert bench.tick().state is GateState.HOLD
    np.testing.assert_array_equal(bench.outputs[-1].goal_rad, HOME)


def test_enabling_twice_is_harmless():
    bench = enabled()
    goal = bench.outputs[-1].goal_rad
    assert bench.gate.request_enable(bench.now).accepted
    output = bench.tick()
    assert output.torque
    assert not output.prime
    np.testing.assert_array_equal(output.goal_rad, goal)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'voltage_v': (2, 12.1)}, ('elbow_flex', 'servo 3', '12.1 V', 'wrong')),
        ({'voltage_v': (2, 4.1)}, ('elbow_flex', '4.1 V', 'weak')),
        ({'voltage_v': (2, math.nan)}, ('elbow_flex', 'servo 3')),
        ({'temperature_c': (4, 61.0)}, ('wrist_roll', '61 degC', 'below 60')),
        ({'error': (1, int(ServoError.OVERLOAD))}, ('shoulder_lift', 'servo 2', 'overload')),
        ({'error': (1, int(ServoError.ENCODER))}, ('shoulder_lift', 'encoder')),
        ({'position_rad': (0, math.nan)}, ('shoulder_pan', 'servo 1')),
        ({'position_rad': (0, 6.0)}, ('shoulder_pan', 'impossible 6.00 rad')),
        ({'age_s': (3, 0.4)}, ('wrist_flex', 'servo 4', 'fresh')),
        ({'age_s': (3, math.inf)}, ('wrist_flex',)),
    ],
    ids=lambda value: '-'.join(value) if isinstance(value, dict) else '',
)
def test_enabling_is_refused_with_a_sentence_that_names_the_joint(change, words):
    bench = Bench()
    bench.set(**change)
    bench.tick()
    verdict = bench.gate.request_enable(bench.now)
    assert not verdict.accepted
    for word in words:
        assert word in verdict.sentence, verdict.sentence
    assert not any(o.torque for o in bench.run(0.2))


def test_enabling_is_refused_before_the_first_reading():
    assert not SafetyGate(GateConfig()).request_enable(1.0).accepted


def test_enabling_is_refused_when_the_loop_has_stopped():
    bench = Bench()
    assert not bench.gate.request_enable(bench.now + 1.0).accepted
    assert not bench.gate.request_enable(math.nan).accepted


def test_torque_stays_off_while_the_arm_moves_and_enabling_is_given_up():
    bench = Bench()
    bench.gate.request_enable(bench.now)
    for _ in range(70):
        bench.position = bench.position + 0.06 * (-1) ** len(bench.outputs)
        bench.servo_goal = None
        output = bench.tick()
        assert not output.torque
        if output.goal_rad is not None:
            assert output.prime
            np.testing.assert_array_equal(output.goal_rad, bench.position)
    assert output.state is GateState.DISABLED
    assert 'hold it still' in output.reason


def test_enabling_ends_without_torque_when_readings_stop():
    bench = Bench()
    bench.gate.request_enable(bench.now)
    bench.silent[2] = True
    bench.age[2] = 1.0
    outputs = bench.run(0.7)
    assert not any(o.torque or o.goal_rad is not None for o in outputs)
    assert outputs[-1].state is GateState.DISABLED
    assert 'elbow_flex' in outputs[-1].reason


def test_an_arm_outside_its_limits_is_led_inside_slowly_without_a_jump():
    position = HOME.copy()
    position[1] = -1.745 - 0.1
    bench = Bench(position=position).enable()
    goals = np.array([o.goal_rad[1] for o in bench.outputs if o.goal_rad is not None])
    assert goals[0] == pytest.approx(-1.845)
    bench.run(0.6, np.array([0.1, -9.0, 0.6, 0.3, -0.2, 0.5]))
    goals = np.array([o.goal_rad[1] for o in bench.outputs if o.goal_rad is not None])
    steps = np.diff(goals)
    assert np.all(steps >= 0.0)
    assert np.max(steps) <= bench.config.recovery_speed_rad_s * DT + 1e-12
    assert goals[-1] == pytest.approx(bench.config.joint_lower_rad[1])


# Commands


@pytest.mark.parametrize(
    ('names', 'positions', 'word'),
    [
        (JOINT_NAMES, [0.0, math.nan, 0.0, 0.0, 0.0, 0.0], 'shoulder_lift'),
        (JOINT_NAMES, [0.0, 0.0, math.inf, 0.0, 0.0, 0.0], 'elbow_flex'),
        (JOINT_NAMES, [0.0] * 5, 'shape (5,)'),
        (JOINT_NAMES, [], 'shape (0,)'),
        (JOINT_NAMES, [[0.0] * 6], 'shape (1, 6)'),
        (JOINT_NAMES, [0.0, None, 'x', 0.0, 0.0, 0.0], 'numbers'),
        (JOINT_NAMES[:5], [0.0] * 5, 'gripper'),
        ((*JOINT_NAMES[:5], 'tool'), [0.0] * 6, 'tool'),
        ((*JOINT_NAMES, 'tool'), [0.0] * 7, 'tool'),
        ((*JOINT_NAMES[:5], 'elbow_flex'), [0.0] * 6, 'elbow_flex'),
        ((), [], 'shoulder_pan'),
    ],
)
def test_A14_a_malformed_command_is_refused_counted_and_moves_nothing(names, positions, word):
    bench = enabled()
    verdict = bench.gate.command(bench.now, 0.0, names, positions)
    assert not verdict.accepted
    assert word in verdict.sentence, verdict.sentence
    bench.run(0.3)
    np.testing.assert_array_equal(bench.outputs[-1].goal_rad, HOME)
    assert bench.gate.counters.refused == 1
    assert bench.gate.counters.commands == 0


def test_A14_a_nan_command_does_not_keep_an_old_one_alive():
    bench = enabled()
    bench.run(0.1, away(0, 1.0))
    for _ in range(30):
        bench.tick(np.full(6, math.nan))
    assert bench.gate.state is GateState.HOLD


@pytest.mark.parametrize('age', [0.21, 5.0, -0.21, math.nan, math.inf, -math.inf])
def test_A14_a_command_stale_or_from_the_future_on_arrival_is_refused(age):
    bench = enabled()
    assert not bench.gate.command(bench.now, age, JOINT_NAMES, away(0, 1.0)).accepted
    assert bench.tick().state is GateState.HOLD
    assert bench.gate.counters.stale == 1


def test_joints_are_taken_by_name_never_by_order():
    bench = enabled()
    target = away(0, 0.3)
    for _ in range(60):
        bench.gate.command(bench.now, 0.0, JOINT_NAMES[::-1], target[::-1])
        bench.tick()
    np.testing.assert_allclose(bench.outputs[-1].goal_rad, target, atol=1e-9)


def test_a_command_beyond_the_limits_is_clamped_and_counted():
    bench = enabled()
    verdict = bench.gate.command(bench.now, 0.0, JOINT_NAMES, np.full(6, 9.0))
    assert verdict.accepted
    assert 'shoulder_pan' in verdict.sentence
    bench.run(3.0, np.full(6, 9.0))
    np.testing.assert_allclose(bench.outputs[-1].goal_rad, bench.config.joint_upper_rad)
    assert bench.gate.counters.clamped == 301


def test_P11_A14_a_command_older_than_the_timeout_means_hold_without_creep():
    bench = enabled()
    bench.run(0.3, away(0, 1.2))
    moving = bench.outputs[-1]
    assert moving.state is GateState.ENABLED
    outputs = bench.run(1.0)
    held = [o for o in outputs if o.state is GateState.HOLD]
    assert 0.15 <= (len(outputs) - len(held)) * DT <= 0.25
    assert all(np.array_equal(o.goal_rad, held[0].goal_rad) for o in held)
    assert np.max(np.abs(held[0].goal_rad - moving.goal_rad)) <= 0.25 * 2.0
    assert bench.gate.counters.holds == 1


def test_a_fresh_command_ends_hold_with_a_ramp():
    bench = enabled()
    bench.run(0.3, away(0, 1.0))
    bench.run(1.0)
    held = bench.outputs[-1].goal_rad
    output = bench.tick(away(0, -1.0))
    assert output.state is GateState.ENABLED
    assert output.goal_rad[0] == pytest.approx(held[0] - 2.0 * DT)


def test_hold_releases_only_where_that_is_asked_for():
    bench = enabled()
    assert all(o.torque for o in bench.run(5.0))
    bench = enabled(hold_release_s=1.0)
    outputs = bench.run(1.5)
    assert outputs[50].torque
    assert not outputs[-1].torque
    assert outputs[-1].state is GateState.DISABLED


# The ramp


def test_a_goal_arrives_exactly_and_at_the_configured_speed():
    bench = enabled()
    bench.run(0.25, away(0, 1.0))
    assert bench.outputs[-1].goal_rad[0] - HOME[0] == pytest.approx(0.5)
    bench.run(0.4, away(0, 1.0))
    assert bench.outputs[-1].goal_rad[0] == HOME[0] + 1.0
    assert bench.gate.counters.ramp_limited > 0


def test_a_stalled_loop_does_not_make_the_goal_jump():
    bench = enabled()
    bench.run(0.1, away(0, 1.5))
    before = bench.outputs[-1].goal_rad[0]
    after = bench.tick(away(0, 1.5), dt=3.0).goal_rad[0]
    assert after - before <= 2.0 * bench.config.max_tick_s + 1e-12
    assert bench.gate.counters.late_ticks == 1


@pytest.mark.parametrize('now', [50.0, math.nan, math.inf, -math.inf])
def test_a_broken_clock_holds_instead_of_moving(now):
    bench = enabled()
    bench.run(0.1, away(0, 1.5))
    before = bench.outputs[-1].goal_rad
    output = bench.gate.tick(now, bench.reading())
    assert output.goal_rad is None or np.array_equal(output.goal_rad, before)
    assert output.state is GateState.HOLD
    assert bench.gate.counters.clock_jumps == 1
    bench.now = bench.now if not math.isfinite(now) else now
    assert bench.run(0.1, away(0, 1.5))[-1].state is GateState.ENABLED


def test_a_goal_never_leads_a_stalled_joint_by_more_than_the_lead():
    bench = enabled()
    bench.blocked[1] = True
    bench.run(3.0, away(1, 1.5))
    lead = bench.outputs[-1].goal_rad[1] - bench.position[1]
    assert lead == pytest.approx(bench.config.max_lead_rad)
    assert bench.gate.counters.lead_limited > 0
    bench.blocked[1] = False
    previous = bench.outputs[-1].goal_rad
    for output in bench.run(0.5, away(1, 1.5)):
        assert np.max(np.abs(output.goal_rad - previous)) <= 3.0 * DT + 1e-12
        previous = output.goal_rad


def test_a_free_joint_is_never_slowed_down_by_the_lead():
    bench = enabled()
    bench.run(0.5, away(0, 1.5))
    assert bench.gate.counters.lead_limited == 0


def test_the_goal_follows_a_joint_that_is_pushed_away():
    bench = enabled()
    bench.run(0.1, HOME)
    bench.servo_goal = None
    bench.blocked[:] = True
    bench.position = away(0, -1.0)
    previous = bench.outputs[-1].goal_rad[0]
    for output in bench.run(1.0, HOME):
        assert abs(output.goal_rad[0] - previous) <= 2.0 * DT + 1e-12
        previous = output.goal_rad[0]
    assert previous == pytest.approx(HOME[0] - 1.0 + bench.config.max_lead_rad)


def test_with_an_acceleration_limit_the_goal_starts_and_stops_smoothly_and_does_not_overshoot():
    bench = enabled(max_acceleration_rad_s2=8.0)
    outputs = bench.run(1.5, away(0, 1.0))
    goals = np.array([HOME[0]] + [o.goal_rad[0] for o in outputs])
    speed = np.diff(goals) / DT
    assert np.max(speed) <= 2.0 + 1e-9
    assert np.max(np.abs(np.diff(speed))) <= 8.0 * DT * 1.5 + 1e-9
    assert np.max(goals) <= HOME[0] + 1.0 + 1e-9
    assert goals[-1] == pytest.approx(HOME[0] + 1.0, abs=1e-6)


def test_an_output_goal_cannot_be_changed_from_outside():
    bench = enabled()
    output = bench.tick(away(0, 1.0))
    with pytest.raises(ValueError, match='read-only'):
        output.goal_rad[0] = 9.0


# Readings


def test_P1_lost_packets_of_a_few_cycles_do_not_stop_the_motion():
    bench = enabled()
    target = away(0, 1.0)
    for i in range(60):
        bench.silent[:] = i % 5 != 0
        assert bench.tick(target).state is GateState.ENABLED
    assert bench.outputs[-1].goal_rad[0] == HOME[0] + 1.0


def test_a_silent_joint_means_hold_at_once_and_fault_later():
    bench = enabled()
    bench.run(0.1, away(0, 1.0))
    before = bench.outputs[-1].goal_rad
    bench.silent[3] = True
    outputs = bench.run(0.8, away(0, 1.0))
    states = [o.state for o in outputs]
    assert states.index(GateState.HOLD) * DT <= bench.config.reading_max_age_s + DT
    assert abs(states.index(GateState.FAULT) * DT - bench.config.reading_timeout_s) <= 2 * DT
    frozen = [o for o in outputs if o.state is not GateState.ENABLED]
    assert all(o.goal_rad is None and o.torque for o in frozen)
    assert all(not o.write_torque for o in frozen)
    assert 'wrist_flex (servo 4)' in outputs[-1].reason
    assert np.max(np.abs(outputs[5].goal_rad - before) if outputs[5].goal_rad is not None else 0.0) <= 0.15


def test_motion_goes_on_with_a_ramp_when_readings_return_in_time():
    bench = enabled()
    bench.run(0.1, away(0, 1.5))
    bench.silent[:] = True
    bench.run(0.3, away(0, 1.5))
    last = next(o.goal_rad for o in reversed(bench.outputs) if o.goal_rad is not None)
    bench.silent[:] = False
    output = bench.tick(away(0, 1.5))
    assert output.state is GateState.ENABLED
    assert np.max(np.abs(output.goal_rad - last)) <= 3.0 * DT + 1e-12


@pytest.mark.parametrize('value', [math.nan, 7.0, -math.inf])
def test_an_impossible_position_is_treated_as_no_reading(value):
    bench = enabled()
    bench.run(0.1, away(0, 0.5))
    bench.set(position_rad=(2, value))
    output = bench.tick(away(0, 0.5))
    assert output.state is GateState.HOLD
    assert output.goal_rad is None
    assert 'elbow_flex' in output.reason
    bench.change.clear()
    assert bench.tick(away(0, 0.5)).state is GateState.ENABLED


def test_fault_action_release_switches_torque_off():
    bench = enabled(fault_action='release')
    bench.silent[:] = True
    outputs = bench.run(0.8)
    assert outputs[-1].state is GateState.FAULT
    assert not outputs[-1].torque
    assert any(o.write_torque for o in outputs[-60:])


def test_enabling_after_a_fault_goes_on_without_dropping_the_arm():
    bench = enabled()
    bench.silent[:] = True
    bench.run(0.8)
    assert not bench.gate.request_enable(bench.now).accepted
    bench.silent[:] = False
    bench.position = bench.position + 0.2
    bench.servo_goal = None
    bench.tick()
    assert bench.gate.state is GateState.FAULT
    assert bench.gate.request_enable(bench.now).accepted
    first, second = bench.tick(), bench.tick()
    assert first.prime
    assert first.torque
    assert second.torque
    np.testing.assert_allclose(first.goal_rad, HOME + 0.2)


def test_clearing_a_fault_releases_and_needs_enabling_again():
    bench = enabled()
    bench.silent[:] = True
    bench.run(0.8)
    bench.silent[:] = False
    assert bench.gate.clear_fault(bench.now).accepted
    output = bench.tick(away(0, 1.0))
    assert (output.state, output.torque, output.goal_rad) == (GateState.DISABLED, False, None)
    bench.enable()


def test_disabling_in_a_fault_releases_but_the_fault_stays():
    bench = enabled()
    bench.silent[:] = True
    bench.run(0.8)
    assert bench.gate.request_disable(bench.now).accepted
    output = bench.tick()
    assert (output.state, output.torque) == (GateState.FAULT, False)


# E-stop


def test_P11_e_stop_latches_before_anything_else_and_no_goal_follows():
    bench = enabled()
    bench.run(0.1, away(0, 1.0))
    bench.gate.request_e_stop(bench.now, 'red button')
    assert bench.gate.state is GateState.E_STOP
    assert not bench.gate.permits_goals
    for output in bench.run(2.0, away(0, 1.0)):
        assert output.goal_rad is None
        assert not output.torque
        assert output.write_torque
    assert output.reason == 'red button'


@pytest.mark.parametrize('request_name', ['request_enable', 'request_park', 'clear_fault', 'request_exit'])
def test_no_request_but_clearing_ends_an_e_stop(request_name):
    bench = enabled()
    bench.gate.request_e_stop(bench.now)
    getattr(bench.gate, request_name)(bench.now)
    output = bench.tick(away(0, 1.0))
    assert (output.state, output.torque, output.goal_rad) == (GateState.E_STOP, False, None)


def test_after_clearing_an_e_stop_the_arm_stays_off_until_it_is_enabled():
    bench = enabled()
    bench.run(0.1, away(0, 1.0))
    bench.gate.request_e_stop(bench.now)
    bench.run(0.1, away(0, 1.0))
    bench.gate.clear_e_stop(bench.now)
    assert all(not o.torque and o.goal_rad is None for o in bench.run(0.5, away(0, 1.0)))
    bench.position = away(0, -0.5)
    bench.gate.request_enable(bench.now)
    np.testing.assert_array_equal(bench.tick().goal_rad, bench.position)


def test_a_command_from_before_an_e_stop_is_not_followed_after_a_quick_restart():
    bench = enabled()
    bench.run(0.1, away(0, 1.0))
    bench.gate.request_e_stop(bench.now)
    bench.gate.clear_e_stop(bench.now)
    bench.gate.request_enable(bench.now)
    outputs = bench.run(0.1)
    assert outputs[-1].state is GateState.HOLD
    np.testing.assert_array_equal(outputs[-1].goal_rad, outputs[0].goal_rad)


def test_e_stop_works_from_every_state_and_is_idempotent():
    for prepare in (
        lambda b: None,
        lambda b: b.gate.request_enable(b.now),
        lambda b: b.enable(),
        lambda b: b.enable().run(0.1, HOME),
        lambda b: (b.enable(), b.gate.request_park(b.now), b.run(0.1)),
    ):
        bench = Bench()
        prepare(bench)
        assert bench.gate.request_e_stop(bench.now).accepted
        assert bench.gate.request_e_stop(bench.now).accepted
        assert bench.gate.counters.e_stops == 1
        assert all(not o.torque and o.goal_rad is None for o in bench.run(0.3, HOME))


def test_e_stop_that_holds_leaves_the_torque_on_and_writes_nothing_until_disabled():
    bench = enabled(e_stop_action='hold')
    bench.gate.request_e_stop(bench.now)
    outputs = bench.run(1.0, away(0, 1.0))
    assert all(o.torque and o.goal_rad is None and not o.write_torque for o in outputs)
    bench.gate.request_disable(bench.now)
    output = bench.tick()
    assert (output.state, output.torque, output.write_torque) == (GateState.E_STOP, False, True)


def test_e_stop_that_holds_does_not_switch_torque_on():
    bench = Bench(GateConfig(e_stop_action='hold'))
    bench.gate.request_e_stop(bench.now)
    assert not any(o.torque for o in bench.run(0.2))


# Health


def test_one_damaged_packet_is_no_fault():
    bench = enabled()
    bench.set(temperature_c=(1, 200.0), error=(1, 0xFF))
    bench.tick(HOME)
    bench.change.clear()
    assert all(o.state is GateState.ENABLED for o in bench.run(0.2, HOME))


@pytest.mark.parametrize(
    ('change', 'code', 'words'),
    [
        ({'error': (3, int(ServoError.OVERLOAD))}, 'overload', ('wrist_flex', 'servo 4', 'power-cycle')),
        ({'error': (3, int(ServoError.ENCODER))}, 'encoder', ('wrist_flex', 'servo 4')),
        ({'error': (3, int(ServoError.CURRENT))}, 'current', ('wrist_flex', 'servo 4')),
        ({'voltage_v': (0, 12.3)}, 'overvoltage', ('shoulder_pan', '12.3 V')),
    ],
)
def test_P10_servo_faults_stop_the_arm_with_a_sentence(change, code, words):
    bench = enabled()
    bench.run(0.1, away(0, 1.0))
    bench.set(**change)
    output = bench.run(0.1, away(0, 1.0))[-1]
    assert output.state is GateState.FAULT
    assert output.torque
    assert output.goal_rad is None
    assert code in [f.code for f in output.findings if f.level is Level.FAULT]
    for word in words:
        assert word in output.reason
    assert bench.gate.counters.faults == 1


@pytest.mark.parametrize(
    ('change', 'code'),
    [
        ({'voltage_v': (0, 4.2)}, 'sag'),
        ({'error': (0, int(ServoError.VOLTAGE))}, 'voltage'),
        ({'temperature_c': (0, 57.0)}, 'hot'),
        ({'error': (GRIPPER, int(ServoError.OVERLOAD))}, 'overload'),
    ],
)
def test_warnings_are_said_once_and_do_not_stop_the_arm(change, code):
    bench = enabled()
    bench.set(**change)
    outputs = bench.run(0.3, HOME)
    assert outputs[-1].state is GateState.ENABLED
    assert [f.code for f in outputs[-1].findings] == [code]
    assert sum(event.startswith('warn') for o in outputs for event in o.events) == 1


def test_P10_overheating_parks_the_arm_and_then_releases_it():
    bench = enabled()
    bench.set(temperature_c=(GRIPPER, 66.0))
    outputs = bench.run(5.0, away(0, 1.0))
    assert outputs[10].state is GateState.FAULT
    assert outputs[10].torque
    assert outputs[10].parking
    last_goal = [o.goal_rad for o in outputs if o.goal_rad is not None][-1]
    np.testing.assert_allclose(last_goal[:5], bench.config.rest_rad[:5], atol=0.02)
    assert (outputs[-1].state, outputs[-1].torque, outputs[-1].parking) == (GateState.FAULT, False, False)
    assert 'gripper (servo 6) is at 66 degC' in outputs[-1].reason


@pytest.mark.parametrize(('action', 'torque'), [('hold', True), ('release', False)])
def test_overheating_holds_or_releases_where_that_is_asked_for(action, torque):
    bench = enabled(overheat_action=action)
    bench.set(temperature_c=(1, 66.0))
    output = bench.run(0.2, HOME)[-1]
    assert (output.state, output.torque, output.goal_rad) == (GateState.FAULT, torque, None)


def test_parking_after_overheating_ends_when_the_encoder_fails_too():
    bench = enabled()
    bench.set(temperature_c=(GRIPPER, 66.0))
    bench.run(0.5)
    bench.set(error=(0, int(ServoError.ENCODER)))
    output = bench.run(0.2)[-1]
    assert (output.parking, output.goal_rad, output.torque) == (False, None, True)


def test_P10_a_hot_gripper_gets_less_torque_until_it_has_cooled():
    bench = enabled()
    assert bench.tick(HOME).torque_limit[GRIPPER] == 0.5
    for celsius, limit in ((55.0, 0.35), (53.0, 0.35), (51.0, 0.5), (54.0, 0.5)):
        bench.set(temperature_c=(GRIPPER, celsius))
        assert bench.run(0.1, HOME)[-1].torque_limit[GRIPPER] == limit


def test_P21_a_12_volt_supply_on_7_4_volt_servos_is_recognised_and_12_volt_servos_are_supported():
    bench = Bench()
    bench.change['voltage_v'] = np.full(6, 12.1)
    bench.tick()
    assert 'wrong' in bench.gate.request_enable(bench.now).sentence
    bench = Bench(GateConfig(supply_min_v=9.5, supply_max_v=14.0))
    bench.change['voltage_v'] = np.full(6, 12.1)
    bench.tick()
    bench.enable()


# Gripper


def test_P10_the_gripper_does_not_squeeze_beyond_contact():
    bench = enabled()
    bench.blocked[GRIPPER] = True
    bench.run(1.0, away(GRIPPER, -0.6))
    squeeze = bench.position[GRIPPER] - bench.outputs[-1].goal_rad[GRIPPER]
    assert squeeze == pytest.approx(bench.config.gripper_squeeze_rad)
    bench.run(1.0)
    assert bench.outputs[-1].state is GateState.HOLD
    assert bench.position[GRIPPER] - bench.outputs[-1].goal_rad[GRIPPER] == pytest.approx(squeeze)


def test_P10_an_overloaded_gripper_stops_pushing_altogether():
    bench = enabled()
    bench.blocked[GRIPPER] = True
    bench.run(0.5, away(GRIPPER, -0.6))
    bench.set(error=(GRIPPER, int(ServoError.OVERLOAD)))
    bench.run(0.3, away(GRIPPER, -0.6))
    assert bench.outputs[-1].goal_rad[GRIPPER] == pytest.approx(bench.position[GRIPPER])
    assert bench.outputs[-1].state is GateState.ENABLED


def test_the_gripper_opens_again_after_contact():
    bench = enabled()
    bench.blocked[GRIPPER] = True
    bench.run(1.0, away(GRIPPER, -0.6))
    bench.blocked[GRIPPER] = False
    bench.run(1.0, away(GRIPPER, 0.5))
    assert bench.position[GRIPPER] == pytest.approx(HOME[GRIPPER] + 0.5, abs=0.01)


def test_the_gripper_closes_on_when_the_object_is_gone():
    bench = enabled()
    bench.blocked[GRIPPER] = True
    bench.run(1.0, away(GRIPPER, -0.6))
    bench.blocked[GRIPPER] = False
    bench.run(2.0, away(GRIPPER, -0.6))
    assert bench.position[GRIPPER] == pytest.approx(HOME[GRIPPER] - 0.6, abs=0.01)


def test_a_free_gripper_is_not_taken_for_one_in_contact():
    bench = enabled()
    bench.run(0.5, away(GRIPPER, -0.6))
    assert bench.position[GRIPPER] == pytest.approx(HOME[GRIPPER] - 0.6, abs=0.01)


# Parking and exit


def test_A12_parking_moves_slowly_to_the_rest_pose_and_then_releases():
    bench = enabled()
    assert bench.gate.request_park(bench.now).accepted
    previous, steps = HOME, []
    while bench.gate.parking:
        output = bench.tick(away(0, 1.0))
        if output.goal_rad is not None:
            assert output.torque
            steps.append(np.max(np.abs(output.goal_rad - previous)))
            previous = output.goal_rad
    assert max(steps) <= bench.config.park_speed_rad_s * DT * 1.01
    np.testing.assert_allclose(previous[:5], bench.config.rest_rad[:5], atol=0.01)
    assert previous[GRIPPER] == HOME[GRIPPER]
    assert not bench.tick().torque
    assert bench.gate.state is GateState.DISABLED


def test_parking_ends_in_time_when_the_arm_is_blocked():
    bench = enabled()
    bench.blocked[:] = True
    bench.gate.request_park(bench.now)
    outputs = bench.run(bench.config.park_timeout_s + 0.5)
    assert not outputs[-1].torque
    assert not bench.gate.parking


def test_parking_freezes_while_readings_are_missing_and_stops_when_they_stay_away():
    bench = enabled()
    bench.gate.request_park(bench.now)
    bench.run(0.2)
    bench.silent[:] = True
    outputs = bench.run(0.8)
    assert all(o.goal_rad is None for o in outputs[10:])
    assert outputs[-1].state is GateState.FAULT


def test_enabling_calls_parking_off():
    bench = enabled()
    bench.gate.request_park(bench.now)
    bench.run(0.2)
    assert bench.gate.request_enable(bench.now).accepted
    outputs = bench.run(3.0)
    assert all(o.torque and np.array_equal(o.goal_rad, outputs[0].goal_rad) for o in outputs)


@pytest.mark.parametrize(
    ('policy', 'parks', 'torque'),
    [('park_and_release', True, False), ('release', False, False), ('hold', False, True)],
)
def test_A12_the_torque_state_at_exit_is_the_configured_one(policy, parks, torque):
    bench = enabled(exit_policy=policy)
    assert bench.gate.request_exit(bench.now).accepted
    assert bench.gate.parking is parks
    deadline = bench.now + 10.0
    bench.tick()
    while bench.gate.parking and bench.now < deadline:
        bench.tick()
    assert not bench.gate.parking
    assert bench.outputs[-1].torque is torque


def test_A12_exit_releases_an_arm_that_cannot_park():
    bench = enabled()
    bench.silent[:] = True
    bench.run(0.8)
    bench.gate.request_exit(bench.now)
    assert not bench.gate.parking
    assert not bench.tick().torque


def test_A12_a_fault_while_parking_at_exit_releases():
    bench = enabled()
    bench.gate.request_exit(bench.now)
    bench.run(0.3)
    bench.silent[:] = True
    output = bench.run(0.8)[-1]
    assert (output.state, output.torque) == (GateState.FAULT, False)
    assert not bench.gate.parking


def test_the_way_to_the_rest_pose_does_not_touch_the_table():
    mujoco = pytest.importorskip('mujoco')
    spec = pytest.importorskip('so101_description.model').build_spec(visuals='none')
    spec.worldbody.add_geom(name='table', type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1.0, 1.0, 0.1])
    model = spec.compile()
    data = mujoco.MjData(model)
    config, rng = GateConfig(), np.random.default_rng(3)

    def depth(q: np.ndarray, *, table_only: bool) -> float:
        """Deepest contact [m]."""
        data.qpos[:6] = q
        mujoco.mj_fwdPosition(model, data)
        contacts = data.contact[: data.ncon]
        return -min(
            (c.dist for c in contacts if not table_only or 0 in model.geom_bodyid[c.geom]), default=0.0
        )

    tried = 0
    while tried < 60:
        start = rng.uniform(config.joint_lower_rad, config.joint_upper_rad)
        if depth(start, table_only=False) > 0.001 or data.site('tcp').xpos[2] > 0.12:
            continue
        tried += 1
        path = ParkPath(start, config)
        while path.elapsed_s < path.duration_s:
            path.advance(0.05)
            assert depth(path.goal(), table_only=True) < 0.002
    assert depth(np.array(config.rest_rad), table_only=False) < 0.002


# Configuration and bookkeeping


@pytest.mark.parametrize(
    'change',
    [
        {'max_speed_rad_s': (2.0,) * 5},
        {'max_speed_rad_s': (2.0, 2.0, 2.0, 2.0, 2.0, -1.0)},
        {'joint_lower_rad': (2.0,) * 6},
        {'rest_rad': (0.0, -3.0, 1.5, 1.0, 0.0, 0.0)},
        {'temperature_warn_c': 70.0},
        {'supply_min_v': 9.0},
        {'reading_timeout_s': 0.03},
        {'gripper_contact_load': 0.4},
        {'e_stop_action': 'park'},
        {'exit_policy': 'drop'},
        {'max_lead_rad': math.nan},
        {'confirm_readings': 0},
    ],
    ids='-'.join,
)
def test_a_senseless_configuration_is_refused_with_the_name_of_the_parameter(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        GateConfig(**change)


def test_every_parameter_is_declared_with_a_sentence():
    infos = describe(GateConfig)
    assert set(infos) == {f.name for f in fields(GateConfig)}
    assert all(info.doc.endswith('.') for info in infos.values())


def test_events_name_every_change_of_state_once():
    bench = enabled()
    bench.run(0.1, HOME)
    bench.run(0.4)
    bench.gate.request_e_stop(bench.now)
    bench.tick()
    starts = [event.split(':')[0] for o in bench.outputs for event in o.events]
    assert starts == ['hold', 'hold', 'enabled', 'hold', 'e_stop']


def test_a_reading_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match='position_rad'):
        replace(Bench().reading(), position_rad=np.zeros(5))


def test_the_number_of_servo_ids_is_checked():
    with pytest.raises(ValueError, match='servo ids'):
        SafetyGate(GateConfig(), servo_ids=(1, 2, 3))


def test_a_stop_from_another_thread_during_a_tick_wins():
    bench = enabled()
    bench.run(0.1, away(0, 1.0))
    original = bench.gate._move

    def stop_in_the_middle(target, dt):
        bench.gate.request_e_stop(bench.now)
        return original(target, dt)

    bench.gate._move = stop_in_the_middle
    output = bench.tick(away(0, 1.0))
    assert (output.goal_rad, output.torque, output.state) == (None, False, GateState.E_STOP)
