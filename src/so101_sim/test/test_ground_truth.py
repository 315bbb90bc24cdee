# SPDX-License-Identifier: Apache-2.0
from dataclasses import asdict
import json

import numpy as np
import pytest

from so101_contract.errors import ContractError
from so101_kinematics.ik import InverseKinematics
from so101_sim.scene.ground_truth import GroundTruth
from so101_sim.scene.presets import get_preset
from so101_sim.scene.simulation import Simulation
from so101_sim.scene.start import home_pose


def test_truth_survives_json(make_truth):
    for truth in (make_truth(), make_truth(tray_position=(0.2, 0.1, 0.0), touches_static=True)):
        assert GroundTruth.from_mapping(json.loads(json.dumps(asdict(truth)))) == truth


def test_truth_with_something_missing_is_refused_by_name(make_truth):
    values = json.loads(json.dumps(asdict(make_truth())))
    del values['cube_speed']
    with pytest.raises(ContractError, match='cube_speed'):
        GroundTruth.from_mapping(values)


def test_keys_that_a_newer_version_may_add_are_ignored(make_truth):
    values = {**json.loads(json.dumps(asdict(make_truth()))), 'wind': 3.0}
    assert GroundTruth.from_mapping(values) == make_truth()


def test_the_true_tcp_is_where_kinematics_put_it_in_the_nominal_scene(simulation):
    ik = InverseKinematics()
    simulation.reset(home_pose(ik), (0.3, 0.2, 0.015))
    believed = ik.fk.pose(simulation.joint_positions).position
    truth = simulation.truth()
    assert np.allclose(truth.tcp_position, believed, atol=1e-5)
    assert np.allclose(truth.grip_position, truth.tcp_position, atol=1e-5)


def test_the_true_tcp_is_eight_millimetres_off_in_the_gap():
    simulation = Simulation(get_preset('gap').scene)
    ik = InverseKinematics()
    simulation.reset(home_pose(ik), (0.3, 0.2, 0.015))
    believed = ik.fk.pose(simulation.joint_positions).position
    assert np.linalg.norm(believed - simulation.truth().tcp_position) == pytest.approx(0.008, abs=0.001)


def test_the_jaw_opens_along_its_direction(simulation):
    ik = InverseKinematics()
    q = home_pose(ik)
    fingers = []
    for opening in (0.0, 1.0):
        simulation.reset(home_pose(ik, opening), (0.3, 0.2, 0.015))
        fingers.append(np.array(simulation.truth().finger_position))
        assert simulation.truth().opening == pytest.approx(opening, abs=0.02)
    simulation.reset(q, (0.3, 0.2, 0.015))
    assert (fingers[1] - fingers[0]) @ simulation.truth().jaw_direction > 0.03


def test_a_cube_between_closed_fingers_is_held_and_follows_the_arm(simulation):
    ik = InverseKinematics()
    q = ik.solve((0.25, 0.0, 0.12), home_pose(ik), pitch=np.radians(75.0)).q
    simulation.reset(home_pose(ik), (0.3, 0.2, 0.015))
    opened = q.copy()
    opened[-1] = 0.45
    simulation.reset(opened, (0.3, 0.2, 0.015))
    truth = simulation.truth()
    middle = np.array(truth.grip_position) + 0.02 * np.array(truth.jaw_direction)
    for _ in range(60):  # a hand holds the cube there until the gripper has it
        opened[-1] -= 0.01
        simulation.place_cube(middle.tolist())
        simulation.step(5, opened)
        if simulation.truth().held:
            break
    opened[-1] -= 0.1
    simulation.step(200, opened)
    assert simulation.truth().held
    assert not simulation.truth().on_table
    assert simulation.truth().cube_position[2] > 0.08


def test_a_state_that_blew_up_is_not_finite(make_truth):
    assert make_truth().finite
    assert not make_truth(cube_position=(np.nan, 0.0, 0.0)).finite
