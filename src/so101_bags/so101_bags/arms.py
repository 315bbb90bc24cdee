# SPDX-License-Identifier: Apache-2.0
"""Which arms a bag holds, and whether it holds what learning needs from one of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from so101_bags.errors import BagError
from so101_bags.raw import TopicInfo
from so101_contract.observation_spec import ObservationSpec
from so101_interfaces_py import topics

_MARKS = (topics.STEP, topics.EE_DELTA_CMD, topics.JOINT_STATES)


@dataclass(frozen=True)
class ArmTopics:
    """The topics of one arm, by absolute name.

    Attributes:
        namespace: empty, or e.g. `/left`.
        step: the control clock.
        event: what happened to episodes.
        command: the executed actions.
        joints: joint states.
        images: topic of each camera of the spec, by the camera's name.
    """

    namespace: str
    step: str
    event: str
    command: str
    joints: str
    images: Mapping[str, str]

    @classmethod
    def of(cls, namespace: str, spec: ObservationSpec) -> 'ArmTopics':
        """Return the names under a namespace."""
        prefix = normal_namespace(namespace)
        camera_topic = topics.IMAGE.split('/', 1)[1]
        return cls(
            prefix,
            f'{prefix}/{topics.STEP}',
            f'{prefix}/{topics.EPISODE_EVENT}',
            f'{prefix}/{topics.EE_DELTA_CMD}',
            f'{prefix}/{topics.JOINT_STATES}',
            {camera: f'{prefix}/{camera}/{camera_topic}' for camera in spec.camera_names},
        )

    @property
    def needed(self) -> Mapping[str, str]:
        """Type of each topic that learning cannot do without."""
        return {
            self.step: 'so101_interfaces/msg/Step',
            self.command: 'so101_interfaces/msg/EeDelta',
            self.joints: 'sensor_msgs/msg/JointState',
            **dict.fromkeys(self.images.values(), 'sensor_msgs/msg/Image'),
        }

    @property
    def all(self) -> tuple[str, ...]:
        """Every topic that records come from."""
        return (*self.needed, self.event)

    def missing(self, found: Mapping[str, TopicInfo]) -> list[str]:
        """Return the needed topics that a bag does not have, or has without a message."""
        return [topic for topic in self.needed if topic not in found or found[topic].count == 0]

    def require(self, found: Mapping[str, TopicInfo], where: str) -> None:
        """Refuse a bag that lacks something.

        Raises:
            BagError: naming every topic that is missing, empty, or of another type.
        """
        missing = self.missing(found)
        if missing:
            hints = [f'{topic} has {found[topic].count} messages' for topic in missing if topic in found]
            compressed = [topic for topic in missing if f'{topic}/compressed' in found]
            if compressed:
                hints.append(f'{compressed[0]}/compressed cannot stand in for it: JPEG changes the pixels')
            raise BagError(
                f'expected messages on {", ".join(self.needed)} in {where}, missing: {", ".join(missing)}'
                f'{" (" + "; ".join(hints) + ")" if hints else ""}; record these topics too'
            )
        for topic, msgtype in {**self.needed, self.event: 'so101_interfaces/msg/EpisodeEvent'}.items():
            if topic in found and found[topic].msgtype != msgtype:
                raise BagError(
                    f'expected {msgtype} on {topic} in {where}, got {found[topic].msgtype}; read another bag'
                )


def normal_namespace(namespace: str) -> str:
    """Return a namespace as a prefix: empty, or with a slash in front and none behind."""
    inner = namespace.strip('/')
    return f'/{inner}' if inner else ''


def arms_of(found: Iterable[str]) -> list[str]:
    """Return the namespaces of the arms whose topics are given, by the first mark that any of them has."""
    names = list(found)
    for mark in _MARKS:
        arms = sorted({name[: -len(mark) - 1] for name in names if name.endswith(f'/{mark}')})
        if arms:
            return arms
    return []


def choose_arm(found: Mapping[str, TopicInfo], namespace: str | None, where: str) -> str:
    """Return the namespace to read.

    Raises:
        BagError: there are several and none was chosen, or the chosen one is not there.
    """
    arms = arms_of(found)
    if namespace is None:
        if len(arms) > 1:
            raise BagError(
                f'expected one arm in {where}, got the namespaces {[arm or "/" for arm in arms]}; '
                f'choose one of them'
            )
        return arms[0] if arms else ''
    chosen = normal_namespace(namespace)
    if arms and chosen not in arms:
        raise BagError(
            f'expected an arm in the namespace {chosen or "/"} of {where}, got {[arm or "/" for arm in arms]}; '
            f'choose one of them'
        )
    return chosen
