# SPDX-License-Identifier: Apache-2.0
"""The real teleop_node and ./so101 teleop, each a process of its own, at a human's terminal."""

import contextlib
from itertools import pairwise
import os
import signal
import subprocess
import sys
import threading
import time

from human import hold, Human
import numpy as np
import pytest
from test_pads import JoystickFile
from typematic import Press

rclpy = pytest.importorskip('rclpy')

from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image, JointState, Joy
from so101_interfaces.msg import ArmStatus, EeDelta, EpisodeEvent, Step
from so101_interfaces.srv import EndEpisode, StartEpisode
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from so101_contract.action import ActionSpec
from so101_contract.joints import JOINT_NAMES
from so101_driver.calibration.files import save
from so101_driver.emulator.arm import calibrated_arm, virtual_calibration
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import joint_state, stamp_to_ns

HOME = np.array([0.1, -0.5, 0.6, 0.9, 0.2, 0.6])
CALLS = {
    topics.INTERVENE_SERVICE: SetBool,
    topics.START_EPISODE_SERVICE: StartEpisode,
    topics.END_EPISODE_SERVICE: EndEpisode,
    topics.RESET_SERVICE: Trigger,
    topics.PAUSE_SERVICE: SetBool,
    topics.ARM_E_STOP_SERVICE: SetBool,
    topics.ARM_CLEAR_FAULT_SERVICE: Trigger,
    topics.ARM_ENABLE_SERVICE: SetBool,
}


class Session:
    """A stand-in for arm and session: gives steps, executes what the human says, notes what is asked for."""

    def __init__(self, rate_hz=10.0):
        self.node = rclpy.create_node('stand_in')
        self.said, self.latency_s, self.asked, self.devices = [], [], [], []
        self.opening, self.index = 0.25, 0
        self.stepped_s = 0.0
        make = self.node.create_publisher
        self.steps = make(Step, topics.STEP, qos.EVENT)
        self.events = make(EpisodeEvent, topics.EPISODE_EVENT, qos.EVENT)
        self.commands = make(EeDelta, topics.EE_DELTA_CMD, qos.COMMAND)
        self.joints = make(JointState, topics.JOINT_STATES, qos.STATE_PUBLISHER)
        self.arm = make(ArmStatus, topics.ARM_STATUS, qos.LATCHED)
        self.joy = make(Joy, 'joy', qos.STATE_PUBLISHER)
        self.node.create_subscription(EeDelta, topics.TELEOP_EE_DELTA, self._on_teleop, qos.COMMAND)
        self.node.create_subscription(
            String, topics.TELEOP_DEVICE, lambda message: self.devices.append(message.data), qos.LATCHED
        )
        for name, kind in CALLS.items():
            self.node.create_service(
                kind, name, lambda request, response, name=name: self._note(name, request, response)
            )
        self.node.create_timer(1.0 / rate_hz, self._step)
        self.node.create_timer(0.02, self._state)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()

    def _note(self, name, request, response):
        self.asked.append((name, getattr(request, 'data', getattr(request, 'outcome', None))))
        response.success = True
        return response

    def _step(self):
        self.index += 1
        message = Step(episode=4, index=self.index)
        self.stepped_s = time.monotonic()
        self.steps.publish(message)

    def _state(self):
        self.joints.publish(joint_state(JOINT_NAMES, HOME, self.node.get_clock().now().to_msg()))

    def _on_teleop(self, message):
        now = time.monotonic()
        if message.index == self.index:
            self.latency_s.append(now - self.stepped_s)
        self.said.append((now, message))
        self.commands.publish(message)

    def command(self, opening):
        self.commands.publish(EeDelta(gripper=opening, source=EeDelta.SOURCE_POLICY))

    def intervention(self, begins):
        kind = EpisodeEvent.INTERVENTION_START if begins else EpisodeEvent.INTERVENTION_END
        self.events.publish(EpisodeEvent(episode=4, index=self.index, kind=kind))

    def close(self):
        self.executor.shutdown()
        self.thread.join(5.0)
        self.node.destroy_node()


