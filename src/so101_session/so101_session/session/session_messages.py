# SPDX-License-Identifier: Apache-2.0
"""The session's words as messages, and back."""

from builtin_interfaces.msg import Time
from so101_interfaces.msg import ArmStatus, EeDelta, EpisodeEvent, Step

from so101_contract.records import StepRecord
from so101_interfaces_py.conversions import ns_to_stamp
from so101_session.session.arbiter import Execute, Proposal
from so101_session.session.effects import Event

DRIVABLE = (ArmStatus.ENABLED, ArmStatus.HOLD)
"""States of the arm in which it follows, or will follow, a command."""


def step_message(step: StepRecord) -> Step:
    """Build the message of a step."""
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


def event_message(event: Event, stamp: Time) -> EpisodeEvent:
    """Build the message of an event."""
    message = EpisodeEvent(
        episode=event.episode, index=event.index, kind=event.kind.value, reason=event.reason
    )
    message.header.stamp = stamp
    return message


def delta_message(action: Execute, stamp: Time, frame_id: str) -> EeDelta:
    """Build the message of the one action of a step."""
    message = EeDelta(
        episode=action.episode,
        index=action.index,
        gripper=action.value.opening,
        source=action.source.value,
    )
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    vector = message.translation
    vector.x, vector.y, vector.z = action.value.translation.tolist()
    return message


def proposal_of(message: EeDelta) -> Proposal:
    """Read what a policy or a person wants."""
    vector = message.translation
    return Proposal(
        translation=(vector.x, vector.y, vector.z),
        opening=message.gripper,
        frame_id=message.header.frame_id,
        episode=message.episode,
        index=message.index,
        gone=message.source == EeDelta.SOURCE_NONE and not (vector.x or vector.y or vector.z),
    )


def arm_problem(status: ArmStatus) -> str:
    """Say why the arm cannot be driven, or nothing."""
    if status.state in DRIVABLE:
        return ''
    return f'the arm is not enabled: {status.reason or "arm/enable switches it on"}'
