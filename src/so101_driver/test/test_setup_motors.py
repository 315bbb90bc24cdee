# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
import io
import json

import pytest
from rich.console import Console

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import BusError, HandshakeError
from so101_driver.bus.registers import BAUD_RATES, MULTI_TURN_PHASE_BIT, Reg
from so101_driver.calibration.calibration import SERVO_IDS
from so101_driver.emulator.arm import VirtualArm
from so101_driver.setup.cli import main, SETUP_TIMES
from so101_driver.setup.motors import FoundMotor, MotorSetup, next_step, SETUP_ORDER, SetupError, SetupState


@pytest.fixture
def motors():
    """A box of six new motors, none of them connected."""
    with VirtualArm((1, 1, 1, 1, 1, 1), positions=(700, 1500, 2300, 3100, 3900, 1111), pacing=False) as arm:
        connect(arm)
        yield arm


def connect(arm, *indices):
    """Connect these motors of the box and no others."""
    for index, servo in enumerate(arm.servos):
        if index in indices:
            servo.power_on()
        else:
            servo.power_off()


@pytest.fixture
def bus(motors):
    bus = ServoBus(motors.port, config=replace(SETUP_TIMES, single_retries=2, single_timeout_s=0.01))
    bus.open()
    yield bus
    bus.close(torque_off=False)


def motor(arm, index=0, **registers):
    """Connect one motor that has these registers."""
    for name, value in registers.items():
        arm.servos[index].set(Reg[name], value)
    connect(arm, index)
    return arm.servos[index]


@pytest.mark.parametrize(('servo_id', 'code'), [(1, 0), (9, 1), (253, 7), (6, 5)])
def test_a_motor_is_set_up_whatever_its_id_and_speed(motors, bus, servo_id, code):
    servo = motor(motors, ID=servo_id, BAUD_RATE=code, RETURN_DELAY_TIME=250)
    result = MotorSetup(bus).set_up('gripper')
    assert result.found == FoundMotor(servo_id, BAUD_RATES[code])
    assert result.changed
    servo.power_off()
    servo.power_on()
    assert (servo.servo_id, servo.baud_rate, servo.get(Reg.LOCK)) == (6, 1_000_000, 1)
    assert servo.get(Reg.RETURN_DELAY_TIME) == 0


def test_a_motor_that_is_set_up_already_is_left_alone(motors, bus):
    motor(motors, ID=4)
    motors.log.clear()
    result = MotorSetup(bus).set_up('wrist_flex')
    assert not result.changed
    assert {event.register for event in motors.log.events()} <= {Reg.TORQUE_ENABLE}


def test_settings_that_would_disturb_the_driver_are_put_right(motors, bus):
    servo = motor(motors, RESPONSE_STATUS_LEVEL=0, OPERATING_MODE=1, PHASE=12 | MULTI_TURN_PHASE_BIT)
    MotorSetup(bus).set_up('elbow_flex')
    assert servo.get_stored(Reg.RESPONSE_STATUS_LEVEL) == 1
    assert servo.get_stored(Reg.OPERATING_MODE) == 0
    assert servo.get_stored(Reg.PHASE) == 12


def test_nothing_is_connected_is_said_in_a_sentence(bus):
    with pytest.raises(SetupError, match=r'found none at any speed.*power'):
        MotorSetup(bus).find_motor()
    assert bus.baud_rate == 1_000_000


def test_two_new_motors_with_one_id_are_refused(motors, bus):
    connect(motors, 0, 1)
    with pytest.raises(SetupError, match='two motors'):
        MotorSetup(bus).set_up('gripper')
    assert [servo.get_stored(Reg.ID) for servo in motors.servos[:2]] == [1, 1]


@pytest.mark.parametrize('registers', [{'ID': 6}, {'BAUD_RATE': 4}])
def test_two_motors_with_two_ids_or_speeds_are_refused(motors, bus, registers):
    motor(motors, 1, **registers)
    connect(motors, 0, 1)
    with pytest.raises(SetupError, match='found 2'):
        MotorSetup(bus).set_up('gripper')
    assert motors.servos[0].servo_id == 1


def test_a_motor_of_another_model_is_refused(motors, bus):
    servo = motor(motors, MODEL_NUMBER=2825)
    with pytest.raises(HandshakeError, match='2825'):
        MotorSetup(bus).set_up('gripper')
    assert servo.servo_id == 1


def test_P21_a_supply_of_the_wrong_voltage_is_refused(motors, bus):
    motor(motors).voltage_v = 12.0
    with pytest.raises(HandshakeError, match=r'12\.0 V'):
        MotorSetup(bus).set_up('gripper')


def test_the_same_motor_twice_is_noticed(motors, bus):
    setup = MotorSetup(bus)
    motor(motors)
    setup.set_up('gripper')
    with pytest.raises(SetupError, match='ID 6, which gripper got before'):
        setup.set_up('wrist_roll')
    assert setup.set_up('wrist_roll', force=True).servo_id == 5


