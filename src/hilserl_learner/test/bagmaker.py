# SPDX-License-Identifier: Apache-2.0
"""Bags of a made-up session, written with `rosbags` alone; the actions are what the TCP really did."""

from dataclasses import dataclass, field
import json
from pathlib import Path

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg, get_typestore, Stores

from so101_contract.action import ActionSpec
from so101_contract.joints import gripper_rad_to_opening, JOINT_NAMES
from so101_contract.observation_spec import get_observation
from so101_contract.session import EventKind, Source
from so101_contract.task_report import from_json, from_record
from so101_kinematics.fk import ForwardKinematics

MESSAGES = Path(__file__).resolve().parents[2] / 'so101_interfaces' / 'msg'
STEP_NS = 100_000_000
HOME = np.array([0.0, -0.6, 0.7, 0.9, 0.0, 0.4])


def typestore():
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {}
    for path in MESSAGES.glob('*.msg'):
        types.update(get_types_from_msg(path.read_text(), f'so101_interfaces/msg/{path.stem}'))
    store.register(types)
    return store


def blank(store, msgtype):
    """Return a message of a type with nothing in it."""
    values = {}
    for name, (kind, content) in store.fielddefs[msgtype][1]:
        if kind is Nodetype.NAME:
            values[name] = blank(store, content)
        elif kind is Nodetype.BASE:
            values[name] = '' if content[0] == 'string' else 0
        else:
            values[name] = [0.0] * content[1] if kind is Nodetype.ARRAY else []
    return store.types[msgtype](**values)


def as_arrays(message):
    """Turn lists of numbers into the arrays that rosbags writes."""
    for name, value in vars(message).items():
        if isinstance(value, list) and not any(isinstance(item, str) for item in value):
            object.__setattr__(message, name, np.array(value, dtype=np.float64))
        elif hasattr(value, '__msgtype__'):
            as_arrays(value)
    return message


@dataclass(frozen=True)
class Plan:
    """One episode: how long, how it ends, and what is odd about it."""

    steps: int = 12
    ends: EventKind | None = EventKind.SUCCESS
    intervened: frozenset = frozenset()
    zero_actions: bool = False
    still: bool = False
    drop_images: frozenset = frozenset()
    label: EventKind | None = None
    speed: float = 0.04
    truth: bool = True


