# SPDX-License-Identifier: Apache-2.0
"""Parameters of arm_node beside those of the safety gate."""

from dataclasses import dataclass

from so101_interfaces_py.params import check_bounds, param


@dataclass(frozen=True, kw_only=True)
class DriverConfig:
    """Which arm, how fast, and how it starts and ends."""

    port: str = param('/dev/so101', doc='Serial device of the servo bus; a by-id or by-path link is best.')
    calibration: str = param(
        '', doc='Calibration: a file, or the name of an arm; empty: the only one that there is.'
    )
    rate_hz: float = param(100.0, doc='Control rate.', unit='Hz', lo=10.0, hi=200.0)
    enable_at_start: bool = param(
        False, doc='Switch torque on as soon as the arm answers, without a request.'
    )
    connect_timeout_s: float = param(
        10.0, doc='How long to wait at start for the arm to answer.', unit='s', lo=0.0, hi=300.0
    )
    exit_timeout_s: float = param(
        1.7,
        doc='Longest time for parking at exit; what has not arrived then is released where it is.',
        unit='s',
        lo=0.0,
        hi=30.0,
    )
    frame_id: str = param('base_link', doc='frame_id of joint_states.')
    status_rate_hz: float = param(10.0, doc='Rate of arm/status.', unit='Hz', lo=0.1, hi=50.0)

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)
