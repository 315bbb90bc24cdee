# SPDX-License-Identifier: Apache-2.0
"""Steps, events, opinions and actions: the one place where a message becomes a record, and a record a message."""

from typing import Any, TYPE_CHECKING

import numpy as np

from so101_contract.action import Displacement
from so101_contract.joints import BASE_FRAME
from so101_contract.messages.records import EpisodeEventRecord, ExecutedAction, StepRecord
from so101_contract.session import NO_EPISODE, Source
from so101_interfaces_py.conversions import ns_to_stamp, stamp_to_ns

if TYPE_CHECKING:
    from so101_interfaces.msg import EeDelta, EpisodeEvent, Step


def step_record(message: Any) -> StepRecord:
    """Return what a `Step` says."""
    return StepRecord(
        episode=int(message.episode),
        index=int(message.index),
        stamp_ns=stamp_to_ns(message.header.stamp),
        joint_stamp_ns=stamp_to_ns(message.joint_stamp),
        image_stamps_ns=tuple(stamp_to_ns(stamp) for stamp in message.image_stamps),
        reward=float(message.reward),
        terminated=bool(message.terminated),
        truncated=bool(message.truncated),
    )


def step_message(step: StepRecord) -> 'Step':
    """Return the `Step` that says this."""
    from so101_interfaces.msg import Step

    message = Step(
        episode=step.episode,
        index=step.index,
        joint_stamp=ns_to_stamp(step.joint_stamp_ns),
        image_stamps=[ns_to_stamp(stamp_ns) for stamp_ns in step.image_stamps_ns],
        reward=step.reward,
        terminated=step.terminated,
        truncated=step.truncated,
    )
    message.header.stamp = ns_to_stamp(step.stamp_ns)
    return message


# --- EpisodeEvent ---


def event_record(message: Any) -> EpisodeEventRecord:
    """Return what an `EpisodeEvent` says; what the bags of old versions do not have is empty."""
    said = {
        name: str(getattr(message, name, ''))
        for name in ('reason', 'observation_hash', 'action_hash', 'calibration_id', 'task_hash')
    }
    stamp_ns, by_human = stamp_to_ns(message.header.stamp), bool(getattr(message, 'by_human', False))
    return EpisodeEventRecord(
        int(message.episode), message.kind, stamp_ns, int(message.index), **said, by_human=by_human
    )


def event_message(event: EpisodeEventRecord) -> 'EpisodeEvent':
    """Return the `EpisodeEvent` that says this."""
    from so101_interfaces.msg import EpisodeEvent

    message = EpisodeEvent(
        episode=event.episode,
        index=event.index,
        kind=event.kind.value,
        reason=event.reason,
        observation_hash=event.observation_hash,
        action_hash=event.action_hash,
        calibration_id=event.calibration_id,
        task_hash=event.task_hash,
        by_human=event.by_human,
    )
    message.header.stamp = ns_to_stamp(event.stamp_ns)
    return message


# --- EeDelta ---


def action_record(message: Any) -> ExecutedAction:
    """Return what an `EeDelta` says.

    Raises:
        ContractError: it is not finite, or nobody knows its source.
    """
    move = message.translation
    return ExecutedAction(
        int(message.episode),
        int(message.index),
        np.array([move.x, move.y, move.z]),
        float(message.gripper),
        message.source,
        stamp_to_ns(message.header.stamp),
    )


def action_message(
    action: Displacement,
    source: Source,
    stamp_ns: int,
    *,
    episode: int = NO_EPISODE,
    index: int = 0,
    frame_id: str = BASE_FRAME,
) -> 'EeDelta':
    """Return the `EeDelta` that says this.

    Args:
        action: displacement and opening.
        source: who decided it.
        stamp_ns: when it was decided [ns].
        episode: that it belongs to.
        index: step that it answers.
        frame_id: frame of the displacement.
    """
    from so101_interfaces.msg import EeDelta

    message = EeDelta(episode=episode, index=index, gripper=action.opening, source=source.value)
    message.header.stamp = ns_to_stamp(stamp_ns)
    message.header.frame_id = frame_id
    vector = message.translation
    vector.x, vector.y, vector.z = action.translation.tolist()
    return message