@pytest.fixture
def session():
    # One for each test: what a killed program leaves in the list of endpoints is nothing to the next one.
    rclpy.init()
    made = Session()
    yield made
    made.close()
    rclpy.try_shutdown()


@pytest.fixture
def run():
    """Run a program of the package with standard input and output of a human, if one is given."""
    processes = []

    def start(module, *arguments, human=None):
        stdin = subprocess.DEVNULL if human is None else human.slave
        stdout = subprocess.DEVNULL if human is None else human.slave
        command = [sys.executable, '-m', f'so101_session.{module}', *map(str, arguments)]
        processes.append(subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=200.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def wait(condition, human=None, patience=20.0):
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end
        if human is not None:
            human.look()
        time.sleep(0.02)


def ready(session):
    """The node reads the device, and each hears the other."""
    to_node = (session.steps, session.events, session.commands, session.joints)
    wait(
        lambda: (
            all(publisher.get_subscription_count() for publisher in to_node)
            and session.node.count_publishers(topics.TELEOP_EE_DELTA)
        )
    )
    time.sleep(0.3)


@pytest.fixture
def at_keys(session, run):
    """A human at the keys, with ./so101 teleop."""
    human = Human()
    process = run('teleop.cli', '--check', human=human)
    ready(session)
    wait(lambda: b'take over' in human.look())
    session.command(0.25)
    time.sleep(0.2)
    yield human, process, session
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=200.0)
    human.close()


def patience():
    """Return what tells an end from a hang, more where this machine is so busy that Python alone takes a while [s]."""
    begin = time.monotonic()
    subprocess.run([sys.executable, '-c', 'import rclpy'], check=True)
    return max(20.0, 20.0 * (time.monotonic() - begin))


def end(process, human, number=signal.SIGINT):
    begin = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=100.0)
    took = time.monotonic() - begin
    assert b'Traceback' not in errors, errors.decode()
    assert human.restored()
    return took


def test_T6_two_keys_held_for_two_seconds_answer_every_step_on_both_axes(at_keys):
    human, process, session = at_keys
    hold(human, [Press('w', 0.05, 2.3), Press('d', 0.15, 2.3)], lambda now: None)
    said = [message for moment, message in session.said]
    held = [message for message in said if said[0].index + 1 < message.index < said[-1].index - 1]
    indices = [message.index for message in held]
    assert sorted(indices) == indices
    # One answer a step; where the next step is late, the human goes on without one, a period later.
    for before, after in pairwise(held):
        if after.index == before.index:
            assert stamp_to_ns(after.header.stamp) - stamp_to_ns(before.header.stamp) >= 0.5e8
    # A machine that is busy with other things may lose a step or two on the way.
    assert len(set(indices)) >= max(0.75 * (indices[-1] - indices[0] + 1), 10)
    assert all(message.translation.x > 0.0 and message.translation.y < 0.0 for message in held)
    wait(lambda: session.index > said[-1].index + 8, human)
    late = [message.translation for _, message in session.said[len(said) :]]
    moving = [way for way in late if (way.x, way.y, way.z) != (0.0, 0.0, 0.0)]
    # No motion is said after the keys are up; as many may be on their way as steps that the machine stood still for.
    moments = [moment for moment, _ in session.said]
    longest_s = max(after - before for before, after in pairwise(moments))
    assert len(moving) <= 2 + int(longest_s / 0.2)
    assert len(late) - len(moving) <= 1  # but once that they are
    spec = ActionSpec()
    for message in said:
        way = (message.translation.x, message.translation.y, message.translation.z)
        assert not any(spec.from_wire(way, message.gripper).clipped)
        assert (message.episode, message.source, message.header.frame_id) == (
            4,
            EeDelta.SOURCE_TELEOP,
            'base_link',
        )
        assert message.gripper == 0.25  # A6: no jump of the gripper
    # P25: Ctrl-C ends within two seconds, and the numbers are told
    assert end(process, human) < patience()
    assert b'verdict' in human.look()


