# SPDX-License-Identifier: Apache-2.0
"""From serialised messages to the few message types that learning needs, whatever version recorded them."""

from collections.abc import Callable, Iterable
import struct
from typing import Any, Generic, TypeVar

import numpy as np
from rosbags.serde import SerdeError
from rosbags.typesys.store import Typestore

from so101_bags import cdr
from so101_bags.errors import BagError, DecodeError
from so101_bags.layout import layout_of, LAYOUTS, missing_fields, typestore_of
from so101_bags.raw import TopicInfo

Message = TypeVar('Message')
BAD_BYTES = (struct.error, ValueError, IndexError, KeyError, TypeError, AssertionError, SerdeError)
"""What decoding raises where bytes do not fit."""


class Decoder(Generic[Message]):
    """Decodes the messages of one topic: quickly where they are laid out as here, by their names elsewhere."""

    def __init__(
        self,
        msgtype: str,
        store: Typestore,
        quick: Callable[[bytes], Message],
        by_name: Callable[[Any], Message],
    ) -> None:
        found = layout_of(store, msgtype)
        self._msgtype, self._store = msgtype, store
        self._quick = quick if found in ('', LAYOUTS[msgtype]) else None
        self._by_name = by_name
        missing = missing_fields(found, msgtype) if found else []
        if missing:
            raise BagError(
                f'expected the fields {missing} in {msgtype}, but this bag was recorded without them; use the '
                f'version of so101_interfaces that recorded it'
            )

    def __call__(self, data: bytes) -> Message:
        """Decode a message.

        Raises:
            DecodeError: its bytes do not fit its type.
        """
        try:
            if self._quick is not None and data[:2] == cdr.LITTLE_ENDIAN:
                return self._quick(data)
            return self._by_name(self._store.deserialize_cdr(data, self._msgtype))
        except BAD_BYTES as error:
            raise DecodeError(
                f'expected a whole {self._msgtype}, got {len(data)} bytes that are none ({error}); '
                f'the message is skipped'
            ) from error


class Decoders:
    """One decoder per type and topic of an open bag."""

    def __init__(self, topics: Iterable[TopicInfo]) -> None:
        self.store = typestore_of(topics)

    def step(self) -> Decoder[cdr.StepMessage]:
        """Return a decoder of steps."""
        return Decoder('so101_interfaces/msg/Step', self.store, cdr.read_step, _step)

    def delta(self) -> Decoder[cdr.DeltaMessage]:
        """Return a decoder of actions."""
        return Decoder('so101_interfaces/msg/EeDelta', self.store, cdr.read_delta, _delta)

    def event(self) -> Decoder[cdr.EventMessage]:
        """Return a decoder of episode events."""
        return Decoder('so101_interfaces/msg/EpisodeEvent', self.store, cdr.read_event, _event)

    def joints(self) -> Decoder[cdr.JointMessage]:
        """Return a decoder of joint states; each topic needs its own."""
        return Decoder('sensor_msgs/msg/JointState', self.store, cdr.JointReader().read, _joints)

    def image(self) -> Decoder[cdr.ImageMessage]:
        """Return a decoder of images."""
        return Decoder('sensor_msgs/msg/Image', self.store, cdr.read_image, _image)

    def any(self, msgtype: str, data: bytes) -> Any:
        """Decode a message of any type whose definition is known.

        Raises:
            DecodeError: it is not, or the bytes do not fit.
        """
        try:
            return self.store.deserialize_cdr(data, msgtype)
        except BAD_BYTES as error:
            raise DecodeError(f'expected a whole {msgtype}, got bytes that are none ({error})') from error


def require_type(info: TopicInfo, msgtype: str) -> None:
    """Refuse a topic of another type than the contract says."""
    if info.msgtype != msgtype:
        raise BagError(f'expected {msgtype} on {info.topic}, got {info.msgtype}; read another bag')


def _ns(stamp: Any) -> int:
    return int(stamp.sec) * cdr.NANOSECONDS + int(stamp.nanosec)


def _step(message: Any) -> cdr.StepMessage:
    return cdr.StepMessage(
        _ns(message.header.stamp),
        int(message.episode),
        int(message.index),
        _ns(message.joint_stamp),
        tuple(_ns(stamp) for stamp in message.image_stamps),
        float(message.reward),
        bool(message.terminated),
        bool(message.truncated),
    )


def _delta(message: Any) -> cdr.DeltaMessage:
    move = message.translation
    return cdr.DeltaMessage(
        _ns(message.header.stamp),
        int(message.episode),
        int(message.index),
        (float(move.x), float(move.y), float(move.z)),
        float(message.gripper),
        int(message.source),
    )


def _event(message: Any) -> cdr.EventMessage:
    return cdr.EventMessage(
        _ns(message.header.stamp),
        int(message.episode),
        int(message.index),
        int(message.kind),
        str(getattr(message, 'reason', '')),
        str(getattr(message, 'observation_hash', '')),
        str(getattr(message, 'action_hash', '')),
        str(getattr(message, 'calibration_id', '')),
    )


def _joints(message: Any) -> cdr.JointMessage:
    return cdr.JointMessage(
        _ns(message.header.stamp),
        tuple(message.name),
        np.asarray(message.position, dtype=np.float64),
        np.asarray(message.velocity, dtype=np.float64),
    )


def _image(message: Any) -> cdr.ImageMessage:
    return cdr.ImageMessage(
        _ns(message.header.stamp),
        int(message.height),
        int(message.width),
        str(message.encoding),
        int(message.step),
        np.asarray(message.data, dtype=np.uint8),
    )
