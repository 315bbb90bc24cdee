# SPDX-License-Identifier: Apache-2.0
"""`./so101 doctor`: the driver's checks, and whether camera images get through DDS on this machine."""

from collections.abc import Sequence
import os

import rclpy

from so101_bringup.dds_check import DdsCheckError, Delivery, measure, RATE_HZ, SIZE
from so101_driver.doctor import cli as doctor
from so101_driver.doctor.checks import Check, Status

ENOUGH = 0.99
PROFILES = 'FASTRTPS_DEFAULT_PROFILES_FILE'


def check_dds() -> Check:
    """Send camera images from one process to another and count them."""
    rclpy.init()
    try:
        return judge(measure())
    except DdsCheckError as error:
        return Check('dds', Status.FAIL, f'{error}', 'Run ./so101 setup and try again.')
    finally:
        rclpy.try_shutdown()


def judge(delivery: Delivery) -> Check:
    """Say what a measurement means."""
    height, width = SIZE
    finding = (
        f'{delivery.arrived} of {delivery.sent} images of {width}x{height} at {RATE_HZ:.0f} Hz came through, '
        f'median {1e3 * delivery.latency_p50:.1f} ms.'
    )
    if delivery.arrived >= ENOUGH * delivery.sent:
        return Check('dds', Status.OK, finding)
    profile = os.environ.get(PROFILES, '')
    remedy = f'Is the machine busy? The profile in use is {profile}.'
    if not os.path.exists(profile):
        remedy = f'Let {PROFILES} name config/fastdds.xml: the default buffers are too small for images.'
    return Check('dds', Status.FAIL if delivery.arrived == 0 else Status.WARN, finding, remedy)


def main(argv: Sequence[str]) -> int:
    """Run every check; returns 0 when nothing failed."""
    return doctor.main(argv, extra_checks=[check_dds])
