# SPDX-License-Identifier: Apache-2.0
"""Scenes and truths that several tests look at; nothing is shared that a test could change."""

from collections.abc import Callable
import os

import pytest

# One thread of Mesa and of numpy each: the suite shares the machine.
for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'LP_NUM_THREADS'):
    os.environ.setdefault(name, '1')

from so101_sim.scene.ground_truth import GroundTruth
from so101_sim.scene.simulation import Simulation


@pytest.fixture
def simulation() -> Simulation:
    return Simulation()


@pytest.fixture
def make_truth() -> Callable[..., GroundTruth]:
    """GroundTruth of a cube on the table with an open gripper above it; keywords change it."""

    def make(**changes: object) -> GroundTruth:
        values = {
            'time_s': 0.0,
            'cube_position': (0.25, 0.0, 0.015),
            'cube_quat_wxyz': (1.0, 0.0, 0.0, 0.0),
            'cube_speed': 0.0,
            'tcp_position': (0.23, 0.0, 0.10),
            'grip_position': (0.23, 0.0, 0.10),
            'jaw_direction': (0.97, 0.0, 0.24),
            'finger_position': (0.28, 0.0, 0.10),
            'opening': 0.4,
            'touches_static': False,
            'touches_moving': False,
            'on_table': True,
            'in_tray': False,
            'tray_position': None,
        }
        return GroundTruth(**{**values, **changes})  # type: ignore[arg-type]

    return make
