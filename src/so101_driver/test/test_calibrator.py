# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
import itertools
import json

import numpy as np
import pytest

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.config import BusConfig
from so101_driver.bus.errors import BusError, HandshakeError, ServoTimeout
from so101_driver.bus.registers import MULTI_TURN_PHASE_BIT, Reg, ServoError, TICKS_PER_TURN
from so101_driver.calibration.calibration import CalibrationError, SERVO_IDS
from so101_driver.calibration.checks import differences
from so101_driver.calibration.files import CalibrationNotFoundError, load, save
from so101_driver.calibration.procedure import Calibrator, commit, pending_path, resume, STEADY_SAMPLES
from so101_driver.calibration.servo import read_servo_values, write_servo_values
from so101_driver.emulator.arm import VirtualArm

# Encoder angles of the stops [ticks]; the seam lies inside the travel of the first, the third and the last.
STOPS = {
    'shoulder_pan': (2700, 5300),
    'shoulder_lift': (800, 3190),
    'elbow_flex': (-1200, 1010),
    'wrist_flex': (900, 3260),
    'wrist_roll': (0, 4095),
    'gripper': (3300, 4750),
}
MIDDLE = {name: (low + high) / 2 for name, (low, high) in STOPS.items()}
ROLL_ZERO = 3111.0


def seam_inside(sweep):
    return sweep.low // TICKS_PER_TURN != sweep.high // TICKS_PER_TURN


class Hand:
    """A person who moves the limp arm; each move is followed by `after`."""

    def __init__(self, arm, after=lambda: None):
        self.arm = arm
        self.after = after
        self.at = {name: MIDDLE[name] for name in JOINT_NAMES}
        self.at['wrist_roll'] = ROLL_ZERO
        for name in JOINT_NAMES:
            self.put(name, self.at[name])

    def put(self, name, encoder):
        self.at[name] = encoder
        self.arm.set_position(SERVO_IDS[name], encoder)

    def go(self, goals, step=90):
        starts = {name: self.at[name] for name in goals}
        count = max(2, *(round(abs(goal - starts[name]) / step) for name, goal in goals.items()))
        for share in np.linspace(0, 1, count):
            for name, goal in goals.items():
                self.put(name, starts[name] + share * (goal - starts[name]))
            self.after()

    def sweep(self, rounds=2, names=tuple(name for name in JOINT_NAMES if name != 'wrist_roll'), reach=1.0):
        for _, end in itertools.product(range(rounds), (0, 1)):
            self.go({n: MIDDLE[n] + reach * (STOPS[n][end] - MIDDLE[n]) for n in names})
            self.after()
        self.go({name: MIDDLE[name] for name in names})


@pytest.fixture
def arm():
    with VirtualArm(pacing=False) as virtual:
        yield virtual


@pytest.fixture
def bus(arm):
    # patient, since the machine that runs the tests may be busy: a late answer counts as a lost one
    patient = BusConfig(min_timeout_s=0.03, timeout_s=0.1, budget_s=0.5)
    with ServoBus(arm.port, config=patient) as opened:
        yield opened
        arm.faults.clear()


def recorded(arm, bus, **options):
    """A calibrator that has seen a whole sweep and whose arm is held in its middle."""
    calibrator = Calibrator(bus, **options)
    hand = Hand(arm, after=calibrator.sample)
    calibrator.start()
    hand.sweep()
    hold(calibrator)
    return calibrator, hand


def hold(calibrator):
    repeat(calibrator.sample, STEADY_SAMPLES)


def repeat(call, times):
    for _ in range(times):
        call()


def cut_off_while_writing(arm, monkeypatch):
    """Let the cable between servo 3 and servo 4 come loose when servo 3 is being written."""
    note = arm.log.add

    def add(event):
        note(event)
        if event.servo_id == 3 and event.register is Reg.MIN_POSITION_LIMIT:
            arm.faults.mute([4, 5, 6])

    monkeypatch.setattr(arm.log, 'add', add)


