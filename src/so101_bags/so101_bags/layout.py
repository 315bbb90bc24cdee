# SPDX-License-Identifier: Apache-2.0
"""What a message looks like in bytes: the definition that a bag carries, against the one that is known here."""

from collections.abc import Iterable, Mapping
import re
from typing import Any

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Nodetype
from rosbags.typesys import get_types_from_idl, get_types_from_msg, get_typestore, Stores, TypesysError
from rosbags.typesys.store import Typestore

from so101_bags.errors import BagError
from so101_bags.raw import TopicInfo

_HEADER = 'header.stamp.sec:int32 header.stamp.nanosec:uint32 header.frame_id:string '
LAYOUTS: Mapping[str, str] = {
    'so101_interfaces/msg/Step': _HEADER
    + 'episode:uint32 index:uint32 joint_stamp.sec:int32 joint_stamp.nanosec:uint32 '
    'image_stamps:(sec:int32 nanosec:uint32)[] reward:float32 terminated:bool truncated:bool',
    'so101_interfaces/msg/EpisodeEvent': _HEADER
    + 'episode:uint32 index:uint32 kind:uint8 reason:string observation_hash:string action_hash:string '
    'calibration_id:string',
    'so101_interfaces/msg/EeDelta': _HEADER
    + 'episode:uint32 index:uint32 translation.x:float64 translation.y:float64 translation.z:float64 '
    'gripper:float64 source:uint8',
    'sensor_msgs/msg/JointState': _HEADER
    + 'name:string[] position:float64[] velocity:float64[] effort:float64[]',
    'sensor_msgs/msg/Image': _HEADER
    + 'height:uint32 width:uint32 encoding:string is_bigendian:uint8 step:uint32 data:uint8[]',
}
"""What the quick decoders expect. A bag that says nothing about a type is taken to mean this."""


OPTIONAL = frozenset(
    [
        'header.frame_id',
        'reason',
        'observation_hash',
        'action_hash',
        'calibration_id',
        'effort',
        'is_bigendian',
    ]
)
"""Fields that a bag may lack: nothing that is learned depends on them."""


def missing_fields(layout: str, msgtype: str) -> list[str]:
    """Return the fields that a bag's type lacks and learning needs."""
    found = _names(layout) | OPTIONAL
    return sorted(_names(LAYOUTS[msgtype]) - found)


def _names(layout: str) -> set[str]:
    flat = re.sub(r'\([^()]*\)', '', layout)
    return {field.split(':')[0] for field in flat.split(' ')}


def typestore_of(topics: Iterable[TopicInfo]) -> Typestore:
    """Return a typestore with the definitions of a bag, on top of those of ROS 2 Jazzy.

    Raises:
        BagError: a definition cannot be parsed, or two bags mean different things by one type.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    standard = dict(store.fielddefs)
    known: dict[str, str] = {}
    for info in topics:
        for definition in info.definitions:
            types = _parse(info.msgtype, definition)
            layout = _flatten({**standard, **types}, info.msgtype)
            if known.setdefault(info.msgtype, layout) != layout:
                raise BagError(
                    f'expected one meaning of {info.msgtype} in all bags, got {layout!r} beside '
                    f'{known[info.msgtype]!r}; read these bags one at a time'
                )
            # The bag's own words win: it may be older or newer than this program.
            for name in types:
                store.fielddefs.pop(name, None)
            store.register(types)
    return store


def layout_of(store: Typestore, msgtype: str) -> str:
    """Return a type's fields in order, nested ones by their path; empty where the store lacks it."""
    return _flatten(store.fielddefs, msgtype) if msgtype in store.fielddefs else ''


def _parse(msgtype: str, definition: MessageDefinition) -> dict[str, Any]:
    try:
        if definition.format is MessageDefinitionFormat.MSG:
            return dict(get_types_from_msg(definition.data, msgtype))
        types: dict[str, Any] = {}
        for part in definition.data.split('=' * 80 + '\n'):
            if part.strip():
                types.update(get_types_from_idl(part.split('\n', 1)[1] if part.startswith('IDL: ') else part))
        return types
    except (TypesysError, ValueError, KeyError, IndexError) as error:
        raise BagError(
            f'expected a definition of {msgtype} in the bag that can be read, got {error}; record it again'
        ) from error


def _flatten(fields: Mapping[str, Any], msgtype: str) -> str:
    return ' '.join(_flat_fields(fields, msgtype, ''))


def _flat_fields(fields: Mapping[str, Any], msgtype: str, prefix: str) -> Iterable[str]:
    if msgtype not in fields:
        yield f'{prefix}:{msgtype}'
        return
    for name, (kind, detail) in fields[msgtype][1]:
        if kind is Nodetype.NAME:
            yield from _flat_fields(fields, detail, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}:{_flat_type(fields, kind, detail)}'


def _flat_type(fields: Mapping[str, Any], kind: Nodetype, detail: Any) -> str:
    if kind is Nodetype.BASE:
        return str(detail[0])
    if kind is Nodetype.NAME:
        return f'({" ".join(_flat_fields(fields, detail, ""))})'
    (inner_kind, inner), length = detail
    size = '' if kind is Nodetype.SEQUENCE else str(length)
    return f'{_flat_type(fields, inner_kind, inner)}[{size}]'