def test_P25_keys_ask_for_every_event_and_a_termination_restores_the_terminal(at_keys):
    human, process, session = at_keys
    for key in 'tg123hp \r':
        human.type(key)
        time.sleep(0.05)
        human.look()
    expected = {
        (topics.INTERVENE_SERVICE, True),
        (topics.INTERVENE_SERVICE, False),
        (topics.END_EPISODE_SERVICE, EndEpisode.Request.SUCCESS),
        (topics.END_EPISODE_SERVICE, EndEpisode.Request.FAILURE),
        (topics.END_EPISODE_SERVICE, EndEpisode.Request.DISCARD),
        (topics.RESET_SERVICE, None),
        (topics.PAUSE_SERVICE, True),
        (topics.ARM_E_STOP_SERVICE, True),
        (topics.START_EPISODE_SERVICE, None),
    }
    wait(lambda: len(session.asked) >= len(expected), human)
    time.sleep(0.3)
    assert sorted(session.asked, key=str) == sorted(expected, key=str)  # T7: each once
    assert end(process, human, signal.SIGTERM) < patience()


def test_one_key_clears_a_stop_or_a_fault_and_then_switches_the_motors_on(at_keys):
    human, process, session = at_keys
    for state, wanted in (
        (ArmStatus.E_STOP, (topics.ARM_E_STOP_SERVICE, False)),
        (ArmStatus.FAULT, (topics.ARM_CLEAR_FAULT_SERVICE, None)),
        (ArmStatus.DISABLED, (topics.ARM_ENABLE_SERVICE, True)),
    ):
        session.arm.publish(ArmStatus(state=state))
        session.asked.clear()

        def pressed(wanted=wanted):  # until it has heard of the state
            human.type('u')
            time.sleep(1.5)  # sooner it would be a key that is held
            human.look()
            return wanted in session.asked

        wait(pressed, human, patience=300.0)
    session.arm.publish(ArmStatus(state=ArmStatus.ENABLED))
    time.sleep(1.5)
    session.asked.clear()
    human.type('u')
    time.sleep(1.5)
    assert session.asked in ([], [(topics.ARM_ENABLE_SERVICE, True)]), 'an arm that is ready is left alone'
    assert end(process, human) < patience()


def test_T9_the_answer_to_a_step_does_not_wait_for_any_camera(at_keys):
    human, process, session = at_keys

    def hears_cameras():
        heard = session.node.get_subscriptions_info_by_topic(f'/{topics.IMAGE}')
        return any(one.node_name == 'teleop_node' for one in heard)

    assert not hears_cameras()
    flood = session.node.create_publisher(Image, topics.IMAGE, qos.IMAGE)  # a camera that comes, and stalls
    flood.publish(Image(height=480, width=640, step=1920, data=bytes(480 * 1920)))
    hold(human, [Press('w', 0.05, 3.0)], lambda now: None)
    assert not hears_cameras()
    assert len(session.latency_s) > 15
    assert min(session.latency_s) < 0.05
    assert end(process, human) < patience()


def test_P25_the_terminal_going_away_ends_the_program(session, run):
    human = Human()
    process = run('teleop.cli', human=human)
    ready(session)
    os.close(human.slave)
    os.close(human.master)
    process.communicate(timeout=100.0)
    assert process.returncode is not None


def test_a_gamepad_drives_and_one_that_is_pulled_out_says_nothing(session, run, tmp_path):
    joystick = JoystickFile(tmp_path)
    run(
        'teleop.node',
        '--ros-args',
        '-p',
        'device:=gamepad',
        '-p',
        f'pad_path:={joystick.path}',
        '-p',
        'speed:=1.0',
    )
    ready(session)
    wait(lambda: session.devices[-1:] == ['gamepad'])  # whoever reads a pad too leaves it alone
    joystick.button(5, True)
    joystick.axis(1, -1.0)
    wait(lambda: len(session.said) > 5)
    assert session.said[-1][1].translation.x == pytest.approx(0.02)
    joystick.button(0, True)
    wait(lambda: session.asked)
    assert session.asked == [(topics.END_EPISODE_SERVICE, EndEpisode.Request.SUCCESS)]
    joystick.pull_out()
    wait(lambda: session.devices[-1:] == [''])
    time.sleep(0.3)
    count = len(session.said)
    time.sleep(0.5)
    assert len(session.said) == count
    joystick.close()