def offsets(arm):
    return {name: arm.servo(SERVO_IDS[name]).get_stored(Reg.HOMING_OFFSET) for name in JOINT_NAMES}


def test_P3_a_guided_calibration_ends_in_eeprom_and_file(arm, bus, tmp_path):
    calibrator, _ = recorded(arm, bus)
    assert calibrator.sweep.done
    assert seam_inside(calibrator.sweep.joints['shoulder_pan'])
    calibrator.take_pose()
    calibration = calibrator.plan()
    assert set(offsets(arm).values()) == {0}  # nothing is written before it is proved plausible
    path = tmp_path / 'follower.json'
    calibrator.commit(calibration, path)

    assert load(path) == calibration
    assert differences(calibration, read_servo_values(bus)) == ()
    for name in JOINT_NAMES:
        servo, joint = arm.servo(SERVO_IDS[name]), calibration[name]
        assert servo.get_stored(Reg.HOMING_OFFSET) == joint.homing_offset
        assert servo.get_stored(Reg.MIN_POSITION_LIMIT) == joint.range_min
        assert servo.get_stored(Reg.MAX_POSITION_LIMIT) == joint.range_max
        assert servo.get(Reg.LOCK) == 1
        if name != 'wrist_roll':
            low, high = STOPS[name]
            assert joint.range_max - joint.range_min == pytest.approx(high - low, abs=2)
    assert not pending_path(path).exists()
    assert set(json.loads(path.read_text())) == set(JOINT_NAMES)


def test_P4_after_calibration_the_held_pose_reads_zero(arm, bus, tmp_path):
    calibrator, _ = recorded(arm, bus)
    calibrator.take_pose()
    calibration = calibrator.plan()
    calibrator.commit(calibration, tmp_path / 'arm.json')
    ticks = bus.read_all(Reg.PRESENT_POSITION)
    angles = calibration.ticks_to_rad([ticks[SERVO_IDS[name]] for name in JOINT_NAMES])
    np.testing.assert_allclose(angles[:5], 0, atol=0.005)


def test_P3_the_result_does_not_depend_on_the_old_offsets_or_on_the_pose(arm, bus):
    calibrator, _ = recorded(arm, bus)
    calibrator.take_pose()
    first = calibrator.plan()
    for servo_id, offset in enumerate((-2047, 2047, 1500, -900, 333, -1), 1):
        arm.servo(servo_id).set(Reg.HOMING_OFFSET, offset)
    calibrator, hand = recorded(arm, bus)
    hand.go({'shoulder_pan': MIDDLE['shoulder_pan'] + 150, 'elbow_flex': MIDDLE['elbow_flex'] - 200})
    hold(calibrator)
    calibrator.take_pose()
    second = calibrator.plan()
    for name in JOINT_NAMES:
        assert second[name].homing_offset == pytest.approx(first[name].homing_offset, abs=2)
        assert second[name].range_min == pytest.approx(first[name].range_min, abs=2)


def test_P3_a_calibration_can_be_repeated(arm, bus, tmp_path):
    results = []
    for _ in range(2):
        calibrator, _ = recorded(arm, bus)
        calibrator.take_pose()
        results.append(calibrator.plan())
        calibrator.commit(results[-1], tmp_path / 'arm.json')
    for name in JOINT_NAMES:
        assert results[1][name].homing_offset == pytest.approx(results[0][name].homing_offset, abs=2)


def test_P3_a_bad_pose_is_refused_and_nothing_is_written(arm, bus):
    calibrator, hand = recorded(arm, bus)
    hand.go({'shoulder_lift': STOPS['shoulder_lift'][0] + 100})
    hold(calibrator)
    with pytest.raises(CalibrationError, match=r'shoulder_lift is -9. degrees from the middle'):
        calibrator.take_pose()
    with pytest.raises(CalibrationError, match='middle pose to be taken first'):
        calibrator.plan()
    assert set(offsets(arm).values()) == {0}
    assert not any(event.register is Reg.HOMING_OFFSET for event in arm.log.events())


