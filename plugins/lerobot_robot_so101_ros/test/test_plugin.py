# SPDX-License-Identifier: Apache-2.0
"""The plug-in as LeRobot finds it: its names without LeRobot, its devices with it."""

from pathlib import Path
import re
import time
import tomllib

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1]
NAME = FOLDER.name
PREFIXES = ('lerobot_robot_', 'lerobot_teleoperator_', 'lerobot_camera_', 'lerobot_env_', 'lerobot_policy_')
HOME = np.array([0.1, -0.5, 0.6, 0.9, 0.2, 0.6])


def test_lerobot_finds_the_package_by_its_name():
    """It imports each distribution of such a name, as a module of the same name: with underscores, then."""
    project = tomllib.loads((FOLDER / 'pyproject.toml').read_text())['project']
    assert project['name'] == NAME
    assert NAME.startswith(PREFIXES)
    assert (FOLDER / NAME / '__init__.py').exists()


def test_each_device_has_the_name_of_its_configuration():
    """LeRobot leaves `Config` off the class and looks for the rest in the package."""
    configs = re.findall(
        r'^class (\w+)Config\(', (FOLDER / NAME / 'config.py').read_text(), flags=re.MULTILINE
    )
    assert configs == ['SO101Ros', 'SO101RosTeleoperator']
    exported = (FOLDER / NAME / '__init__.py').read_text()
    assert all(f"'{name}'," in exported for name in configs)


def test_what_runs_without_lerobot_imports_none_of_it():
    text = (FOLDER / NAME / 'bridge.py').read_text()
    assert not re.search(r'^(from|import) (lerobot|so101|rclpy)', text, flags=re.MULTILINE)


@pytest.fixture
def device(tmp_path):
    """Makes a device with LeRobot's own factory, on a real door."""
    pytest.importorskip(
        'lerobot', reason='LeRobot is not installed here; tools/lerobot_plugins.py runs with it'
    )
    pytest.importorskip(NAME, reason=f'install it first: pip install plugins/{NAME}')
    from lerobot.robots import make_robot_from_config
    from lerobot.teleoperators import make_teleoperator_from_config
    from lerobot_robot_so101_ros import SO101RosConfig, SO101RosTeleoperatorConfig

    from so101_driver.emulator.arm import virtual_calibration
    from so101_session.lerobot.guests import ArmView, LerobotConfig, Lobby
    from so101_session.lerobot.server import Server

    servers = []

    def make(drives=True):
        config = LerobotConfig(
            drives=drives, joints_max_age_s=10.0, picture_max_age_s=10.0, command_hold_s=2.0
        )
        lobby = Lobby(config, virtual_calibration, lambda: ['gripper_cam'])
        lobby.see_joints(HOME, time.monotonic())
        lobby.see_picture('gripper_cam', np.full((4, 6, 3), 9, dtype=np.uint8), time.monotonic())
        lobby.see_arm(ArmView(True, True, 'enabled'), lost=False)
        path = tmp_path / 'own' / 'door.sock'
        servers.append(Server(path, lobby.enter))
        where = {'socket': str(path), 'calibration_dir': tmp_path / 'calibration'}
        robot = make_robot_from_config(SO101RosConfig(id='arm', **where))
        teleoperator = make_teleoperator_from_config(SO101RosTeleoperatorConfig(id='arm', **where))
        return lobby, robot, teleoperator

    yield make
    for server in servers:
        server.close()


def test_a_robot_of_lerobot_sees_and_moves_the_arm(device):
    lobby, robot, _ = device()
    names = [
        f'{name}.pos'
        for name in ('shoulder_pan', 'shoulder_lift', 'elbow_flex', 'wrist_flex', 'wrist_roll', 'gripper')
    ]
    assert list(robot.action_features) == names
    assert robot.observation_features == {**dict.fromkeys(names, float), 'gripper_cam': (4, 6, 3)}
    assert not robot.is_connected
    robot.connect()
    seen = robot.get_observation()
    assert seen['gripper_cam'].shape == (4, 6, 3)
    action = {name: seen[name] for name in names}
    assert robot.send_action(action) == pytest.approx(action)
    np.testing.assert_allclose(lobby.wanted(), HOME, atol=1e-6)
    with pytest.raises(RuntimeError, match='expected an action of'):
        robot.send_action({'delta_x': 0.0})
    robot.disconnect()
    assert not robot.is_connected


def test_a_stop_of_the_arm_raises_in_the_loop_of_lerobot(device):
    from so101_session.lerobot.guests import ArmView

    lobby, robot, _ = device()
    robot.connect()
    robot.get_observation()
    lobby.see_arm(ArmView(False, False, 'fault: servo 3 is hot'), lost=False)
    with pytest.raises(RuntimeError, match='the arm has stopped: fault: servo 3 is hot'):
        robot.get_observation()


def test_the_teleoperator_says_what_drives_the_arm_and_the_robot_leaves_it_at_that(device):
    lobby, robot, teleoperator = device(drives=False)
    teleoperator.connect()
    robot.connect()
    lobby.see_command(HOME + 0.1, time.monotonic())
    action = teleoperator.get_action()
    assert list(action) == list(robot.action_features)
    robot.send_action(action)
    assert lobby.wanted() is None
