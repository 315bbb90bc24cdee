# SPDX-License-Identifier: Apache-2.0
"""Starting and stopping a node the same way everywhere."""

from collections.abc import Callable, Sequence
from contextlib import suppress
import gc
import logging
import os
import signal
import sys
from typing import Any

import rclpy
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions


class _Ending:
    """Takes SIGINT and SIGTERM: what runs comes to its end first.

    rclpy's own way ends the context at once, and Python's raises in the middle of whatever runs: a callback that
    publishes at that moment fails, and the log ends in a traceback.
    """

    asked, spinning = False, False

    def __call__(self, *_: Any) -> None:
        first, self.asked = not self.asked, True
        if first and not self.spinning:  # waiting for a port, say
            raise KeyboardInterrupt


_ending = _Ending()


def stop_spinning() -> None:
    """End `run_node` as an interrupt does, once the present callback is done; from any thread."""
    _ending.asked = True


class _NodeHandler(logging.Handler):
    """Forwards what pure code logs to the node's logger."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._logger = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        # One call site per level: rclpy ties a severity to the line that logs.
        text = f'{record.name}: {record.getMessage()}'
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)


def run_node(
    make_node: Callable[[], Node],
    errors: tuple[type[Exception], ...] = (),
    args: Sequence[str] | None = None,
    make_executor: Callable[[Node], Executor] | None = None,
    urgent: bool = False,
) -> int:
    """Run a node until SIGINT or SIGTERM, then close it.

    Args:
        make_node: Builds the node. If the node has `close()`, it is called at the end whatever happens.
        errors: Exceptions that mean a wrong set-up (a missing port, a bad file, a misspelt parameter): they
            end the process with one sentence instead of a traceback.
        args: Command line, sys.argv by default.
        make_executor: What the node spins on, by default what costs least.
        urgent: The node moves the arm: it asks for real-time priority, and goes without where that is not permitted.

    Returns:
        The exit code: 0 after an interrupt, 1 after one of `errors`.
    """
    if urgent:
        _ask_for_precedence()
    rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    _ending.asked = _ending.spinning = False  # of an earlier node of this process
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ending)
    node: Node | None = None
    handler: logging.Handler | None = None
    try:
        node = make_node()
        handler = _NodeHandler(node)
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.INFO)
        # What is there now stays: looked through again by the garbage collector, it would cost a cycle or two.
        gc.collect()
        gc.freeze()
        _spin(node, (make_executor or executor_for)(node))
    except KeyboardInterrupt:
        pass
    except errors as error:
        sys.stderr.write(f'{error}\n')
        return 1
    finally:
        # Terminals and ros2 launch send SIGINT twice at times; an orderly end is not to be interrupted again.
        # A node that takes long to close sets its own handlers there.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if node is not None and hasattr(node, 'close'):
            node.close()
        if handler is not None:
            logging.getLogger().removeHandler(handler)
        # First what belongs to the context, then the context: the other way round has ended in a crash.
        gc.unfreeze()
        with suppress(RuntimeError):
            if node is not None:
                node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _ask_for_precedence() -> None:
    """Take the lowest real-time priority: before everything usual, behind whatever else is in real time."""
    with suppress(OSError):
        # The threads of DDS, which are made later, inherit it.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def executor_for(node: Node) -> Executor:
    """Return the executor that costs a node least.

    rclpy's own builds a new wait set in Python for each callback: a node that hears two hundred messages a second
    spends a tenth of a core on that alone. The events executor, part of rclpy since Jazzy's 7.1.4, takes a sixth.
    As of 7.1.5 it knows neither guard conditions nor callbacks that take the message's info: a node with either
    gives `run_node` another one.
    """
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:  # a ROS that has not been updated for long
        return SingleThreadedExecutor(context=node.context)
    return EventsExecutor(context=node.context)


def _spin(node: Node, executor: Executor) -> None:
    executor.add_node(node)
    _ending.spinning = True
    while not _ending.asked and node.context.ok():
        # Never without a limit: waiting for ever, the events executor of rclpy 7.1.5 hears nothing at all. And a
        # signal is seen only between two waits.
        executor.spin_once(timeout_sec=0.1)