def test_P3_an_arm_that_is_turned_while_nobody_looks_loses_nothing(arm, bus):
    calibrator, hand = recorded(arm, bus)
    before = {name: (sweep.low, sweep.high) for name, sweep in calibrator.sweep.joints.items()}
    hand.put('shoulder_pan', STOPS['shoulder_pan'][0])
    hold(calibrator)
    hand.put('shoulder_pan', STOPS['shoulder_pan'][1] - 400)  # 2200 ticks at once
    hold(calibrator)
    with pytest.raises(CalibrationError, match=r'shoulder_pan is \+79 degrees'):
        calibrator.take_pose()
    hand.put('shoulder_pan', MIDDLE['shoulder_pan'])
    hold(calibrator)
    calibrator.take_pose()
    calibrator.plan()
    assert {name: (sweep.low, sweep.high) for name, sweep in calibrator.sweep.joints.items()} == before


def test_P3_a_pose_that_is_not_held_still_is_refused(arm, bus):
    calibrator, hand = recorded(arm, bus)
    hand.go({'wrist_roll': ROLL_ZERO + 100}, step=10)
    with pytest.raises(CalibrationError, match='not held still'):
        calibrator.take_pose()


def test_a_sweep_may_be_ended_early_only_when_it_went_far_enough(arm, bus):
    calibrator = Calibrator(bus)
    hand = Hand(arm, after=calibrator.sample)
    calibrator.start()
    hand.sweep(rounds=1, reach=0.6)
    with pytest.raises(CalibrationError, match=r'shoulder_pan 1.. of 220 degrees'):
        calibrator.end_sweep()
    hand.sweep(rounds=1)
    assert not calibrator.sweep.done
    calibrator.end_sweep()


def test_a_short_sweep_is_never_written(arm, bus):
    calibrator = Calibrator(bus)
    hand = Hand(arm, after=calibrator.sample)
    calibrator.start()
    hand.sweep(reach=0.3)
    hold(calibrator)
    calibrator.take_pose()
    with pytest.raises(CalibrationError, match='not moved from stop to stop'):
        calibrator.plan()


def test_the_gripper_of_a_leader_is_read_as_a_trigger(arm, bus):
    calibrator, _ = recorded(arm, bus, gripper_map='linear', mirrored_gripper=True)
    calibrator.take_pose()
    calibration = calibrator.plan(signs={'elbow_flex': -1})
    assert calibration.gripper_map == 'linear'
    assert calibration['gripper'].drive_mode == 1
    assert [calibration[name].sign for name in JOINT_NAMES] == [1, 1, -1, 1, 1, 1]


def test_the_arm_is_limp_before_anybody_moves_it(arm, bus):
    bus.write_torque(bus.ids, True)
    Calibrator(bus).start()
    assert not any(servo.torque_on for servo in arm.servos)


@pytest.mark.parametrize(
    ('prepare', 'says'),
    [
        (lambda arm: arm.servo(3).set(Reg.MODEL_NUMBER, 2825), 'elbow_flex: expected a servo of model 777'),
        (lambda arm: setattr(arm.servo(6), 'latched', ServoError.OVERLOAD), 'gripper: .*overload'),
        (lambda arm: arm.faults.mute([4]), 'Servo 4'),
    ],
    ids=['model', 'fault', 'silent'],
)
def test_an_arm_that_is_not_well_is_refused_before_it_is_moved(arm, bus, prepare, says):
    prepare(arm)
    with pytest.raises((CalibrationError, BusError, HandshakeError), match=says):
        Calibrator(bus).start()


def test_a_servo_that_falls_silent_ends_the_sweep(arm, bus, monkeypatch):
    calibrator = Calibrator(bus)
    calibrator.start()
    calibrator.sample()
    arm.faults.mute([2])
    monkeypatch.setattr('so101_driver.calibration.procedure.SILENT_S', 0.05)
    with pytest.raises(ServoTimeout, match='Servo 2'):
        repeat(calibrator.sample, 100)