def test_P25_a_pad_by_topic_does_the_same(session, run):
    run('teleop.node', '--ros-args', '-p', 'device:=joy', '-p', 'pad:=generic')
    ready(session)
    wait(session.joy.get_subscription_count)
    rest = [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    forward = [0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]

    def publish(axes, *down):
        session.joy.publish(Joy(axes=axes, buttons=[int(number in down) for number in range(11)]))
        time.sleep(0.05)

    for _ in range(5):
        publish(rest)
    for _ in range(15):
        publish(forward, 5)
    for _ in range(100):  # its first word may be on its way still
        if session.said:
            break
        publish(forward, 5)
    assert session.said[-1][1].translation.x == pytest.approx(0.01)
    publish(rest, 4)
    publish(rest, 4)
    publish(rest)
    wait(lambda: session.asked)
    assert session.asked == [(topics.INTERVENE_SERVICE, True)]


def test_P9_a_leader_arm_takes_over_drives_and_gives_back(session, run, tmp_path):
    calibration = virtual_calibration()
    save(calibration, tmp_path / 'leader.json')
    with calibrated_arm(calibration, HOME) as arm:
        run(
            'teleop.node',
            *(
                '--ros-args',
                '-p',
                'device:=leader',
                '-p',
                f'leader_port:={arm.port}',
                '-p',
                'events_from:=none',
            ),
            *('-p', f'leader_calibration:={tmp_path / "leader.json"}'),
        )
        ready(session)
        torque = lambda: {servo.torque_on for servo in arm.servos}
        wait(lambda: torque() == {True})
        time.sleep(0.8)
        assert session.said == []
        session.intervention(True)
        wait(lambda: torque() == {False} and session.said)
        first = session.said[0][1]
        assert np.hypot(first.translation.x, first.translation.y) < 1e-9
        assert first.gripper == pytest.approx(0.4065, abs=0.01)  # where the follower's gripper is
        arm.set_position(1, arm.dynamics.positions[0] + 60)  # a hand turns the base to the left
        wait(lambda: abs(session.said[-1][1].translation.y) > 0.002)
        session.intervention(False)
        wait(lambda: torque() == {True})
        time.sleep(0.3)
        count = len(session.said)
        time.sleep(0.4)
        assert len(session.said) == count


def test_P25_keys_ask_beside_a_leader_and_a_hang_up_lets_it_go_limp(session, run, tmp_path):
    calibration, human = virtual_calibration(), Human()
    save(calibration, tmp_path / 'leader.json')
    with calibrated_arm(calibration, HOME) as arm:
        leader = ('--port', arm.port, '--calibration', tmp_path / 'leader.json')
        process = run('teleop.cli', '--device', 'leader', *leader, human=human)
        ready(session)
        wait(lambda: {servo.torque_on for servo in arm.servos} == {True}, human)
        for _ in range(20):  # a key says nothing to a session that has not been discovered yet
            human.type('t')
            with contextlib.suppress(AssertionError):
                wait(lambda: session.asked, human, patience=1.0)
                break
        assert set(session.asked) == {(topics.INTERVENE_SERVICE, True)}
        assert end(process, human, signal.SIGHUP) < patience()
        assert {servo.torque_on for servo in arm.servos} == {False}
    human.close()


def test_a_device_that_is_missing_ends_the_node_with_one_sentence(run):
    process = run('teleop.node')
    _, errors = process.communicate(timeout=200.0)
    assert process.returncode == 1
    assert b'run ./so101 teleop in a terminal' in errors
    assert b'Traceback' not in errors
