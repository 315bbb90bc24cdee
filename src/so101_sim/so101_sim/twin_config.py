# SPDX-License-Identifier: Apache-2.0
"""Parameters of twin_node."""

from dataclasses import dataclass

from so101_interfaces_py.params import check_bounds, param, ParameterError
from so101_sim.scene.presets import get_preset, PRESETS
from so101_sim.scene.servo import SERVOS
from so101_sim.tasks import TASKS

FROM_PRESET = 'preset'


@dataclass(frozen=True, kw_only=True)
class TwinConfig:
    """Which scene, where its arm appears, and what is published."""

    link: str = param('/tmp/so101-virtual-arm', doc='Path under which the arm appears as a serial port.')
    calibration: str = param(
        '',
        doc='File to write the calibration of the arm to, for arm_node; empty: the link with .json behind it.',
    )
    control: str = param(
        '', doc='Path of a socket for every fault of the servo bus, one JSON object a line; empty: none.'
    )
    task: str = param('lift', doc='What is to be done.', choices=tuple(TASKS))
    preset: str = param(
        'easy', doc='How hard it is, and how far from the nominal scene.', choices=tuple(PRESETS)
    )
    servo: str = param(
        FROM_PRESET, doc="The arm's servos; preset: those of the preset.", choices=(FROM_PRESET, *SERVOS)
    )
    seed: int = param(0, doc='Of where the cube is put.', lo=0, hi=2**31 - 1)
    camera_width: int = param(320, doc='Width of the wrist picture.', unit='px', lo=16, hi=1920)
    camera_height: int = param(240, doc='Height of the wrist picture.', unit='px', lo=16, hi=1080)
    camera_rate_hz: float = param(
        20.0, doc='Frames per second; 0 switches the camera off.', unit='Hz', lo=0.0, hi=60.0
    )
    camera_drop_share: float = param(
        0.0,
        doc='Share of the pictures that get lost on the way, although their camera_info arrives.',
        lo=0.0,
        hi=1.0,
    )
    camera_frame_id: str = param(
        'gripper_cam_optical_frame', doc='frame_id of the images: z forward, y down.'
    )
    truth_rate_hz: float = param(30.0, doc='Rate of sim/task.', unit='Hz', lo=1.0, hi=100.0)
    bad_packet_share: float = param(
        0.05, doc='Share of bad answers while sim/bad_packets is on.', lo=0.0, hi=1.0
    )

    def __post_init__(self) -> None:
        """Check each value, and that the task exists at that difficulty."""
        check_bounds(self)
        try:
            get_preset(self.preset, self.task)
        except ValueError as error:
            raise ParameterError(str(error)) from error

    @property
    def calibration_path(self) -> str:
        """Where the calibration is written."""
        return self.calibration or f'{self.link}.json'
