# SPDX-License-Identifier: Apache-2.0
"""The expert beside the twin: a ROS node in a thread hears the ground truth, and the expert follows it.

The expert counts steps, so it is shown the truth ten times a second while it is asked for chunks; in between it only
watches, as it does where another one drives.
"""

from contextlib import suppress
import copy
import threading
import time

import numpy as np
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from so101_interfaces.msg import TaskReport as TaskReportMessage

from so101_contract.errors import ContractError
from so101_contract.task.files import get_task
from so101_contract.task_report import GroundTruth, to_record
from so101_interfaces_py import qos, topics
from so101_interfaces_py.node import Node
from so101_interfaces_py.spin import start_rclpy
from so101_sim.human.expert import Expert, Skill
from so101_sim.tasks import task_of

NAME = 'policy_server'
ASKED_S = 1.0
"""So long after a request it still counts as the one who drives [s]."""

OLD_S = 1.0
"""An older ground truth is none [s]."""


class ExpertWatch:
    """Follows the ground truth of a graph; its methods may be called from any thread."""

    def __init__(self, task: str, skill: Skill, *, step_s: float, seed: int, namespace: str = '') -> None:
        """Join the graph.

        Args:
            task: name or file of what is to be done.
            skill: how well.
            step_s: length of a step [s].
            seed: of what is left to chance.
            namespace: of the arm.
        """
        judged = task_of(get_task(task), 1.0 / step_s)
        self._expert, self._rng = Expert(judged, skill=skill), np.random.default_rng(seed)
        self._step_s = step_s
        self._truth: GroundTruth | None = None
        self._heard_s = self._asked_s = self._stepped_s = float('-inf')
        self._resets = -1
        self._lock = threading.Lock()
        start_rclpy(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node(NAME, namespace=namespace)
        self._node.create_subscription(
            TaskReportMessage, topics.SIM_TASK, self._on_task, qos.STATE_SUBSCRIBER
        )
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name='ground-truth', daemon=True)
        self._thread.start()

    def now(self) -> tuple[Expert, GroundTruth]:
        """Return the expert as it is now, a copy, and what it sees.

        Raises:
            ContractError: there is no ground truth.
        """
        with self._lock:
            self._asked_s = time.monotonic()
            if self._truth is None or self._asked_s - self._heard_s > OLD_S:
                raise ContractError(
                    f'expected the ground truth of a simulated arm on {topics.SIM_TASK}, got none; start the twin '
                    'first, in the same ROS domain'
                )
            return copy.deepcopy(self._expert), self._truth

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        self._node.context.try_shutdown()

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self._executor.spin()

    def _on_task(self, message: TaskReportMessage) -> None:
        report = to_record(message)
        with self._lock:
            now_s, self._truth = time.monotonic(), report.state.truth
            self._heard_s = now_s
            if report.state.resets != self._resets:
                self._resets = report.state.resets
                self._expert.reset(self._rng)
            if now_s - self._stepped_s < self._step_s:
                return
            self._stepped_s = now_s
            if now_s - self._asked_s <= ASKED_S:
                self._expert.act(self._truth)
            else:
                self._expert.observe(self._truth)
