# SPDX-License-Identifier: Apache-2.0
"""A running arm_node on a virtual arm, and what the benchmarks do with it again and again."""

from collections.abc import Sequence
import contextlib
import os
from pathlib import Path
import sys
import time
from types import TracebackType
from typing import Self

from faults_goals import fastest, Goals, SERVO_IDS
import numpy as np
import numpy.typing as npt
from processes import isolate, ROOT

from so101_driver.gate.config import GateConfig

sys.path.insert(0, str(ROOT / 'src' / 'so101_driver' / 'test'))  # the rig of the driver's tests

from rig_client import ArmClient
from rig_processes import ARM_NODE, ArmProcesses, Program, wait_until

__all__ = [
    'FAR',
    'HOME',
    'REST',
    'ArmClient',
    'ArmProcesses',
    'FaultRig',
    'Program',
    'fastest_joints_rad_s',
    'isolate',
    'sway',
    'wait_until',
]

Vector = npt.NDArray[np.float64]
HOME: Vector = np.array([0.0, -0.5, 0.6, 0.4, 0.0, 0.8])
# Stretched out and turned: some of the longest ways to the rest pose that there are.
FAR: Vector = np.array([1.5, 1.6, -1.5, -1.2, 1.5, 0.8])
REST: Vector = np.array(GateConfig().rest_rad)
MOVING_RAD_S = 0.5
HEALTHY = {'voltage_v': 7.4, 'temperature_c': 30.0}


def prefer(program: Program) -> None:
    """Let a program run before others where that is permitted."""
    for task in Path(f'/proc/{program.pid}/task').iterdir():
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, int(task.name), -10)


def sway(time_s: float) -> Vector:
    """A command that keeps every joint in motion, at 1.3 rad/s at most: joint positions (6,) [rad]."""
    return HOME + 0.4 * np.sin(np.pi * time_s) * np.array([1.0, 1.0, -1.0, 1.0, 1.0, 1.0])


def fastest_joints_rad_s(client: ArmClient) -> Vector:
    """Fastest mean over 50 ms of each joint, as published (6,) [rad/s]."""
    times = np.array([joints.stamp_s for joints in client.joints])
    positions = np.array([joints.position for joints in client.joints])
    return np.array([fastest(times, column, 0.05) for column in positions.T])


class FaultRig:
    """A virtual arm, the real arm_node with the shipped parameters, and a client; a context manager.

    The virtual arm stands for hardware and goes before other programs of the machine where that is permitted.

    Args:
        prefer_node: Let arm_node go before others too, so that the rest of the machine does not show.

    Attributes:
        arm: The virtual arm and its programs.
        client: Subscriber and commander, in this process.
        node: The arm_node that runs now.
    """

    def __init__(self, prefer_node: bool = False) -> None:
        self.arm = ArmProcesses(pose=HOME)
        self._prefer_node = prefer_node
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.arm)
        prefer(self.arm.arm)
        self.client = self._stack.enter_context(ArmClient())
        self.control = self.arm.control.call
        self.restart()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # ---- between the faults ------------------------------------------------------------------------------

    def restart(self, program: Sequence[str] = ARM_NODE, **parameters: object) -> None:
        """End the node if it runs, and start one that is ready when this returns."""
        self.end_node()
        self.node = self.start(program, **parameters)
        self.client.joints_after(self.node.started_s, 30.0)
        if self._prefer_node:
            prefer(self.node)

    def start(self, program: Sequence[str] = ARM_NODE, **parameters: object) -> Program:
        """Start a node with the shipped parameters."""
        shipped = ['--ros-args', '--params-file', str(ROOT / 'config' / 'driver.yaml'), '--']
        return self.arm.start_node([*program, *shipped], **parameters)

    def end_node(self) -> None:
        """End the node if it runs."""
        if hasattr(self, 'node'):
            self.node.end()

    def heal(self, pose: Vector = HOME) -> None:
        """Back to a healthy, limp arm in a pose, with nothing left of the fault before."""
        for command in ('clear_faults', 'replug'):
            self.control(command)
        for servo_id in SERVO_IDS:
            self.control('environment', servo_id=servo_id, **HEALTHY)
            self.control('load', servo_id=servo_id, share=0.0)
        if not self.node.alive:
            self.restart()
        self.client.fresh()
        for call in (lambda: self.client.e_stop(False), self.client.clear_fault):
            call()
        self.client.enable(False)
        self.client.wait(lambda: self.client.state == 'disabled', 'a disabled arm')
        wait_until(lambda: not any(self.arm.driven()), 'a limp arm')
        if any(self.arm.registers('STATUS')):
            self.control('power', on=False)
            self.client.wait(lambda: not self.answering(), 'the arm without power')
            self.control('power', on=True)
        self.arm.place(pose)
        self.wait_for_pose(pose)
        self.client.forget()
        self.control('clear_log')

    # ---- doing and seeing --------------------------------------------------------------------------------

    def enable(self) -> None:
        """Enable the arm and wait until it is."""
        response = self.client.enable()
        if not response.success:
            raise RuntimeError(f'The arm is not enabled: {response.message}')
        self.client.wait(lambda: 'waiting for a command' in self.client.reason, 'the arm enabled')

    def first_step(self) -> int:
        """Enable the arm; return how far from where it is its first goals are [ticks]."""
        present, enabled = self.present(), time.monotonic()
        self.enable()
        return int(np.max(np.abs(self.goals(enabled).first - present)))

    def wait_for_pose(self, pose: Vector, within: float = 0.03, deadline_s: float = 10.0) -> None:
        """Wait until joint_states say that the arm is in a pose (6,) [rad]."""

        def there() -> bool:
            joints = self.client.joints[-1:]
            return bool(joints) and float(np.max(np.abs(joints[0].position - pose))) < within

        self.client.wait(there, f'the arm at {np.round(pose, 2).tolist()}', deadline_s)

    def wait_for_motion(self, deadline_s: float = 10.0) -> None:
        """Wait until a joint moves that follows commands."""

        def moves() -> bool:
            return (
                bool(self.client.joints)
                and float(np.max(np.abs(self.client.joints[-1].velocity))) > MOVING_RAD_S
            )

        self.client.wait(moves, 'an arm in motion', deadline_s)

    def answering(self, within_s: float = 0.05) -> bool:
        """Whether all joints were read lately."""
        return bool(self.client.joints) and time.monotonic() - self.client.joints[-1].stamp_s < within_s

    def goals(self, after_s: float = 0.0) -> Goals:
        """Goals that arrived at the servos after a time [s, monotonic]."""
        return Goals(self.control('log', register='GOAL_POSITION', after_s=after_s))

    def torque_off_s(self, after_s: float) -> float:
        """When the last of the six was switched off for good [s, monotonic], by the log of writes."""
        off: dict[int, float] = {}
        for event in self.control('log', after_s=after_s):
            if event['energises']:
                off.pop(event['servo_id'], None)
            elif event['register'] == 'TORQUE_ENABLE' and event['value'] == 0:
                off.setdefault(event['servo_id'], event['time_s'])
        if len(off) < len(SERVO_IDS) or any(self.arm.driven()):
            raise RuntimeError(
                f'Only the servos {sorted(off)} were switched off, driven: {self.arm.driven()}.'
            )
        return max(off.values())

    def energised_after(self, time_s: float) -> int:
        """Writes after a time [s, monotonic] that switch torque on."""
        return sum(event['energises'] for event in self.control('log', after_s=time_s))

    def present(self) -> npt.NDArray[np.int64]:
        """Where the servos are now (6,) [ticks]."""
        return np.array(self.arm.registers('PRESENT_POSITION'))
