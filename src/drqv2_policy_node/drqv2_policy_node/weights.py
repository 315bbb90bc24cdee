# SPDX-License-Identifier: Apache-2.0
"""A policy on its way from the learner: cut into messages, put together again, and tried before it acts.

The topic is latched with room for 64 messages, so the newest version must not need more than those. The loader works
in a thread of its own: what comes out is ready to act, and the node only has to assign it.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
import hashlib
import logging
import queue
import threading
from typing import Any, NamedTuple

from builtin_interfaces.msg import Time
from so101_interfaces.msg import PolicyWeights

from drqv2_policy_node.policy import Policy
from drqv2_policy_node.policy_requirements import require_compatible
from drqv2_policy_node.robobase.schedule import parse_schedule, Schedule
from drqv2_policy_node.store import unpack
from so101_contract.errors import ContractError
from so101_contract.manifest import LiveConfig
from so101_interfaces_py.conversions import stamp_to_ns

_log = logging.getLogger(__name__)

CHUNK_BYTES = 512 * 1024
"""Usual size of a piece [B]: larger ones keep the receiver's other callbacks waiting."""

MAX_CHUNKS = 60
"""Most pieces of one version: fewer than the topic keeps."""

MAX_BYTES = 1 << 30
"""Largest payload that a receiver makes room for [B]."""

JOIN_TIMEOUT_S = 5.0

UNUSABLE = (ContractError, RuntimeError, TypeError, MemoryError)
"""What bytes that are no policy raise: torch has its own words for networks of senseless size."""


class WeightsError(ContractError):
    """Weights that came over the wire cannot be used."""


class ReceivedVersion(NamedTuple):
    """A version that has come completely.

    Attributes:
        manifest: policy manifest as JSON.
        payload: bytes of a safetensors file, hash verified.
        version: counts up with every publication of the learner.
        step: the learner's update count at that moment.
        stamp_ns: when it was published [ns].
    """

    manifest: str
    payload: bytes
    version: int
    step: int
    stamp_ns: int


def to_messages(
    manifest: str, payload: bytes, version: int, step: int, stamp: Time | None = None
) -> list[PolicyWeights]:
    """Cut a policy into messages.

    Args:
        manifest: policy manifest as JSON.
        payload: bytes of a safetensors file.
        version: number of this publication, from 1.
        step: gradient updates so far.
        stamp: when it is published; a receiver takes the version with the latest one.

    Raises:
        WeightsError: the version is not above 0, or there is nothing to send.
    """
    if version < 1 or step < 0 or not payload:
        raise WeightsError(
            f'expected a version of at least 1, a step of at least 0 and a payload, got {version}, {step} and '
            f'{len(payload)} B; count publications from 1'
        )
    size = max(CHUNK_BYTES, -(-len(payload) // MAX_CHUNKS))
    pieces = [payload[start : start + size] for start in range(0, len(payload), size)]
    digest = hashlib.sha256(payload).hexdigest()
    messages = []
    for chunk, piece in enumerate(pieces):
        message = PolicyWeights(
            version=version,
            step=step,
            manifest=manifest,
            sha256=digest,
            total_bytes=len(payload),
            chunk=chunk,
            chunks=len(pieces),
        )
        message.header.stamp = stamp or Time()
        message.data = array('B', piece)  # quicker than bytes, which are copied number by number
        messages.append(message)
    return messages


class WeightsReceiver:
    """Puts messages together again, whatever is missing, repeated or damaged.

    One version is put together at a time, the newest: the one with the latest stamp, so that the versions of a learner
    that starts over count too. Pieces of older ones are ignored.
    """

    def __init__(self) -> None:
        self._newest = (-1, -1)
        self._first: PolicyWeights | None = None
        self._pieces: dict[int, bytes] = {}

    def push(self, message: PolicyWeights) -> ReceivedVersion | None:
        """Take a message and return the version that it completes, once.

        Raises:
            WeightsError: the version cannot be put together; what else comes of it is ignored.
        """
        stamp_ns = stamp_to_ns(message.header.stamp)
        order = (stamp_ns, int(message.version))
        if order > self._newest:
            self._newest, self._first, self._pieces = order, message, {}
        elif order < self._newest or self._first is None:
            return None
        try:
            _check(message, self._first)
            self._pieces[message.chunk] = message.data.tobytes()
            if len(self._pieces) < message.chunks and self._bytes < message.total_bytes:
                return None
            payload = b''.join(piece for _, piece in sorted(self._pieces.items()))
            _verify(message, payload)
        except WeightsError:
            self._first, self._pieces = None, {}
            raise
        self._first, self._pieces = None, {}
        return ReceivedVersion(message.manifest, payload, int(message.version), int(message.step), stamp_ns)

    @property
    def _bytes(self) -> int:
        return sum(map(len, self._pieces.values()))


def _check(message: PolicyWeights, first: PolicyWeights) -> None:
    """Refuse a piece that contradicts itself or the first one of its version."""
    same = ('step', 'manifest', 'sha256', 'total_bytes', 'chunks')
    others = [name for name in same if getattr(message, name) != getattr(first, name)]
    if others:
        raise WeightsError(
            f'expected every piece of the weights {message.version} to say the same, got another '
            f'{", ".join(others)}; let one learner publish at a time'
        )
    if not (message.version > 0 and message.chunk < message.chunks and 0 < message.total_bytes <= MAX_BYTES):
        raise WeightsError(
            f'expected a version above 0, a piece below {message.chunks} and 1..{MAX_BYTES} B, got version '
            f'{message.version}, piece {message.chunk} and {message.total_bytes} B; repair the sender'
        )


def _verify(message: PolicyWeights, payload: bytes) -> None:
    """Refuse bytes that are not those that were sent (B11)."""
    digest = hashlib.sha256(payload).hexdigest()
    if len(payload) != message.total_bytes or digest != message.sha256:
        raise WeightsError(
            f'expected {message.total_bytes} B with the hash {message.sha256[:12]} as weights {message.version}, '
            f'got {len(payload)} B with {digest[:12]}; the present policy stays, the next version may be whole'
        )


@dataclass(frozen=True)
class Loaded:
    """A policy that may act here.

    Attributes:
        policy: verified, and tried once.
        schedule: of its exploration noise.
        version: of its weights; 0 for those from disk.
        step: the learner's update count.
        stamp_ns: when it was published [ns]; None for one from disk.
        remarks: what the user should know about it.
    """

    policy: Policy
    schedule: Schedule
    version: int = 0
    step: int = 0
    stamp_ns: int | None = None
    remarks: tuple[str, ...] = ()


def examine(policy: Policy, live: LiveConfig, received: ReceivedVersion | None = None) -> Loaded:
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
            except UNUSABLE as error:
                self.refused += 1
                _log.error('weights %d refused, the present policy stays: %s', message.version, error)
