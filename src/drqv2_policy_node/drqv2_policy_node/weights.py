# SPDX-License-Identifier: Apache-2.0
"""A policy on its way from the learner: cut into messages, put together again, and tried before it acts.

The topic is latched with room for 64 messages, so the newest version must not need more than those. The loader works
in a thread of its own: what comes out is ready to act, and the node only has to assign it.

Versions are ordered by who sends them and by their number, never by a stamp: clocks differ, and may lie in the future.
"""

from array import array
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
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
from so101_contract.manifest import LiveConfig, PolicyManifest
from so101_interfaces_py.conversions import stamp_to_ns
from so101_interfaces_py.node import reason_of, worth_telling

_log = logging.getLogger(__name__)

CHUNK_BYTES = 512 * 1024
"""Usual size of a piece [B]: larger ones keep the receiver's other callbacks waiting."""

MAX_CHUNKS = 60
"""Most pieces of one version: fewer than the topic keeps."""

MAX_BYTES = 1 << 30
"""Largest payload that a receiver makes room for [B]."""

MAX_MANIFEST = 1 << 18
"""Longest manifest [characters]."""

MAX_OPEN, MAX_SENDERS, MAX_WAITING = 4, 16, 4 * MAX_CHUNKS
"""Versions that are put together at a time, senders that are remembered, and pieces that wait for the loader."""

JOIN_TIMEOUT_S = 5.0


class WeightsError(ContractError):
    """Weights that came over the wire cannot be used."""


class ReceivedVersion(NamedTuple):
    """A version that has come completely.

    Attributes:
        manifest: policy manifest as JSON.
        payload: bytes of a safetensors file, hash verified.
        version: counts up with every publication of the learner.
        step: the learner's update count at that moment.
        stamp_ns: when it was published [ns]; it orders nothing.
        sender: which life of which learner.
    """

    manifest: str
    payload: bytes
    version: int
    step: int
    stamp_ns: int
    sender: str = ''


def to_messages(
    manifest: str, payload: bytes, version: int, step: int, *, stamp: Time | None = None, sender: str = ''
) -> list[PolicyWeights]:
    """Cut a policy into messages.

    Args:
        manifest: policy manifest as JSON.
        payload: bytes of a safetensors file.
        version: number of this publication, from 1; a receiver takes the highest of a sender.
        step: gradient updates so far.
        stamp: when it is published.
        sender: which life of which learner; one that starts over has another name.

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
            sender=sender,
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


class _Head(NamedTuple):
    """What all pieces of a version say alike."""

    sender: str
    version: int
    step: int
    manifest: str
    sha256: str
    total_bytes: int
    chunks: int


class WeightsReceiver:
    """Puts messages together again, whatever is missing, repeated or damaged.

    A few versions are put together side by side, so that one that is never whole, or is refused, keeps no other out. Of
    a sender whose version was accepted only higher ones are looked at; a learner that starts over is another sender.
    """

    def __init__(self) -> None:
        self._open: dict[_Head, dict[int, bytes]] = {}
        self._done: deque[_Head] = deque(maxlen=MAX_SENDERS)
        self._accepted: dict[str, int] = {}

    def push(self, message: PolicyWeights) -> ReceivedVersion | None:
        """Take a message and return the version that it completes, once.

        Raises:
            WeightsError: the message contradicts itself, or the version that it completes is not what was sent.
        """
        head = _Head(*(getattr(message, name) for name in _Head._fields))
        _check(head, message.chunk)
        if head.version <= self._accepted.get(head.sender, 0) or head in self._done:
            return None
        pieces = self._open.pop(head, {})
        pieces[message.chunk] = message.data.tobytes()
        if len(pieces) < head.chunks and _size(pieces) < head.total_bytes:
            self._open[head] = pieces  # the one that grew last stays longest
            self._make_room()
            return None
        self._done.append(head)
        payload = b''.join(piece for _, piece in sorted(pieces.items()))
        _verify(head, payload)
        stamp_ns = stamp_to_ns(message.header.stamp)
        return ReceivedVersion(head.manifest, payload, head.version, head.step, stamp_ns, head.sender)

    def accept(self, received: ReceivedVersion) -> None:
        """Look at no version of this sender any more that is not higher."""
        self._accepted.pop(received.sender, None)
        self._accepted[received.sender] = received.version
        _keep_newest(self._accepted, MAX_SENDERS)
        for head in [head for head in self._open if head.sender == received.sender]:
            if head.version <= received.version:
                del self._open[head]

    def _make_room(self) -> None:
        _keep_newest(self._open, MAX_OPEN)
        while len(self._open) > 1 and sum(map(_size, self._open.values())) > MAX_BYTES:
            _keep_newest(self._open, len(self._open) - 1)


def _size(pieces: dict[int, bytes]) -> int:
    return sum(map(len, pieces.values()))


def _keep_newest(entries: dict[Any, Any], most: int) -> None:
    while len(entries) > most:
        del entries[next(iter(entries))]


def _check(head: _Head, chunk: int) -> None:
    """Refuse a piece that contradicts itself."""
    if not (head.version > 0 and chunk < head.chunks <= MAX_CHUNKS and 0 < head.total_bytes <= MAX_BYTES):
        raise WeightsError(
            f'expected a version above 0, a piece below {min(head.chunks, MAX_CHUNKS)} and 1..{MAX_BYTES} B, got '
            f'version {head.version}, piece {chunk} of {head.chunks} and {head.total_bytes} B; repair the sender'
        )
    if len(head.manifest) > MAX_MANIFEST or len(head.sender) > MAX_MANIFEST:
        raise WeightsError(
            f'expected a manifest of at most {MAX_MANIFEST} characters, got {len(head.manifest)}; repair the sender'
        )


def _verify(head: _Head, payload: bytes) -> None:
    """Refuse bytes that are not those that were sent (B11)."""
    digest = hashlib.sha256(payload).hexdigest()
    if len(payload) != head.total_bytes or digest != head.sha256:
        raise WeightsError(
            f'expected {head.total_bytes} B with the hash {head.sha256[:12]} as weights {head.version}, '
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
        self._refusals: Counter[str] = Counter()
        self._live = live
        self._on_loaded = on_loaded
        self._receiver = WeightsReceiver()
        self._messages: queue.Queue[Any] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name='weights', daemon=True)
        self._thread.start()

    def put(self, message: Any) -> None:
        """Take a `PolicyWeights` message; one too many is lost, as on the wire: another version comes."""
        with suppress(queue.Full):
            self._messages.put_nowait(message)

    def close(self) -> None:
        """End the thread; safe to call twice."""
        with suppress(queue.Full):
            self._messages.put(None, timeout=JOIN_TIMEOUT_S)
        self._thread.join(JOIN_TIMEOUT_S)

    def _run(self) -> None:
        while (message := self._messages.get()) is not None:
            try:
                received = self._receiver.push(message)
                if received is not None:
                    self._on_loaded(self._load(received))
                    self._receiver.accept(received)
            except (
                Exception
            ) as error:  # whatever it is, it is in what came, and the next version may be whole
                self.refused += 1
                kind = type(
                    error
                ).__name__  # a damaged version does not silence that the next is for another arm
                self._refusals[kind] += 1
                if worth_telling(self._refusals[kind]):
                    said = message.version, self.refused, reason_of(error)
                    _log.error('weights %d refused (%d so far), the present policy stays: %s', *said)

    def _load(self, received: ReceivedVersion) -> Loaded:
        live = self._live()
        # Before anything is made in the sizes that it names.
        require_compatible(PolicyManifest.from_json(received.manifest), live)
        return examine(unpack(received.manifest, received.payload), live, received)
