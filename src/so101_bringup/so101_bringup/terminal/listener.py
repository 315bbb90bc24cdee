# SPDX-License-Identifier: Apache-2.0
"""A node that hears how a stack does, in a thread of the program that started it; it says nothing itself."""

from pathlib import Path
import threading
from types import TracebackType
from typing import Self

from so101_bringup.security import enclave
from so101_bringup.terminal.board import Board

NAME = 'terminal_node'


class Listener:
    """Feeds a board; a context manager.

    Args:
        board: takes what is heard.
        namespace: of the stack.
        keystore: of a secured graph; empty otherwise. One that is older than this node leaves it deaf.
    """

    def __init__(self, board: Board, namespace: str, keystore: str) -> None:
        self._board = board
        self._namespace = namespace
        self._arguments: list[str] = []
        self._open = True
        self._thread = threading.Thread(target=self._listen, name='terminal', daemon=True)
        if keystore:
            name = enclave(namespace, NAME)
            self._arguments = ['--ros-args', '--enclave', name]
            self._open = (Path(keystore) / 'enclaves' / name.lstrip('/')).is_dir()

    def __enter__(self) -> Self:
        if self._open:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        if self._thread.is_alive():
            self._thread.join(2.0)

    def _listen(self) -> None:
        # Here, not above: the nodes start meanwhile.
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions
        from so101_interfaces.msg import ArmStatus, LearnerStatus, SessionStatus

        from so101_contract.session import to_record
        from so101_interfaces_py import qos, topics
        from so101_interfaces_py.node import Node
        from so101_interfaces_py.spin import start_rclpy

        states = {
            ArmStatus.DISABLED: 'disabled',
            ArmStatus.ENABLED: 'enabled',
            ArmStatus.HOLD: 'hold',
            ArmStatus.E_STOP: 'e-stop',
            ArmStatus.FAULT: 'fault',
        }
        context, board = Context(), self._board
        start_rclpy(args=self._arguments, context=context, signal_handler_options=SignalHandlerOptions.NO)
        try:
            node = Node(NAME, context=context, namespace=self._namespace, enable_rosout=False)
            node.create_subscription(
                SessionStatus, topics.SESSION_STATUS, lambda m: board.hear_session(to_record(m)), qos.LATCHED
            )
            node.create_subscription(LearnerStatus, topics.LEARNER_STATUS, board.hear_learner, qos.LATCHED)
            node.create_subscription(
                ArmStatus,
                topics.ARM_STATUS,
                lambda m: board.hear_arm(states.get(m.state, 'unknown'), m.reason),
                qos.LATCHED,
            )
            executor = SingleThreadedExecutor(context=context)
            executor.add_node(node)
            while self._open:
                executor.spin_once(timeout_sec=0.2)
            executor.shutdown()
            node.destroy_node()
        finally:
            context.try_shutdown()