@dataclass
class Session:
    """Writes episodes into a bag."""

    path: Path
    storage: StoragePlugin = StoragePlugin.MCAP
    spec: object = field(default_factory=lambda: get_observation('compact'))
    size: tuple[int, int] = (48, 64)
    namespace: str = ''
    truth: bool = False
    json_truth: bool = False  # as bags hold it that were recorded before TaskReport existed
    images_per_step: int = 3
    joints_per_step: int = 5
    start_ns: int = 1_700_000_000_000_000_000
    corrections: tuple = ()  # (episode, label) that come after everything else

    def write(self, plans):
        self.store = typestore()
        self.fk = ForwardKinematics(self.spec.tcp)
        self.now = self.start_ns
        self.rng = np.random.default_rng(3)
        with Writer(self.path, version=9, storage_plugin=self.storage) as self.writer:
            self.links = {}
            for number, plan in enumerate(plans, start=1):
                self._episode(number, plan)
            for number, label in self.corrections:
                self.now += 1000
                self._event(self.now, number, 0, label)
        return self.path

    def _send(self, topic, msgtype, stamp, **fields):
        msgtype = msgtype if '/' in msgtype else f'so101_interfaces/msg/{msgtype}'
        name = f'{self.namespace}/{topic}'
        if name not in self.links:
            self.links[name] = self.writer.add_connection(name, msgtype, typestore=self.store)
        message = self.store.types[msgtype](**fields)
        self.writer.write(self.links[name], stamp, self.store.serialize_cdr(message, msgtype))

    def _header(self, stamp, frame=''):
        types = self.store.types
        return types['std_msgs/msg/Header'](stamp=self._time(stamp), frame_id=frame)

    def _time(self, stamp):
        return self.store.types['builtin_interfaces/msg/Time'](sec=stamp // 10**9, nanosec=stamp % 10**9)

    def _joints(self, stamp, q):
        self._send(
            'joint_states',
            'sensor_msgs/msg/JointState',
            stamp,
            header=self._header(stamp),
            name=list(JOINT_NAMES),
            position=q,
            velocity=np.zeros(6),
            effort=np.array([]),
        )

    def _image(self, stamp):
        height, width = self.size
        data = self.rng.integers(0, 256, height * width * 3, dtype=np.uint8)
        self._send(
            'gripper_cam/image_raw',
            'sensor_msgs/msg/Image',
            stamp,
            header=self._header(stamp, 'camera'),
            height=height,
            width=width,
            encoding='rgb8',
            is_bigendian=0,
            step=3 * width,
            data=data,
        )

    def _event(self, stamp, episode, index, kind):
        started = kind is EventKind.START
        self._send(
            'session/event',
            'EpisodeEvent',
            stamp,
            header=self._header(stamp),
            episode=episode,
            index=index,
            kind=int(kind),
            reason='',
            observation_hash=self.spec.hash if started else '',
            action_hash=ActionSpec().hash if started else '',
            calibration_id='',
            task_hash='',
            by_human=False,
        )

    def _truth(self, stamp, success):
        values = {
            'stamp_ns': stamp,
            'task': 'lift',
            'preset': 'easy',
            'resets': 0,
            'reward': 0.0,
            'success': success,
            'failure': False,
            'good_steps': 0,
            'dropped': False,
            'reason': '',
            'time_s': 0.0,
            'cube_position': [0.25, 0.0, 0.1 if success else 0.015],
            'cube_quat_wxyz': [1, 0, 0, 0],
            'cube_speed': 0.0,
            'tcp_position': [0.25, 0, 0.1],
            'grip_position': [0.25, 0, 0.1],
            'jaw_direction': [1, 0, 0],
            'finger_position': [0.27, 0, 0.1],
            'opening': 0.2,
            'touches_static': success,
            'touches_moving': success,
            'on_table': not success,
            'in_tray': False,
            'tray_position': None,
        }
        text = json.dumps(values)
        if self.json_truth:
            self._send('sim/task', 'std_msgs/msg/String', stamp, data=text)
        else:
            report = from_record(from_json(text), blank(self.store, 'so101_interfaces/msg/TaskReport'))
            self._send('sim/task', 'TaskReport', stamp, **vars(as_arrays(report)))

    def _episode(self, number, plan):
        poses = [self._pose(plan, k) for k in range(plan.steps + 1)]
        self._event(self.now, number, 0, EventKind.START)
        for k in range(plan.steps + 1):
            begin = self.now
            joint_stamp, image_stamp = begin, begin
            for i in range(self.joints_per_step):
                self._joints(begin + i * STEP_NS // self.joints_per_step, poses[k])
            for i in range(self.images_per_step):
                if not (i == 0 and k in plan.drop_images):
                    self._image(begin + i * STEP_NS // self.images_per_step)
            tick = begin + 5_000_000
            last = k == plan.steps
            reward = 1.0 if last and plan.ends is EventKind.SUCCESS else 0.0
            terminal = last and plan.ends in (EventKind.SUCCESS, EventKind.FAILURE)
            if self.truth and plan.truth:
                self._truth(tick - 1_000_000, last and plan.ends is EventKind.SUCCESS)
            self._send(
                'session/step',
                'Step',
                tick,
                header=self._header(tick),
                episode=number,
                index=k,
                joint_stamp=self._time(joint_stamp),
                image_stamps=[self._time(image_stamp)],
                reward=reward,
                terminated=terminal,
                truncated=last and plan.ends is EventKind.TIME_LIMIT,
            )
            if not last:
                self._action(tick + 1_000_000, number, k, plan, poses)
            self.now = begin + STEP_NS
        if plan.ends is not None:
            self._event(self.now, number, plan.steps, plan.ends)
        if plan.label is not None:
            self._event(self.now + 1000, number, plan.steps, plan.label)
        self.now += 10 * STEP_NS

    def _pose(self, plan, k):
        if plan.still:
            return HOME
        t = plan.speed * k
        return HOME + np.array(
            [np.sin(t), 0.3 * np.sin(2 * t), 0.2 * (1 - np.cos(t)), 0.0, 0.0, 0.3 * np.sin(3 * t)]
        )

    def _action(self, stamp, number, k, plan, poses):
        moved = self.fk.pose(poses[k + 1]).position - self.fk.pose(poses[k]).position
        x, y, z = np.zeros(3) if plan.zero_actions else moved
        source = Source.TELEOP if k in plan.intervened else Source.POLICY
        vector = self.store.types['geometry_msgs/msg/Vector3'](x=float(x), y=float(y), z=float(z))
        self._send(
            'ee_delta_cmd',
            'EeDelta',
            stamp,
            header=self._header(stamp, 'base_link'),
            episode=number,
            index=k,
            translation=vector,
            gripper=float(gripper_rad_to_opening(poses[k + 1][5])),
            source=int(source),
        )
