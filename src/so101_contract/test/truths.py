# SPDX-License-Identifier: Apache-2.0
"""What a simulation may say of its scene, for tests of the records that carry it."""

from so101_contract.task_report import GroundTruth

TRUTH = GroundTruth(
    time_s=1.5,
    cube_position=(0.25, 0.01, 0.015),
    cube_quat_wxyz=(0.8, 0.0, 0.0, 0.6),
    cube_speed=0.2,
    tcp_position=(0.2, 0.0, 0.1),
    grip_position=(0.21, 0.0, 0.1),
    jaw_direction=(0.0, 1.0, 0.0),
    finger_position=(0.2, 0.03, 0.1),
    opening=0.5,
    touches_static=True,
    touches_moving=False,
    on_table=True,
    in_tray=False,
)