def test_P1_lost_packets_during_the_sweep_do_no_harm(arm, bus):
    calibrator = Calibrator(bus)
    hand = Hand(arm, after=calibrator.sample)
    calibrator.start()
    arm.faults.set_rates(drop=0.03, corrupt=0.02)
    hand.sweep()
    arm.faults.clear()
    hold(calibrator)
    calibrator.take_pose()
    calibration = calibrator.plan()
    for name, (low, high) in STOPS.items():
        if name != 'wrist_roll':
            assert calibration[name].range_max - calibration[name].range_min == pytest.approx(
                high - low, abs=100
            )


def test_P3_multi_turn_mode_is_cleared(arm, bus, tmp_path):
    servo = arm.servo(1)
    servo.set(Reg.PHASE, servo.get(Reg.PHASE) | MULTI_TURN_PHASE_BIT)
    calibrator, _ = recorded(arm, bus)
    calibrator.take_pose()
    calibrator.commit(calibrator.plan(), tmp_path / 'arm.json')
    assert not servo.get_stored(Reg.PHASE) & MULTI_TURN_PHASE_BIT
    assert 0 <= bus.read(1, Reg.PRESENT_POSITION) <= 4095


@pytest.fixture
def calibration(arm, bus):
    calibrator, _ = recorded(arm, bus)
    calibrator.take_pose()
    return calibrator.plan()


def test_P3_what_is_written_survives_a_power_cycle(arm, bus, calibration, tmp_path):
    commit(bus, calibration, tmp_path / 'arm.json')
    arm.power_cycle()
    assert differences(calibration, read_servo_values(bus)) == ()


def test_nothing_is_written_twice(arm, bus, calibration, tmp_path):
    commit(bus, calibration, tmp_path / 'arm.json')
    before = len([e for e in arm.log.events() if e.register is Reg.HOMING_OFFSET])
    commit(bus, calibration, tmp_path / 'arm.json')
    assert len([e for e in arm.log.events() if e.register is Reg.HOMING_OFFSET]) == before


def test_P3_an_interrupted_write_can_be_finished(arm, bus, calibration, tmp_path, monkeypatch):
    path = tmp_path / 'arm.json'
    cut_off_while_writing(arm, monkeypatch)
    with pytest.raises(BusError, match=r'[Ss]ervo 4'):
        commit(bus, calibration, path)
    assert not path.exists()
    assert pending_path(path).exists()
    monkeypatch.undo()
    arm.faults.clear()
    wrong = {difference.joint for difference in differences(calibration, read_servo_values(bus))}
    assert wrong == {'wrist_flex', 'wrist_roll', 'gripper'}
    assert resume(bus, path) == calibration
    assert load(path) == calibration
    assert differences(calibration, read_servo_values(bus)) == ()
    with pytest.raises(CalibrationNotFoundError):
        resume(bus, path)


def test_an_interrupted_write_leaves_the_old_file(arm, bus, calibration, tmp_path, monkeypatch):
    path = tmp_path / 'arm.json'
    old = replace(calibration, gripper_map='linear')
    save(old, path)
    cut_off_while_writing(arm, monkeypatch)
    with pytest.raises(BusError):
        commit(bus, calibration, path)
    assert load(path) == old


def test_P3_a_servo_that_ignores_its_offset_is_found(arm, bus, calibration, monkeypatch):
    servo = arm.servo(2)
    monkeypatch.setattr(type(servo), 'present_position', property(lambda s: 1234))
    with pytest.raises(CalibrationError, match='expected the servo to report about'):
        write_servo_values(bus, calibration)


def test_a_servo_that_stays_stiff_is_not_written(arm, bus, calibration, monkeypatch):
    monkeypatch.setattr(bus, 'write_torque', lambda ids, on: (3,))
    with pytest.raises(CalibrationError, match='servo 3 did not confirm'):
        write_servo_values(bus, calibration)
    assert set(offsets(arm).values()) == {0}
