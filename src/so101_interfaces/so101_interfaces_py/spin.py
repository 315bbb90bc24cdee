# SPDX-License-Identifier: Apache-2.0
"""Starting and stopping a node the same way everywhere."""

from collections.abc import Callable, Sequence
from contextlib import suppress
import gc
import logging
import os
import time
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from so101_interfaces_py import graph, voices
from so101_interfaces_py.endings import Ending, heed_endings, ignore_endings, tell
from so101_interfaces_py.node import Node

LOOK_S = 4.0
"""How long a node that has just come waits for the others to show up: a little more than DDS's heartbeat of 3 s."""

_ending = Ending()


def stop_spinning() -> None:
    """End `run_node` as an interrupt does, once the present callback is done; from any thread."""
    _ending.asked = True


class SoleNode(Node):
    """A node that is the only one of its name in its namespace and ROS domain, or is not made.

    Raises:
        TakenError: there is one already.
    """

    def __init__(self, name: str, **node_options: Any) -> None:
        super().__init__(name, **node_options)
        try:
            self._name_claim = graph.claim(
                self.context.get_domain_id(), self.get_namespace(), self.get_name()
            )
            if graph.is_open():  # then it may run on another machine, where no claim is seen
                time.sleep(LOOK_S)
                voices.check_only_here(self)
        except graph.TakenError:
            super().destroy_node()
            raise

    def destroy_node(self) -> None:
        """Give the name back too."""
        super().destroy_node()
        self._name_claim.close()


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


def start_rclpy(**how: Any) -> None:
    """Do what rclpy.init does, in a graph that stays on this machine unless the environment opens it."""
    graph.settle()
    rclpy.init(**how)


def look_around(wait_s: float = LOOK_S) -> tuple[list[voices.Speaker], bytes]:
    """Look who is in the domain.

    Returns:
        The other nodes, and what `host_of` says of this machine.
    """
    here = graph.participants_here(graph.domain_of())
    if not here and not graph.is_open():
        return [], b''
    context, until = Context(), time.monotonic() + wait_s
    start_rclpy(args=[], context=context)
    try:
        node = Node('so101_look', context=context, enable_rosout=False)
        seen, host = voices.nodes_of(node), voices.host_of(node)
        while time.monotonic() < until and (graph.is_open() or len({s.process for s in seen}) < here):
            time.sleep(0.1)
            seen = voices.nodes_of(node)
        node.destroy_node()
    finally:
        context.try_shutdown()
    return seen, host


def run_node(
    make_node: Callable[[], Node],
    errors: tuple[type[Exception], ...] = (),
    args: Sequence[str] | None = None,
    make_executor: Callable[[Node], Executor] | None = None,
    urgent: bool = False,
) -> int:
    """Run a node until a signal to end, or the end of the process that started it, then close it.

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
    _ending.asked = _ending.spinning = False  # of an earlier node of this process
    refusals: tuple[type[Exception], ...] = (graph.TakenError, *errors)
    node: Node | None = None
    handler: logging.Handler | None = None
    try:
        heed_endings(_ending)
        start_rclpy(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
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
    except refusals as error:
        tell(str(error))
        return 1
    finally:
        ignore_endings()  # a node that takes long to close sets its own handlers there
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
