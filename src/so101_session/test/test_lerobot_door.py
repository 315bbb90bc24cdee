# SPDX-License-Identifier: Apache-2.0
"""The door for LeRobot's programs: the plug-in's own client at a real socket, and lerobot_node beside a real driver."""

from contextlib import contextmanager
import importlib.util
import json
import os
from pathlib import Path
import select
import socket
import stat
import struct
import threading
import time

import numpy as np
import pytest

from so101_contract.joints import JOINT_NAMES, limits_arrays
from so101_driver.calibration.lerobot_units import JointScale
from so101_driver.emulator.arm import virtual_calibration
from so101_session.lerobot import wire
from so101_session.lerobot.guests import ArmView, LerobotConfig, Lobby
from so101_session.lerobot.server import MOST_GUESTS, Server

ROOT = Path(__file__).parents[3]
BRIDGE = ROOT / 'plugins/lerobot_robot_so101_ros/lerobot_robot_so101_ros/bridge.py'
HANG_S = 120.0
HOME = np.array([0.1, -0.5, 0.6, 0.9, 0.2, 0.6])
ON, MOVES = ArmView(True, False, 'hold'), ArmView(True, True, 'enabled')


def load_bridge():
    """The plug-in's client; the package around it needs LeRobot."""
    spec = importlib.util.spec_from_file_location('bridge', BRIDGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bridge = load_bridge()
SCALE = JointScale('degrees', virtual_calibration())


def said(positions):
    return SCALE.from_rad(positions[None])[0].tolist()


class Door:
    """A lobby behind a server, and what it has sent."""

    def __init__(self, path, **config):
        self.cameras, self.path = ['gripper_cam'], path
        self.lobby = Lobby(
            LerobotConfig(
                **{
                    'patience_s': 0.05,
                    'command_hold_s': 2.0,
                    'joints_max_age_s': 10.0,
                    'picture_max_age_s': 10.0,
                    **config,
                }
            ),
            virtual_calibration,
            lambda: self.cameras,
        )
        self.server = Server(path, self.lobby.enter)
        self.pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
        self.look()
        self.lobby.see_arm(ON, lost=False)

    @property
    def sent(self):
        wanted = self.lobby.wanted()
        return [] if wanted is None else [wanted]

    def look(self):
        now = time.monotonic()
        self.lobby.see_joints(HOME, now)
        self.lobby.see_picture('gripper_cam', self.pixels, now)

    @contextmanager
    def guest(self, role='robot', units='degrees'):
        guest = bridge.Bridge(str(self.path), role, units)
        try:
            guest.open()
            yield guest
        finally:
            guest.close()


@pytest.fixture
def door(tmp_path):
    made = Door(tmp_path / 'own' / 'door.sock')
    yield made
    made.server.close()


@pytest.fixture
def other_drives(tmp_path):
    made = Door(tmp_path / 'own' / 'door.sock', drives=False)
    yield made
    made.server.close()


def settle(condition, what):
    deadline = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < deadline, f'not within {HANG_S} s: {what}'
        time.sleep(0.01)


# ---- what a guest sees and does ------------------------------------------------------------------------------


def test_a_guest_sees_the_arm_in_the_units_of_lerobot_and_the_picture_to_the_bit(door):
    with door.guest() as guest:
        assert guest.joints == JOINT_NAMES
        assert guest.cameras == {'gripper_cam': (4, 6, 3)}
        guest.begin()
        joints, pictures = guest.observe()
        np.testing.assert_allclose(joints, said(HOME))
        np.testing.assert_array_equal(pictures['gripper_cam'], door.pixels)


@pytest.mark.parametrize('units', ['degrees', 'range'])
def test_a_command_comes_out_in_rad(door, units):
    goal = HOME + 0.1
    with door.guest(units=units) as guest:
        guest.begin()
        asked = JointScale(units, virtual_calibration()).from_rad(goal[None])[0].tolist()
        assert guest.command(asked) == asked
        np.testing.assert_allclose(door.sent, [goal], atol=1e-9)
    settle(lambda: not door.sent, 'a command ends with the guest')


def test_an_arm_without_a_camera_has_a_door_too(door):
    door.cameras = []
    with door.guest() as guest:
        assert guest.cameras == {}
        assert guest.observe()[1] == {}


def test_what_is_old_is_not_given_out_for_new(tmp_path):
    door = Door(tmp_path / 'door.sock', picture_max_age_s=1.0)
    door.lobby.see_picture('gripper_cam', door.pixels, time.monotonic() - 5.0)
    try:
        with pytest.raises(bridge.ArmStoppedError, match='gripper_cam shows nothing new for'), door.guest():
            pass
    finally:
        door.server.close()


def test_an_observation_waits_for_a_new_picture(tmp_path):
    door = Door(tmp_path / 'door.sock', picture_max_age_s=1.0, patience_s=60.0)
    door.lobby.see_picture('gripper_cam', door.pixels, time.monotonic() - 5.0)
    new = np.full_like(door.pixels, 7)
    later = threading.Timer(0.2, lambda: door.lobby.see_picture('gripper_cam', new, time.monotonic()))
    later.start()
    try:
        with door.guest() as guest:
            np.testing.assert_array_equal(guest.observe()[1]['gripper_cam'], new)
    finally:
        later.join()
        door.server.close()


# ---- stops ---------------------------------------------------------------------------------------------------


def test_a_stop_is_told_once_the_guest_asks_again_however_short_it_was(door):
    with door.guest() as guest:
        guest.begin()
        guest.command(said(HOME))
        door.lobby.see_arm(ArmView(False, False, 'emergency stop: e-stop pressed'), lost=False)
        assert door.sent == []
        door.lobby.see_arm(MOVES, lost=False)
        for ask in (guest.observe, lambda: guest.command(said(HOME))):
            with pytest.raises(
                bridge.ArmStoppedError, match='the arm has stopped: emergency stop: e-stop pressed'
            ):
                ask()
        guest.begin()  # whoever begins again, after that, may
        guest.observe()
    assert door.sent == []


def test_a_driver_that_was_started_again_counts_as_a_stop(door):
    with door.guest() as guest:
        guest.begin()
        door.lobby.see_arm(ON, lost=True)
        with pytest.raises(bridge.ArmStoppedError, match='its driver was started again'):
            guest.command(said(HOME))


def test_nobody_begins_on_an_arm_that_is_off(door):
    door.lobby.see_arm(ArmView(False, False, 'off'), lost=False)
    with (
        door.guest() as guest,
        pytest.raises(bridge.ArmStoppedError, match='cannot follow: off; enable it first'),
    ):
        guest.begin()


def test_an_arm_that_does_not_follow_is_not_commanded_on_and_on(door, monkeypatch):
    monkeypatch.setattr('so101_session.lerobot.guests.FOLLOW_S', 0.0)
    monkeypatch.setattr('so101_session.lerobot.guests.COMMAND_S', HANG_S)
    with door.guest() as guest:
        guest.begin()
        guest.command(said(HOME))
        with pytest.raises(bridge.ArmStoppedError, match='the arm does not follow: hold'):
            guest.command(said(HOME))


def test_an_arm_that_holds_between_the_commands_of_a_slow_loop_follows_all_the_same(door, monkeypatch):
    monkeypatch.setattr('so101_session.lerobot.guests.FOLLOW_S', 30.0)
    monkeypatch.setattr('so101_session.lerobot.guests.COMMAND_S', HANG_S)
    with door.guest() as guest:
        guest.begin()
        for _ in range(4):
            guest.command(said(HOME))
            door.lobby.see_arm(MOVES, lost=False)
            door.lobby.see_arm(ON, lost=False)
            door.lobby._unheeded_s -= 20.0


def test_a_command_counts_for_a_while_and_no_longer(tmp_path):
    door = Door(tmp_path / 'door.sock', command_hold_s=0.05)
    try:
        with door.guest() as guest:
            guest.begin()
            guest.command(said(HOME))
            settle(lambda: not door.sent, 'the command is over')
    finally:
        door.server.close()


def test_a_bridge_that_goes_is_a_stop(door):
    with door.guest() as guest:
        guest.begin()
        door.server.close()
        with pytest.raises(bridge.ArmStoppedError, match='is gone'):
            guest.observe()
        assert not guest.is_open


# ---- who drives ----------------------------------------------------------------------------------------------


def test_where_somebody_else_drives_his_commands_are_the_actions_and_are_not_sent_twice(other_drives):
    goal = HOME + 0.05
    with other_drives.guest('teleoperator') as teleoperator, other_drives.guest() as robot:
        teleoperator.begin()
        robot.begin()
        np.testing.assert_allclose(
            teleoperator.target(), said(HOME), atol=1e-9
        )  # nobody commands: where it is
        other_drives.lobby.see_command(goal, time.monotonic())
        action = teleoperator.target()
        np.testing.assert_allclose(action, said(goal), atol=1e-9)
        assert robot.command(action) == action
        with pytest.raises(bridge.BridgeError, match='for LeRobot to drive'):
            robot.command(said(goal + 0.2))
    assert other_drives.sent == []


def test_what_a_teleoperator_was_given_counts_no_longer_once_it_has_gone(other_drives):
    with other_drives.guest() as robot:
        robot.begin()
        with other_drives.guest('teleoperator') as teleoperator:
            teleoperator.begin()
            action = teleoperator.target()
        settle(lambda: len(other_drives.lobby._guests) == 1, 'the teleoperator has gone')
        with pytest.raises(bridge.BridgeError, match='LeRobot record who else drives'):
            robot.command(action)


def test_while_somebody_else_commands_the_joints_lerobot_does_not(door):
    with door.guest() as guest:
        guest.begin()
        guest.command(said(HOME))
        door.lobby.see_command(HOME, time.monotonic())
        assert door.sent == []
        with pytest.raises(bridge.BridgeError, match='somebody else commands the joints'):
            guest.command(said(HOME))
    assert door.sent == []


def test_where_lerobot_drives_there_is_nobody_to_follow(door):
    with pytest.raises(bridge.BridgeError, match='in this stack LeRobot drives'), door.guest('teleoperator'):
        pass


def test_a_second_robot_is_refused_and_the_first_goes_on(door):
    with door.guest() as first:
        first.begin()
        with pytest.raises(bridge.BridgeError, match='is the robot of this arm already'), door.guest():
            pass
        first.observe()


# ---- what comes over the socket ------------------------------------------------------------------------------

HELLO = {'ask': 'hello', 'version': 1, 'role': 'robot', 'units': 'degrees'}
WRONG = {
    'no hello': ({'ask': 'observe'}, 'expected hello before observe'),
    'another version': ({**HELLO, 'version': 2}, 'expected version 1, got 2'),
    'no role': ({**HELLO, 'role': ['robot'] * 9}, 'expected a role out of'),
    'no units': ({**HELLO, 'units': 'ticks'}, 'expected a role out of'),
    'nothing known': ({'ask': 'fly'}, "got 'fly'"),
    'no text': ({'ask': {'ask': 1}}, 'expected one of hello, begin'),
    'a list': ([1, 2], 'as a JSON object'),
    'a number': (7, 'as a JSON object'),
}


def exchange(sock, data):
    sock.sendall(struct.pack('>I', len(data)) + data)
    return answer_of(sock)


def answer_of(sock):
    (length,) = struct.unpack('>I', sock.recv(4, socket.MSG_WAITALL))
    return json.loads(sock.recv(length, socket.MSG_WAITALL))


@pytest.fixture
def line(door):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(HANG_S)
        sock.connect(str(door.path))
        yield sock


@pytest.mark.parametrize('case', WRONG)
def test_what_is_no_request_gets_a_sentence(line, case):
    request, sentence = WRONG[case]
    answer = exchange(line, json.dumps(request).encode())
    assert sentence in answer['error']
    assert answer['kind'] == 'wrong'


@pytest.mark.parametrize(
    'joints',
    [
        'null',
        '[]',
        '[1,2,3,4,5]',
        '[1,2,3,4,5,6,7]',
        '[1,2,3,4,5,NaN]',
        '[1,2,3,4,5,1e999]',
        '[1,2,3,4,5,true]',
    ],
)
def test_joints_that_are_none_command_nothing(door, line, joints):
    exchange(line, json.dumps(HELLO).encode())
    exchange(line, b'{"ask": "begin"}')
    answer = exchange(line, b'{"ask": "command", "joints": %s}' % joints.encode())
    assert 'expected 6 finite joint values' in answer['error']
    assert door.sent == []


def test_what_no_joint_can_be_is_no_command(door):
    with door.guest() as guest:
        guest.begin()
        with pytest.raises(bridge.BridgeError, match='expected joints in degrees, at most 180'):
            guest.command([900.0, 0, 0, 0, 0, 0])
        with pytest.raises(bridge.BridgeError, match='expected finite joint positions'):
            guest.command([float('nan'), 0, 0, 0, 0, 0])
    assert door.sent == []


@pytest.mark.parametrize(('units', 'most'), [('degrees', 179.9), ('range', 100.0)])
def test_a_little_too_far_stays_at_the_same_end(door, units, most):
    with door.guest(units=units) as guest:
        guest.begin()
        assert guest.command([most + 20, -most - 20, 0, 0, 0, 130.0]) == [most, -most, 0, 0, 0, 100.0]
        low, high = limits_arrays()
        assert door.sent[0][0] > high[0] - 0.01
        assert door.sent[0][1] < low[1] + 0.01


@pytest.mark.parametrize(
    'data',
    [
        b'\xff\xff\xff\xff',
        b'\0\0\0\0',
        struct.pack('>I', 4096) + b'[' * 4096,
        struct.pack('>I', 2) + b'\xff\xff',
    ],
)
def test_bytes_that_are_no_request_are_told_and_end_the_talk_while_others_go_on(door, line, data):
    with door.guest() as guest:
        line.sendall(data)
        assert 'expected a request' in answer_of(line)['error']
        assert line.recv(1) == b''
        guest.observe()


def test_a_guest_that_stops_in_the_middle_is_dropped(door, line, monkeypatch):
    monkeypatch.setattr(wire, 'STALL_S', 0.05)
    line.sendall(b'\0\0\0\x40{"ask"')
    assert line.recv(1) == b''


def test_there_are_few_seats(door):
    lines = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(MOST_GUESTS + 1)]
    for one in lines:
        one.connect(str(door.path))
    settle(lambda: len(door.lobby._guests) == MOST_GUESTS, 'every seat is taken')
    left_over, _, _ = select.select(lines, [], [], HANG_S)
    assert [one.recv(1) for one in left_over] == [b'']
    for one in lines:
        one.close()


