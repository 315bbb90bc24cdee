# SPDX-License-Identifier: Apache-2.0
"""Makes the messages of a session, as bytes, without ROS: the raw material of the tests about bags."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
import functools
from pathlib import Path

import numpy as np
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

from so101_bags.messages import Decoders
from so101_bags.metadata import definition_of
from so101_bags.storage import RawMessage, TopicInfo
from so101_bags.write import BagWriter, Extras
from so101_contract.action import ActionSpec
from so101_contract.joints import JOINT_NAMES
from so101_contract.observation_spec import get_observation
from so101_contract.session import EventKind

SPEC = get_observation('compact')
START_NS = 1_800_000_000_000_000_000
TYPES = {
    'session/step': 'so101_interfaces/msg/Step',
    'session/event': 'so101_interfaces/msg/EpisodeEvent',
    'ee_delta_cmd': 'so101_interfaces/msg/EeDelta',
    'joint_states': 'sensor_msgs/msg/JointState',
    'gripper_cam/image_raw': 'sensor_msgs/msg/Image',
    'front_cam/image_raw': 'sensor_msgs/msg/Image',
    'tcp_pose': 'geometry_msgs/msg/PoseStamped',
}


@functools.cache
def store():
    """A typestore with every type that a session uses."""
    types = ('so101_interfaces/msg/ArmStatus', 'std_msgs/msg/String', *dict.fromkeys(TYPES.values()))
    texts = [MessageDefinition(MessageDefinitionFormat.MSG, definition_of(name).text) for name in types]
    return Decoders(TopicInfo('', name, 0, [text]) for name, text in zip(types, texts, strict=True)).store


def time_of(stamp_ns):
    """A stamp as message."""
    return store().types['builtin_interfaces/msg/Time'](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)


def header(stamp_ns, frame='base_link'):
    """A header as message."""
    return store().types['std_msgs/msg/Header'](stamp=time_of(stamp_ns), frame_id=frame)


def pack(msgtype, **fields):
    """A message as bytes."""
    return bytes(store().serialize_cdr(store().types[msgtype](**fields), msgtype))


def step(stamp_ns, episode, index, joint_ns, images_ns, reward=0.0, terminated=False, truncated=False):
    """A Step as bytes."""
    return pack(
        TYPES['session/step'],
        header=header(stamp_ns, ''),
        episode=episode,
        index=index,
        joint_stamp=time_of(joint_ns),
        image_stamps=[time_of(ns) for ns in images_ns],
        reward=reward,
        terminated=terminated,
        truncated=truncated,
    )


def event(
    stamp_ns, episode, kind, index=0, observation_hash='', action_hash='', calibration_id='', by_human=False
):
    """An EpisodeEvent as bytes."""
    return pack(
        TYPES['session/event'],
        header=header(stamp_ns, ''),
        episode=episode,
        index=index,
        kind=int(kind),
        reason='',
        observation_hash=observation_hash,
        action_hash=action_hash,
        calibration_id=calibration_id,
        task_hash='',
        by_human=by_human,
    )


def delta(stamp_ns, episode, index, translation, opening=0.5, source=1):
    """An EeDelta as bytes."""
    vector = store().types['geometry_msgs/msg/Vector3'](*map(float, translation))
    return pack(
        TYPES['ee_delta_cmd'],
        header=header(stamp_ns),
        episode=episode,
        index=index,
        translation=vector,
        gripper=float(opening),
        source=source,
    )


def joints(stamp_ns, position, velocity=None, names=JOINT_NAMES):
    """A JointState as bytes."""
    velocity = np.zeros(len(position)) if velocity is None else velocity
    arrays = [np.asarray(values, dtype=np.float64) for values in (position, velocity, [])]
    return pack(
        TYPES['joint_states'],
        header=header(stamp_ns, ''),
        name=list(names),
        position=arrays[0],
        velocity=arrays[1],
        effort=arrays[2],
    )


def image(stamp_ns, pixels, encoding='rgb8'):
    """An Image as bytes."""
    return pack(
        TYPES['gripper_cam/image_raw'],
        header=header(stamp_ns, 'gripper_cam_optical_frame'),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels.nbytes // pixels.shape[0],
        data=pixels.reshape(-1),
    )


def pose(stamp_ns, position):
    """A PoseStamped as bytes."""
    types = store().types
    point = types['geometry_msgs/msg/Point'](*map(float, position))
    turn = types['geometry_msgs/msg/Quaternion'](0.0, 0.0, 0.0, 1.0)
    return pack(
        TYPES['tcp_pose'],
        header=header(stamp_ns),
        pose=types['geometry_msgs/msg/Pose'](position=point, orientation=turn),
    )


@dataclass(frozen=True)
class Session:
    """What happened in a recording; every field can be bent to make a fault."""

    episodes: int = 2
    steps: int = 12
    namespace: str = ''
    seed: int = 0
    start_ns: int = START_NS
    size: tuple[int, int] = (48, 64)
    joint_hz: int = 100
    camera_hz: int = 30
    scale: float = 1.0  # of the actions
    moving: bool = True
    teleop: bool = True  # the middle third of each episode
    lost_images: float = 0.0
    front: bool = False  # a second camera
    observation_hash: str = SPEC.hash
    action_hash: str = field(default_factory=lambda: ActionSpec().hash)
    calibration_id: str = 'cal-1'

    def messages(self) -> list[RawMessage]:
        """The messages in the order in which a recorder gets them."""
        found = sorted(self._generate(), key=lambda message: message.log_ns)
        return found

    def _generate(self) -> Iterator[RawMessage]:
        rng = np.random.default_rng(self.seed)
        period_ns = 100_000_000
        gap_ns = 1_000_000_000
        for number in range(1, self.episodes + 1):
            first_ns = self.start_ns + (number - 1) * (self.steps * period_ns + gap_ns) + gap_ns // 2
            last_ns = first_ns + (self.steps - 1) * period_ns
            span = first_ns - gap_ns // 4, last_ns + 50_000_000
            joint_stamps = list(range(span[0], span[1], 10**9 // self.joint_hz))
            image_stamps = list(range(span[0], span[1], 10**9 // self.camera_hz))
            for stamp in joint_stamps:
                seconds = (stamp - first_ns) / 1e9
                angle = 0.3 * np.sin(0.7 * seconds) if self.moving else 0.0
                position = np.array([0.1 + angle, -0.5, 0.6, 0.7, 0.1, 0.3])
                yield self._message('joint_states', stamp, 400_000, joints(stamp, position))
                yield self._message('tcp_pose', stamp, 900_000, pose(stamp, [0.2, 0.3 * angle, 0.1]))
            for stamp in image_stamps:
                pixels = rng.integers(0, 256, (*self.size, 3), dtype=np.uint8)
                if rng.random() >= self.lost_images:
                    yield self._message('gripper_cam/image_raw', stamp, 2_000_000, image(stamp, pixels))
                if self.front and rng.random() >= self.lost_images:  # it is not in step with the other one
                    yield self._message(
                        'front_cam/image_raw',
                        stamp + 1_000_000,
                        2_000_000,
                        image(stamp + 1_000_000, 255 - pixels),
                    )
            contract = (self.observation_hash, self.action_hash, self.calibration_id)
            start = event(first_ns - 1, number, EventKind.START, 0, *contract)
            yield self._message('session/event', first_ns - 1, 100_000, start)
            for index in range(self.steps):
                yield from self._step(
                    number, index, first_ns + index * period_ns, joint_stamps, image_stamps, rng
                )
            end = event(last_ns + 1, number, EventKind.SUCCESS, self.steps - 1)
            yield self._message('session/event', last_ns + 1, 100_000, end)

    def _step(self, number, index, stamp, joint_stamps, image_stamps, rng) -> Iterator[RawMessage]:
        joint_ns = max(ns for ns in joint_stamps if ns + 400_000 < stamp)
        image_ns = max(ns for ns in image_stamps if ns + 2_000_000 < stamp)
        last = index == self.steps - 1
        images_ns = [image_ns, image_ns + 1_000_000] if self.front else [image_ns]
        content = step(stamp, number, index, joint_ns, images_ns, float(last), last, False)
        yield self._message('session/step', stamp, 200_000, content)
        if not last:
            person = self.teleop and self.steps // 3 <= index < 2 * self.steps // 3
            move = self.scale * rng.uniform(-0.01, 0.01, 3)
            action = delta(stamp + 5_000_000, number, index, move, rng.uniform(0.2, 0.8), 2 if person else 1)
            yield self._message('ee_delta_cmd', stamp, 6_000_000, action)

    def _message(self, topic, stamp_ns, delay_ns, data) -> RawMessage:
        return RawMessage(f'{self.namespace}/{topic}', TYPES[topic], stamp_ns + delay_ns, data)


def write(
    folder: Path, messages, *, flush_every: int = 50, extras: Extras | None = None, closed=True, **options
) -> Path:
    """Write messages into a bag with our own writer; leave it without an end, as a recorder that runs, on request."""
    writer = BagWriter(folder, extras=extras, **options)
    for i, message in enumerate(messages):
        if message.topic not in writer.topics:
            writer.add_topic(message.topic, definition_of(message.msgtype))
        writer.write(message.topic, message.log_ns, message.log_ns, message.data)
        if i % flush_every == 0:
            writer.flush()
    writer.close() if closed else writer.flush()
    return folder


def edited(messages, topic, change):
    """Messages with those of one topic changed; `change` returns a message or None to lose it."""
    for message in messages:
        new = change(message) if message.topic == topic else message
        if new is not None:
            yield new


__all__ = ['Session', 'edited', 'replace', 'write']
