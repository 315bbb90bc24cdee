# SPDX-License-Identifier: Apache-2.0
"""Arm on the byte-level virtual arm, without ROS."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
import time

import numpy as np
import pytest

from so101_contract.joints import JOINT_LIMITS_RAD, JOINT_NAMES
import so101_driver.arm
from so101_driver.arm import Arm, ArmMismatchError, ArmState, SERVO_SETTINGS
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import BusError, HandshakeError, PortError
from so101_driver.bus.registers import MULTI_TURN_PHASE_BIT, Reg, ServoError
from so101_driver.calibration.calibration import ArmCalibration, RAD_PER_TICK
from so101_driver.calibration.servo import read_servo_values
from so101_driver.emulator.arm import calibrated_arm, virtual_calibration, VirtualArm
from so101_driver.emulator.faults import FaultRates
from so101_driver.gate.config import GateConfig
from so101_driver.gate.gate import SafetyGate
from so101_driver.gate.types import GateState

CALIBRATION = virtual_calibration()
POSE = np.array([0.2, -0.6, 0.7, 0.4, -0.3, 0.8])
LIMITS = np.array([JOINT_LIMITS_RAD[name] for name in JOINT_NAMES])
TICK = 1.01 * RAD_PER_TICK
PERIOD_S = 0.005


class Rig:
    """An arm, the virtual arm behind it, and the loop that the node would run."""

    def __init__(self, virtual: VirtualArm, calibration: ArmCalibration, config: GateConfig) -> None:
        self.virtual = virtual
        self.gate = SafetyGate(config)
        self.arm = Arm(ServoBus(virtual.port), calibration, self.gate, time.monotonic)

    def run_until(
        self, condition: Callable[[ArmState], object], what: str, deadline_s: float = 100.0
    ) -> ArmState:
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            state = self.arm.cycle()
            if condition(state):
                return state
            time.sleep(PERIOD_S)
        pytest.fail(
            f'Not within {deadline_s} s: {what}; the gate is in {self.gate.state}: {self.gate.reason}'
        )

    def cycles(self, count: int) -> list[ArmState]:
        states = []
        for _ in range(count):
            states.append(self.arm.cycle())
            time.sleep(PERIOD_S)
        return states

    def enable(self) -> None:
        self.run_until(lambda state: state.complete, 'a complete reading')
        verdict = self.gate.request_enable(time.monotonic())
        assert verdict.accepted, verdict.sentence
        self.run_until(lambda _: 'waiting for a command' in self.gate.reason, 'the arm enabled')
        # The switch was written; the servos read it a moment later.
        self.run_until(lambda _: all(servo.torque_on for servo in self.virtual.servos), 'the torque')

    def follow(self, target: np.ndarray, until: Callable[[ArmState], object], what: str) -> ArmState:
        """Stream a command until a condition holds."""

        def step(state: ArmState) -> object:
            self.gate.command(time.monotonic(), 0.0, JOINT_NAMES, target)
            return until(state)

        return self.run_until(step, what)

    def place(self, pose: np.ndarray) -> None:
        for servo, encoder in zip(self.virtual.servos, CALIBRATION.rad_to_encoder_ticks(pose), strict=True):
            self.virtual.set_position(servo.servo_id, float(encoder))

    def goals(self, after_s: float = 0.0) -> list[int]:
        return [event.value for event in self.virtual.log.events(Reg.GOAL_POSITION, after_s=after_s)]

    def registers(self, register: Reg) -> list[int]:
        return [servo.get(register) for servo in self.virtual.servos]


@contextmanager
def make_rig(
    calibration: ArmCalibration = CALIBRATION, config: GateConfig | None = None, pose: np.ndarray = POSE
) -> Iterator[Rig]:
    with calibrated_arm(calibration, pose, pacing=False) as virtual:
        rig = Rig(virtual, calibration, config or GateConfig())
        try:
            yield rig
        finally:
            rig.arm.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    with make_rig() as rig:
        rig.arm.connect()
        yield rig


# ---- connecting ------------------------------------------------------------------------------------------


def test_connecting_moves_nothing_and_switches_nothing_on(rig):
    assert rig.virtual.log.energising() == []
    assert rig.virtual.log.events(Reg.TORQUE_ENABLE) == []


def test_connecting_sets_every_servo_up(rig):
    for register, value in SERVO_SETTINGS.items():
        assert rig.registers(register) == [value] * 6, register.name


def test_connecting_spares_the_memory_cells_of_what_is_set_at_every_start(rig):
    stored = [servo.get_stored(Reg.P_COEFFICIENT) for servo in rig.virtual.servos]
    assert stored == [Reg.P_COEFFICIENT.default] * 6


def test_P10_torque_limits_are_in_force_now_and_after_the_next_power_on():
    config = GateConfig(torque_limit=(1.0, 0.9, 0.8, 0.7, 0.6, 0.5))
    with make_rig(config=config) as rig:
        rig.arm.connect()
        assert rig.registers(Reg.TORQUE_LIMIT) == [1000, 900, 800, 700, 600, 500]
        assert [servo.get_stored(Reg.MAX_TORQUE_LIMIT) for servo in rig.virtual.servos] == [
            *(1000, 900, 800, 700, 600, 500)
        ]


def test_connecting_takes_a_servo_out_of_multi_turn_mode_for_good():
    with make_rig() as rig:
        servo = rig.virtual.servo(3)
        servo.set(Reg.PHASE, servo.get(Reg.PHASE) | MULTI_TURN_PHASE_BIT)
        rig.arm.connect()
        assert not servo.get_stored(Reg.PHASE) & MULTI_TURN_PHASE_BIT


@pytest.mark.parametrize(
    'register', [Reg.HOMING_OFFSET, Reg.MIN_POSITION_LIMIT, Reg.MAX_POSITION_LIMIT], ids=lambda r: r.name
)
def test_another_arm_than_the_calibrated_one_is_refused_before_anything_is_written(register):
    with make_rig() as rig:
        rig.virtual.servo(3).set(register, rig.virtual.servo(3).get(register) + 5)
        with pytest.raises(ArmMismatchError, match=r'elbow_flex.* in the file and .* in the servo'):
            rig.arm.connect()
        assert rig.virtual.log.events() == []


def test_one_damaged_reading_sends_nobody_to_calibrate(monkeypatch):
    with make_rig() as rig:
        servo, readings = rig.virtual.servo(3), []

        def read(bus):
            held = servo.get(Reg.MAX_POSITION_LIMIT)
            if not readings:  # one answer is that of another register
                servo.set(Reg.MAX_POSITION_LIMIT, 0)
            readings.append(read_servo_values(bus))
            servo.set(Reg.MAX_POSITION_LIMIT, held)
            return readings[-1]

        monkeypatch.setattr(so101_driver.arm, 'read_servo_values', read)
        with pytest.raises(BusError, match=r'range_max.*once only'):
            rig.arm.connect()
        rig.arm.connect()
        assert len(readings) == 3


def test_a_missing_servo_is_named():
    with make_rig() as rig:
        rig.virtual.faults.mute([4])
        with pytest.raises(HandshakeError, match='no answer from 4'):
            rig.arm.connect()


def test_a_port_that_is_not_there_is_named():
    arm = Arm(ServoBus('/dev/no-such-arm'), CALIBRATION, SafetyGate(GateConfig()), time.monotonic)
    with pytest.raises(PortError, match='/dev/no-such-arm does not exist'):
        arm.connect()


@pytest.mark.parametrize('share', [0.01, 0.05], ids=['1%', '5%'])
def test_P1_connecting_survives_bad_packets(share):
    for seed in range(3):
        with make_rig() as rig:
            rig.virtual.faults.__init__(seed)
            rig.virtual.faults.set_rates(FaultRates.bad_packets(share))
            rig.arm.connect()
            assert rig.registers(Reg.ACCELERATION) == [SERVO_SETTINGS[Reg.ACCELERATION]] * 6


# ---- reading ---------------------------------------------------------------------------------------------


def test_joint_states_are_where_the_joints_are(rig):
    state = rig.run_until(lambda state: state.complete, 'a complete reading')
    assert state.reading.position_rad == pytest.approx(POSE, abs=TICK)
    assert state.reading.stamp_s <= time.monotonic()


@pytest.mark.parametrize('end', [0, 1], ids=['below', 'above'])
def test_joint_states_beyond_the_limits_are_not_clamped(rig, end):
    beyond = LIMITS[:, end] + 0.15 * (2 * end - 1)
    rig.place(beyond)
    state = rig.run_until(lambda state: state.complete, 'a complete reading')
    assert state.reading.position_rad == pytest.approx(beyond, abs=TICK)


@pytest.mark.parametrize('sign', [1, -1], ids=['sign +1', 'sign -1'])
@pytest.mark.parametrize('way', [1.0, -1.0], ids=['up', 'down'])
def test_velocities_have_the_sign_of_the_motion(sign, way):
    joints = {name: replace(CALIBRATION[name], sign=sign) for name in JOINT_NAMES}
    with make_rig(ArmCalibration(joints), pose=np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.8])) as rig:
        rig.arm.connect()
        rig.enable()
        target = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.8]) + 0.5 * way
        moving = rig.follow(
            target,
            lambda state: np.all(way * state.velocity_rad_s > 0.5),
            f'motion at more than {0.5 * way} rad/s',
        )
        assert np.all(way * moving.reading.velocity_rad_s > 0.0)
        assert np.max(np.abs(moving.velocity_rad_s)) < 4.0


def test_P1_a_damaged_or_missing_answer_costs_one_servo_its_freshness_and_no_more(rig):
    rig.cycles(3)
    for fault in ('drop', 'corrupt', 'truncate', 'noise', 'delay'):
        rig.virtual.faults.inject(fault, servo_id=3, count=1)
        states = rig.cycles(4)
        assert all(np.isfinite(state.reading.position_rad).all() for state in states)
        rig.run_until(lambda state: state.complete, 'a whole reading')
    assert rig.gate.state is GateState.DISABLED


def test_P1_the_cycle_goes_on_when_every_fifth_answer_is_bad(rig):
    rig.enable()
    rig.virtual.faults.set_rates(FaultRates.bad_packets(0.2))
    target = POSE + np.array([0.4, 0.3, -0.3, 0.3, 0.4, 0.2])
    rig.follow(
        target,
        lambda state: np.max(np.abs(state.reading.position_rad - target)) < 0.02,
        'the arm at the commanded pose',
    )
    assert rig.gate.state in (GateState.ENABLED, GateState.HOLD)


# ---- writing ---------------------------------------------------------------------------------------------


def test_P8_enabling_writes_the_present_position_before_the_torque(rig):
    far = LIMITS[:, 1] - 0.1
    rig.gate.command(time.monotonic(), 0.0, JOINT_NAMES, far)
    rig.enable()
    log = [event for event in rig.virtual.log.events() if event.energises]
    ticks = dict(zip(rig.arm.bus.ids, CALIBRATION.rad_to_ticks(POSE), strict=True))
    assert all(
        abs(event.value - ticks[event.servo_id]) <= 2 for event in log if event.register is Reg.GOAL_POSITION
    )
    assert [event.register for event in log[:6]] == [Reg.GOAL_POSITION] * 6


def test_P10_a_hot_gripper_gets_less_torque_until_it_has_cooled(rig):
    rig.enable()
    rig.virtual.set_environment(6, temperature_c=58.0)
    rig.run_until(lambda _: rig.virtual.servo(6).get(Reg.TORQUE_LIMIT) == 350, 'less torque in register 48')
    assert rig.virtual.servo(6).get(Reg.MAX_TORQUE_LIMIT) == 500
    assert rig.registers(Reg.TORQUE_LIMIT)[:5] == [1000] * 5
    rig.virtual.set_environment(6, temperature_c=40.0)
    rig.run_until(lambda _: rig.virtual.servo(6).get(Reg.TORQUE_LIMIT) == 500, 'the torque back')


def test_P11_nothing_energises_after_an_e_stop(rig):
    rig.enable()
    rig.gate.request_e_stop(time.monotonic())
    rig.cycles(1)
    stopped = time.monotonic()
    rig.follow(POSE + 0.3, lambda _: time.monotonic() > stopped + 0.3, 'time passing')
    assert rig.virtual.log.energising(stopped) == []
    assert not any(servo.torque_on for servo in rig.virtual.servos)


def test_P11_an_e_stop_is_written_in_the_cycle_in_which_a_servo_is_found_restarted(rig):
    rig.enable()
    rig.virtual.power(False, [3])
    rig.follow(POSE, lambda _: rig.gate.state is GateState.HOLD, 'the gate to hold')
    rig.gate.request_e_stop(time.monotonic())
    rig.virtual.power(True, [3])
    rig.cycles(1)
    assert not any(servo.torque_on for servo in rig.virtual.servos)
    assert rig.gate.state is GateState.E_STOP


@pytest.mark.parametrize(
    ('policy', 'on'), [('release', False), ('hold', True), ('park_and_release', False)], ids=str
)
def test_A12_close_leaves_the_torque_as_the_exit_policy_says(policy, on):
    with make_rig(config=GateConfig(exit_policy=policy)) as rig:
        rig.arm.connect()
        rig.enable()
        rig.arm.close()
        assert [servo.torque_on for servo in rig.virtual.servos] == [on] * 6
        assert not rig.arm.bus.is_open
        rig.arm.close()


@pytest.mark.parametrize('what', ['mute', 'bad'], ids=['a mute servo', 'a bad wire'])
def test_A12_close_releases_every_servo_that_hears_it(what):
    with make_rig() as rig:
        rig.arm.connect()
        rig.enable()
        if what == 'mute':
            rig.virtual.faults.mute([2])
        else:
            rig.virtual.faults.set_rates(FaultRates.bad_packets(0.3))
        rig.arm.close()
        hearing = [servo for servo in rig.virtual.servos if what == 'bad' or servo.servo_id != 2]
        assert not any(servo.torque_on for servo in hearing)


def test_a_servo_that_is_silent_from_the_first_cycle_on_is_no_mute_joint_before_all_were_heard_once():
    with make_rig() as rig:
        rig.arm.connect()
        rig.virtual.faults.mute([2])
        silent = [rig.arm.cycle() for _ in range(20)]
        assert all(state.mute == () for state in silent), 'there is no angle of any joint to publish'
        rig.virtual.faults.mute([])
        rig.run_until(lambda state: state.complete, 'all joints')
        rig.virtual.faults.mute([2])
        rig.run_until(lambda state: state.mute == ('shoulder_lift',), 'a mute joint')


# ---- losing the arm and finding it again -----------------------------------------------------------------


def test_P1_an_unplugged_arm_raises_nothing_and_comes_back(rig):
    rig.enable()
    rig.virtual.unplug()
    lost = rig.run_until(lambda _: rig.gate.state is GateState.FAULT, 'the fault')
    assert not lost.complete
    rig.virtual.replug()
    back = rig.run_until(lambda state: state.complete, 'the arm back')
    assert back.reading.position_rad == pytest.approx(POSE, abs=2 * TICK)
    assert rig.arm.bus.counters.reconnects == 1


def test_a_short_loss_of_the_port_ends_the_motion_that_was_under_way(rig):
    """Who commands has not heard of the loss yet: what is sent at that moment moves nothing."""
    rig.enable()

    def send():
        return rig.gate.command(time.monotonic(), 0.0, JOINT_NAMES, POSE + 0.5)

    for _ in range(5):
        assert send().accepted
        rig.arm.cycle()
    rig.virtual.unplug()
    rig.arm.cycle()
    rig.virtual.replug()
    send()
    rig.run_until(lambda state: state.complete, 'the arm back')
    assert rig.gate.state is GateState.HOLD
    assert 'connected again' in send().sentence
    assert rig.arm.cycle().output.state is GateState.HOLD


def test_an_unplugged_arm_that_kept_its_power_does_not_jump_when_it_is_back(rig):
    rig.enable()
    rig.virtual.unplug()
    rig.run_until(lambda _: rig.gate.state is GateState.FAULT, 'the fault')
    rig.virtual.replug()
    replugged = time.monotonic()
    target = POSE + 0.4
    rig.follow(target, lambda state: state.complete and time.monotonic() > replugged + 0.5, 'the arm back')
    assert rig.goals(replugged) == []
    rig.enable()
    first = rig.goals(replugged)[:6]
    assert np.abs(first - CALIBRATION.rad_to_ticks(POSE)).max() <= 2


def test_a_servo_of_another_arm_on_the_replugged_port_is_refused(rig):
    rig.run_until(lambda state: state.complete, 'a complete reading')
    rig.virtual.unplug()
    rig.run_until(lambda state: not state.complete, 'the loss')
    rig.virtual.servo(2).set(Reg.HOMING_OFFSET, 17)
    rig.virtual.replug()
    before = time.monotonic()
    rig.run_until(lambda _: rig.arm.bus.counters.reconnects >= 2, 'two attempts')
    assert not rig.arm.cycle().complete
    assert rig.virtual.log.energising(before) == []


def fall_without_power(rig: Rig, ids: list[int], pose: np.ndarray) -> None:
    """Cut the power of some servos until the gate holds, drop their joints to a pose, power on again."""
    rig.virtual.power(False, ids)
    rig.follow(POSE, lambda _: rig.gate.state is not GateState.ENABLED, 'the gate to hold')
    fallen = np.where(np.isin(rig.arm.bus.ids, ids), pose, rig.arm.cycle().reading.position_rad)
    rig.place(fallen)
    rig.virtual.power(True, ids)


@pytest.mark.parametrize('ids', [[3], [1, 2, 3, 4, 5, 6]], ids=['one servo', 'the whole arm'])
def test_P8_a_power_cycled_arm_is_disabled_and_gets_no_goal_until_it_is_enabled(rig, ids):
    rig.enable()
    rig.follow(POSE, lambda _: rig.gate.state is GateState.ENABLED, 'the arm following')
    fallen = POSE + np.array([0.3, 0.4, -0.5, 0.3, 0.3, -0.3])
    fall_without_power(rig, ids, fallen)
    back = time.monotonic()
    rig.follow(POSE, lambda _: rig.gate.state is GateState.DISABLED, 'the gate disabled')
    assert 'was without power' in rig.gate.reason
    rig.follow(POSE, lambda _: time.monotonic() > back + 0.5, 'time passing')
    assert rig.goals(back) == []
    assert not any(rig.virtual.servo(servo_id).torque_on for servo_id in ids)
    assert rig.registers(Reg.ACCELERATION) == [SERVO_SETTINGS[Reg.ACCELERATION]] * 6
    enabled = time.monotonic()
    present = np.array([servo.present_position for servo in rig.virtual.servos])
    rig.enable()
    assert np.abs(rig.goals(enabled)[:6] - present).max() <= 2


def test_the_other_servos_hold_when_one_is_back_after_a_fault(rig):
    rig.enable()
    rig.virtual.power(False, [3])
    rig.run_until(lambda _: rig.gate.state is GateState.FAULT, 'the fault')
    rig.virtual.power(True, [3])
    back = time.monotonic()
    rig.follow(POSE, lambda state: state.complete and time.monotonic() > back + 0.3, 'the servo back')
    assert rig.gate.state is GateState.FAULT
    assert [servo.torque_on for servo in rig.virtual.servos] == [True, True, False, True, True, True]
    assert rig.goals(back) == []
    rig.enable()
    assert all(servo.torque_on for servo in rig.virtual.servos)


def test_a_servo_that_was_only_silent_is_not_taken_for_a_power_cycled_one(rig):
    rig.enable()
    rig.virtual.faults.mute([3])
    rig.follow(POSE, lambda _: rig.gate.state is GateState.HOLD, 'the gate to hold')
    rig.virtual.faults.mute([])
    rig.follow(POSE, lambda _: rig.gate.state is GateState.ENABLED, 'the arm following again')
    assert all(servo.torque_on for servo in rig.virtual.servos)


def test_P10_a_latched_fault_of_a_servo_stops_neither_the_cycle_nor_the_release(rig):
    rig.enable()
    rig.virtual.servo(2).latched |= ServoError.OVERLOAD
    rig.run_until(lambda _: rig.gate.state is GateState.FAULT, 'the fault')
    rig.run_until(lambda state: state.complete, 'a whole reading')
    rig.arm.close()
    assert not any(servo.torque_on for servo in rig.virtual.servos)