def test_the_socket_is_for_this_user_alone_and_takes_the_place_of_a_dead_one(tmp_path):
    path = tmp_path / 'own' / 'door.sock'
    first = Door(path)
    first.server._server.socket.close()  # killed: the file stays
    second = Door(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with second.guest() as guest:
        guest.observe()
    second.server.close()
    assert not path.exists()


def test_a_place_that_others_write_or_a_file_is_refused(tmp_path):
    shared = tmp_path / 'shared'
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(OSError, match='a folder that only this user writes'):
        Door(shared / 'door.sock')
    file = tmp_path / 'own' / 'file'
    file.parent.mkdir(mode=0o700)
    file.write_text('mine')
    with pytest.raises(OSError, match='which is a file'):
        Door(file)
    assert file.read_text() == 'mine'
    with pytest.raises(OSError, match='at most 100 bytes'):
        Door(tmp_path / ('x' * 100))


def test_the_plugin_and_the_node_look_for_each_other_in_the_same_place():
    for domain, namespace in ((0, ''), (7, ''), (101, '/left'), (3, 'lab/left')):
        ours = str(wire.default_path(domain, namespace))
        assert bridge.default_path(namespace, {'ROS_DOMAIN_ID': str(domain)}) == ours
    assert bridge.default_path(environ={}) == str(wire.default_path(0, ''))
    assert bridge.VERSION == wire.VERSION


# ---- the node ------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def graph(start, tmp_path_factory):
    """A driver on a virtual arm, and a door."""
    pytest.importorskip('rclpy')
    from so101_testing.probe_node import Probe

    folder = tmp_path_factory.mktemp('graph')
    port, path = folder / 'arm', folder / 'own' / 'door.sock'
    start('so101_driver', 'virtual_arm', '--link', port, '--calibration', f'{port}.json')
    arm = [
        '--ros-args',
        '-p',
        f'port:={port}',
        '-p',
        f'calibration:={port}.json',
        '-p',
        'enable_at_start:=true',
    ]
    start('so101_driver', 'arm_node', *arm, '-p', 'connect_timeout_s:=60.0', '-p', 'reading_timeout_s:=5.0')
    words = ['-p', f'socket:={path}', '-p', f'calibration:={port}.json', '-p', 'joints_max_age_s:=5.0']
    start('so101_session', 'lerobot_node', '--ros-args', *words, '-p', 'patience_s:=60.0')
    settle(path.is_socket, 'a door')
    with Probe() as probe:
        yield path, probe


def test_the_driver_follows_lerobot_within_its_limits_and_its_stop_stops_lerobot(graph):
    path, probe = graph
    guest = bridge.Bridge(str(path), 'robot', 'degrees')
    guest.open()
    assert guest.cameras == {}
    guest.begin()
    start_rad = np.array(guest.observe()[0])
    goal = list(start_rad)
    goal[0] += 30.0
    deadline = time.monotonic() + HANG_S
    while abs(guest.observe()[0][0] - goal[0]) > 1.0:
        guest.command(goal)
        assert time.monotonic() < deadline, f'{guest.observe()[0]} instead of {goal}'
        time.sleep(0.02)
    far = [200.0, *goal[1:]]  # beyond the limit of the joint: the gate has the last word
    guest.command(far)
    probe.set_bool('arm/e_stop', True)
    settle(lambda: probe.node.statuses and probe.node.statuses[-1].state == 3, 'an e-stop')
    with pytest.raises(bridge.ArmStoppedError, match='emergency stop'):
        settle(lambda: guest.command(goal) is None, 'a stop')
    low, high = limits_arrays()
    seen = np.array([sample.position for sample in probe.node.joints])
    assert (seen > low - 0.1).all()
    assert (seen < high + 0.1).all()
    guest.close()


def test_the_default_folder_is_this_users():
    assert str(wire.default_path(0, '')).startswith(f'/tmp/so101-{os.getuid()}/')