@pytest.mark.parametrize('register', [Reg.LOCK, Reg.ID, Reg.BAUD_RATE])
def test_a_power_cut_in_the_middle_is_taken_up_again(motors, bus, monkeypatch, register):
    servo = motor(motors, ID=9, BAUD_RATE=2)
    note = motors.log.add

    def cut(event):
        note(event)
        if event.register is register:
            servo.power_off()

    monkeypatch.setattr(motors.log, 'add', cut)
    monkeypatch.setattr('so101_driver.setup.motors.ATTEMPTS', 1)
    setup = MotorSetup(bus)
    with pytest.raises(BusError):
        setup.set_up('gripper')
    assert setup.state.done == ()
    monkeypatch.undo()
    servo.power_on()
    assert setup.set_up('gripper').servo_id == 6
    assert (servo.servo_id, servo.baud_rate, servo.get(Reg.LOCK)) == (6, 1_000_000, 1)


def test_P1_lost_packets_do_not_stop_the_setup(motors, bus):
    servo = motor(motors, ID=9, BAUD_RATE=2)
    motors.faults.set_rates(drop=0.04)
    MotorSetup(bus).set_up('gripper')
    motors.faults.clear()
    assert (servo.servo_id, servo.baud_rate) == (6, 1_000_000)


def test_what_is_done_is_remembered_in_a_file(tmp_path):
    path = tmp_path / 'state' / 'arm.json'
    state = SetupState(path)
    assert state.next_joint == 'gripper'
    state.mark_done('gripper')
    state.mark_done('wrist_roll')
    again = SetupState(path)
    assert again.done == ('gripper', 'wrist_roll')
    assert again.next_joint == 'wrist_flex'
    assert 'Motor 3 of 6: connect the motor of wrist_flex' in next_step(again)
    again.forget()
    assert SetupState(path).done == ()


@pytest.mark.parametrize('text', ['', '{', '[]', '{"done": 3}', '{"done": ["nose"]}'])
def test_a_damaged_state_file_begins_anew(tmp_path, text):
    path = tmp_path / 'arm.json'
    path.write_text(text)
    assert SetupState(path).next_joint == 'gripper'


class Person:
    """Connects the motors one after the other as the command asks for them; may do some things wrong."""

    def __init__(self, motors, **mistakes):
        self.motors = motors
        self.mistakes = mistakes
        self.questions = []

    def __call__(self, question):
        self.questions.append(question)
        if 'chain' in question:
            connect(self.motors, *range(6))
            return ''
        joint = next(name for name in SETUP_ORDER if f'the motor of {name},' in question)
        mistake = self.mistakes.pop(joint, None)
        if mistake is not None:
            mistake()
        else:
            connect(self.motors, SETUP_ORDER.index(joint))
        return ''


def run(motors, person, *argv):
    out = io.StringIO()
    status = main(['--port', motors.port, *argv], ask=person, console=Console(file=out, width=200))
    return status, out.getvalue()


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    if 'code' not in request.fixturenames:
        few = {code: BAUD_RATES[code] for code in (0, 2, 4)}
        monkeypatch.setattr('so101_driver.setup.motors.BAUD_RATES', few)
    monkeypatch.setattr('so101_driver.setup.motors.BROADCAST_WAIT_S', 0.02)
    monkeypatch.setattr('so101_driver.setup.motors.PING_WAIT_S', 0.001)


@pytest.fixture(autouse=True)
def state_home(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_STATE_HOME', str(tmp_path / 'state'))
    return tmp_path / 'state'


def ids(motors):
    return [servo.get_stored(Reg.ID) for servo in motors.servos]


def test_six_new_motors_become_an_arm_in_spite_of_mistakes(motors, state_home):
    motors.servos[2].set(Reg.BAUD_RATE, 4)
    person = Person(
        motors,
        gripper=lambda: connect(motors),
        wrist_roll=lambda: connect(motors, 0),
        wrist_flex=lambda: connect(motors, 2, 3),
    )
    status, out = run(motors, person)
    assert status == 0, out
    assert 'found none' in out
    assert 'which gripper got before' in out
    assert 'found 2' in out
    assert ids(motors) == [SERVO_IDS[name] for name in SETUP_ORDER] == [6, 5, 4, 3, 2, 1]
    assert 'All six motors answer' in out
    assert len(person.questions) == 7 + 3
    assert not list(state_home.rglob('*.json'))


def test_a_run_that_was_stopped_goes_on_where_it_was(motors, state_home, capsys):
    def stop():
        raise KeyboardInterrupt

    status, _ = run(motors, Person(motors, wrist_flex=stop))
    assert status == 130
    assert 'run it again' in capsys.readouterr().err
    state = json.loads((state_home / 'so101/setup_motors_follower.json').read_text())
    assert state == {'done': ['gripper', 'wrist_roll']}
    person = Person(motors)
    assert run(motors, person)[0] == 0
    assert 'wrist_flex' in person.questions[0]
    assert ids(motors) == [6, 5, 4, 3, 2, 1]


def test_one_motor_can_be_replaced(motors):
    motor(motors, BAUD_RATE=4)
    status, out = run(motors, None, '--joint', 'elbow_flex')
    assert status == 0
    assert 'elbow_flex: found as ID 1 at 115200 bit/s, is set up as ID 3.' in out


def test_an_error_is_one_sentence_and_status_one(motors, capsys):
    assert run(motors, None, '--joint', 'elbow_flex')[0] == 1
    assert 'setup-motors: expected one motor' in capsys.readouterr().err
    assert main(['--port', '/dev/nothing-here']) == 1
    assert main(['--arm', '../x']) == 1


def test_the_order_goes_from_the_gripper_to_the_base():
    assert tuple(reversed(JOINT_NAMES)) == SETUP_ORDER
