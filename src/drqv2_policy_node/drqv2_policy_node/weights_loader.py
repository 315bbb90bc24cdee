# SPDX-License-Identifier: Apache-2.0
"""Weights from the learner are put together, verified and tried aside, in a thread of their own.

What comes out is ready to act; the node only has to assign it.
"""

from collections.abc import Callable
from dataclasses import dataclass
import logging
import queue
import threading
from typing import Any

from drqv2_policy_node.policy import Policy
from drqv2_policy_node.policy_requirements import require_compatible
from drqv2_policy_node.robobase.schedule import parse_schedule, Schedule
from drqv2_policy_node.store import unpack
from drqv2_policy_node.weights import Received, WeightsReceiver
from so101_contract.errors import ContractError
from so101_contract.manifest import LiveConfig

_log = logging.getLogger(__name__)

JOIN_TIMEOUT_S = 5.0

NO_POLICY = (ContractError, RuntimeError, TypeError, MemoryError)
"""What bytes that are no policy raise: torch has its own words for networks of senseless size."""


@dataclass(frozen=True)
class Loaded:
    """A policy that may act here.

    Attributes:
        policy: verified, and tried once.
        schedule: of its exploration noise.
        version: of its weights; 0 for those from disk.
        step: the learner's update count.
        stamp_ns: when it was published [ns]; None for one from disk.
        remarks: what the operator should know about it.
    """

    policy: Policy
    schedule: Schedule
    version: int = 0
    step: int = 0
    stamp_ns: int | None = None
    remarks: tuple[str, ...] = ()


def examine(policy: Policy, live: LiveConfig, received: Received | None = None) -> Loaded:
    """Return a policy that may act here.

    Raises:
        ContractError: it was trained for something else, or its noise schedule is none.
    """
    remarks = tuple(require_compatible(policy.manifest, live))
    schedule = parse_schedule(policy.manifest.std_schedule)
    if received is None:
        return Loaded(policy, schedule, remarks=remarks)
    return Loaded(policy, schedule, received.version, received.step, received.stamp_ns, remarks)


class WeightsLoader:
    """Turns messages into policies, in the background. `put` never waits.

    Attributes:
        refused: how many versions were refused.
    """

    def __init__(self, live: Callable[[], LiveConfig], on_loaded: Callable[[Loaded], None]) -> None:
        """Start the thread.

        Args:
            live: tells what the policies are compared with.
            on_loaded: called in the thread for each policy that may act; it must be quick.
        """
        self.refused = 0
        self._live = live
        self._on_loaded = on_loaded
        self._receiver = WeightsReceiver()
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name='weights', daemon=True)
        self._thread.start()

    def put(self, message: Any) -> None:
        """Take a `PolicyWeights` message."""
        self._messages.put(message)

    def close(self) -> None:
        """End the thread; safe to call twice."""
        self._messages.put(None)
        self._thread.join(JOIN_TIMEOUT_S)

    def _run(self) -> None:
        while (message := self._messages.get()) is not None:
            try:
                received = self._receiver.push(message)
                if received is not None:
                    policy = unpack(received.manifest, received.payload)
                    self._on_loaded(examine(policy, self._live(), received))
            except NO_POLICY as error:
                self.refused += 1
                _log.error('weights %d refused, the present policy stays: %s', message.version, error)
