# SPDX-License-Identifier: Apache-2.0
"""Keeps the tests' ROS graph apart from any other on this machine and off the network."""

import os

import pytest

# Before anything imports rclpy; child processes inherit it. Domains above 100 leave the usual port range.
os.environ['ROS_DOMAIN_ID'] = str(10 + os.getpid() % 90)
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'


@pytest.fixture
def ros():
    """An initialised rclpy context, shut down at the end."""
    rclpy = pytest.importorskip('rclpy')
    rclpy.init()
    yield rclpy
    rclpy.try_shutdown()
