# SPDX-License-Identifier: Apache-2.0
"""`./so101 doctor`: the driver's checks, and whether camera images get through DDS on this machine.

Run as a program, it is the publishing side of that measurement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import os
import subprocess
import sys
import time

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image

from so101_driver.doctor import cli
from so101_driver.doctor.checks import Check, Status
from so101_interfaces_py import graph, qos
from so101_interfaces_py.conversions import array_to_image, stamp_to_ns
from so101_interfaces_py.spin import look_around, start_rclpy

SIZE = (480, 640)
RATE_HZ = 30.0
TOPIC = 'so101_dds_check/image'
ENOUGH = 0.99


class DdsCheckError(Exception):
    """The measurement itself failed."""


@dataclass(frozen=True)
class Delivery:
    """How many images came through, and how long they took [s]."""

    sent: int
    arrived: int
    latency_p50: float
    latency_p95: float


def measure(frames: int = 90) -> Delivery:
    """Send images from another process to this one; needs an initialised rclpy context.

    Args:
        frames: How many, at RATE_HZ.
    """
    node = Node('so101_dds_check')
    arrived: dict[str, float] = {}

    def store(message: Image) -> None:
        age = node.get_clock().now().nanoseconds - stamp_to_ns(message.header.stamp)
        arrived[message.header.frame_id] = age / 1e9

    node.create_subscription(Image, TOPIC, store, qos.IMAGE)
    publisher = subprocess.Popen([sys.executable, '-m', 'so101_bringup.doctor', str(frames)])
    try:
        deadline = time.monotonic() + 30.0 + frames / RATE_HZ
        while publisher.poll() is None and time.monotonic() < deadline:
            rclpy.spin_once(node, timeout_sec=0.05)
    finally:
        publisher.kill()
        publisher.wait()
        node.destroy_node()
    if publisher.returncode != 0:
        raise DdsCheckError(f'the publishing process ended with exit code {publisher.returncode}, not 0.')
    ages = list(arrived.values()) or [float('nan')]
    return Delivery(frames, len(arrived), float(np.percentile(ages, 50)), float(np.percentile(ages, 95)))


def publish(frames: int) -> None:
    """Publish numbered images as soon as someone listens."""
    start_rclpy()
    node = Node('so101_dds_check_publisher')
    publisher = node.create_publisher(Image, TOPIC, qos.IMAGE)
    deadline = time.monotonic() + 20.0
    while publisher.get_subscription_count() == 0 and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.05)
    time.sleep(0.5)  # the other side's half of the discovery
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    next_frame = time.monotonic()
    for number in range(frames):
        publisher.publish(array_to_image(image, 'rgb8', node.get_clock().now().to_msg(), str(number)))
        next_frame += 1.0 / RATE_HZ
        time.sleep(max(0.0, next_frame - time.monotonic()))
    time.sleep(0.5)  # the last frame is still on its way
    rclpy.try_shutdown()


def check_dds() -> Check:
    """Send camera images from one process to another and count them."""
    start_rclpy()
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
    profile = os.environ.get(graph.PROFILES, '')
    remedy = f'Is the machine busy? The profile in use is {profile}.'
    if not os.path.exists(profile):
        remedy = (
            f'Let {graph.PROFILES} name config/fastdds.xml: the default buffers are too small for images.'
        )
    return Check('dds', Status.FAIL if delivery.arrived == 0 else Status.WARN, finding, remedy)


def check_network() -> Check:
    """Say who may reach the nodes that start here, and who is in the domain now."""
    seen, host = look_around()
    who = sorted(f'{node.label}{"" if node.is_on(host) else " (not on this machine)"}' for node in seen)
    open_ = 'open to other machines' if graph.is_open() else 'closed to other machines'
    finding = f'ROS domain {graph.domain_of()} is {open_}; in it now: {", ".join(who) or "nobody"}.'
    if graph.is_open():
        remedy = f'Anybody near can move an arm there. Unset {graph.RANGE} and {graph.PEERS}, or use ./so101 security.'
        return Check('network', Status.WARN, finding, remedy)
    return Check('network', Status.OK, finding)


def main(argv: Sequence[str]) -> int:
    """Run every check; returns 0 when nothing failed."""
    return cli.main(argv, extra_checks=[check_dds, check_network])


if __name__ == '__main__':
    publish(int(sys.argv[1]))
