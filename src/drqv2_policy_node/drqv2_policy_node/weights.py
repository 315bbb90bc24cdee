# SPDX-License-Identifier: Apache-2.0
"""A policy on its way from the learner: cut into messages, and put together again.

The topic is latched with room for 64 messages, so the newest version must not need more than those.
"""

from array import array
import hashlib
from typing import NamedTuple

from builtin_interfaces.msg import Time
from so101_interfaces.msg import PolicyWeights

from so101_contract.errors import ContractError
from so101_interfaces_py.conversions import stamp_to_ns

CHUNK_BYTES = 512 * 1024
"""Usual size of a piece [B]: larger ones keep the receiver's other callbacks waiting."""

MAX_CHUNKS = 60
"""Most pieces of one version: fewer than the topic keeps."""

MAX_BYTES = 1 << 30
"""Largest payload that a receiver makes room for [B]."""


class WeightsError(ContractError):
    """Weights that came over the wire cannot be used."""


class Received(NamedTuple):
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

    def push(self, message: PolicyWeights) -> Received | None:
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
        return Received(message.manifest, payload, int(message.version), int(message.step), stamp_ns)

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
