# SPDX-License-Identifier: Apache-2.0
"""Keeps the tests' ROS graph apart from any other on this machine and off the network."""

import os

import pytest

from so101_interfaces_py.graph import isolate

# One thread for torch: the graphs of the tests need the other core.
os.environ.setdefault('OMP_NUM_THREADS', '1')
# Before anything imports rclpy; child processes inherit it. A worker of pytest-xdist gets a domain of its own.
isolate(anew='PYTEST_XDIST_WORKER' in os.environ)


@pytest.fixture(autouse=True)
def _priority():
    """Let no test leave this process at another priority: whatever is started after it would inherit that."""
    before = os.sched_getscheduler(0), os.nice(0)
    yield
    assert (os.sched_getscheduler(0), os.nice(0)) == before


@pytest.fixture
def ros():
    """An initialised rclpy context, shut down at the end."""
    rclpy = pytest.importorskip('rclpy')
    rclpy.init()
    yield rclpy
    rclpy.try_shutdown()


@pytest.fixture
def hosts():
    """Two hosts that see nobody but each other; skips where this machine has none to give."""
    from so101_testing.hosts import HostsError, two_hosts

    try:
        with two_hosts() as made:
            yield made
    except HostsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope='module')
def start():
    """Start programs of the workspace; whatever still runs at the end of the module is ended.

    `start('so101_driver', 'arm_node', '--ros-args', ...)` returns the process.
    """
    import signal
    import subprocess

    from so101_bringup.programs import executable_path, NodeSpec

    processes = []

    def start_program(package, executable, *arguments, **options):
        path = executable_path(NodeSpec(executable, package, executable))
        processes.append(subprocess.Popen([path, *map(str, arguments)], **options))
        return processes[-1]

    yield start_program
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope='session')
def renders():
    """Skip where pictures cannot be drawn at all."""
    from so101_sim import render
    from so101_sim.errors import RenderError

    try:
        render.backend()
    except RenderError as error:
        pytest.skip(str(error))
