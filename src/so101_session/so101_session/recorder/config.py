# SPDX-License-Identifier: Apache-2.0
"""What is recorded, where to, and how much may be lost."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from so101_bags.storage import BagError
from so101_bags.write import COMPRESSIONS
from so101_contract.observation_spec import DEFAULT_OBSERVATION, OBSERVATIONS
from so101_contract.task.files import all_cameras, told_task
from so101_interfaces_py import topics
from so101_interfaces_py.params import check_bounds, param, ParameterError

RECORDED: Mapping[str, str] = {
    topics.JOINT_STATES: 'sensor_msgs/msg/JointState',
    topics.JOINT_COMMAND: 'sensor_msgs/msg/JointState',
    topics.IMAGE: 'sensor_msgs/msg/Image',
    topics.CAMERA_INFO: 'sensor_msgs/msg/CameraInfo',
    topics.TCP_POSE: 'geometry_msgs/msg/PoseStamped',
    topics.STEP: 'so101_interfaces/msg/Step',
    topics.EPISODE_EVENT: 'so101_interfaces/msg/EpisodeEvent',
    topics.EE_DELTA_CMD: 'so101_interfaces/msg/EeDelta',
    topics.SESSION_STATUS: 'so101_interfaces/msg/SessionStatus',
    topics.POLICY_EE_DELTA: 'so101_interfaces/msg/EeDelta',
    topics.POLICY_BASE: 'so101_interfaces/msg/EeDelta',
    topics.TELEOP_EE_DELTA: 'so101_interfaces/msg/EeDelta',
    topics.ARM_STATUS: 'so101_interfaces/msg/ArmStatus',
    topics.POLICY_STATUS: 'so101_interfaces/msg/PolicyStatus',
    topics.LEARNER_STATUS: 'so101_interfaces/msg/LearnerStatus',
    topics.SUCCESS_OPINION: 'so101_interfaces/msg/SuccessOpinion',
    topics.CLASSIFIER_STATUS: 'so101_interfaces/msg/ClassifierStatus',
    topics.ROBOT_DESCRIPTION: 'std_msgs/msg/String',
    topics.DIAGNOSTICS: 'diagnostic_msgs/msg/DiagnosticArray',
    topics.TF: 'tf2_msgs/msg/TFMessage',
    topics.TF_STATIC: 'tf2_msgs/msg/TFMessage',
    topics.SIM_TASK: 'so101_interfaces/msg/TaskReport',
    topics.POLICY_OBSERVED: 'std_msgs/msg/String',
    topics.POLICY_CHUNKS: 'so101_interfaces/msg/ChunkStatus',
    topics.POLICY_INSTRUCTION: 'std_msgs/msg/String',
}
"""What is recorded unless other topics are named, and its type.

`learner/weights` is left out: the learner keeps them, and they are large. So is the JPEG of the camera: it is
no substitute for the pixels that the policy saw.
"""

LATCHED = (topics.ROBOT_DESCRIPTION, topics.ARM_STATUS, topics.POLICY_STATUS, topics.TF_STATIC)
"""Repeated at the beginning of each further file, so that each can be read alone."""


@dataclass(frozen=True, kw_only=True)
class RecorderConfig:
    """Parameters of recorder_node."""

    out: str = param('bags', doc='Folder that the bag goes into; each run makes a new bag in it.')
    name: str = param('', doc='Name of the bag; empty: so101_ and the date and time.')
    topics: tuple[str, ...] = param(
        tuple(RECORDED), doc='Topics to record; relative names are taken in each of the namespaces.'
    )
    more_topics: tuple[str, ...] = param(('',), doc='Topics to record as well.')
    namespaces: tuple[str, ...] = param(
        ('',), doc='Namespaces of the arms to record; empty: that of this node. Several arms go into one bag.'
    )
    compression: str = param(
        'zstd', doc='Compression of the chunks inside the file; ros2 bag reads both.', choices=COMPRESSIONS
    )
    flush_s: float = param(
        0.5, doc='A killed recorder has lost no more than this.', unit='s', lo=0.05, hi=1.0
    )
    split_mb: float = param(
        1024.0, doc='Begin another file at this size; 0 never does.', unit='MB', lo=0.0, hi=1e6
    )
    split_episodes: int = param(
        0,
        doc='Begin another file after so many episodes, between two of them; 0 never does.',
        lo=0,
        hi=100000,
    )
    min_free_mb: float = param(
        500.0, doc='Stop while this much is still free on the disk.', unit='MB', lo=0.0, hi=1e6
    )
    pauses_session: bool = param(
        False,
        doc='Where nothing can be recorded any more, pause the session, say why, and begin another bag when it can be '
        'done again; otherwise the recorder ends.',
    )
    require_kinematics: bool = param(
        True,
        doc='Do not begin before joint states and the pose of the TCP come: without kinematics the recorded '
        'actions would mean nothing.',
    )
    wait_s: float = param(
        60.0, doc='How long to wait for them before giving up; 0 waits for ever.', unit='s', lo=0.0, hi=3600.0
    )
    observation: str = param(
        DEFAULT_OBSERVATION,
        doc='Observation of the session; it is stored in the bag.',
        choices=tuple(OBSERVATIONS),
    )
    task: str = param('', doc='Task of the session; it is stored in the bag. Empty: nobody says.')
    cameras: tuple[str, ...] = param(
        ('',), doc='Cameras that are observed; empty: those of the task, or else of the observation.'
    )
    tcp: str = param('', doc='TCP preset of the observation; empty: the one that it names.')
    camera_preset: str = param('', doc='Camera preset of the observation; empty: the one that it names.')
    config: str = param('', doc='Folder whose *.yaml files are stored in the bag; empty: none.')

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)
        if not any(self.topics):
            raise ParameterError('topics is empty; name at least one topic.')
        if '/' in self.name or self.name in ('.', '..'):
            raise ParameterError(f'name = {self.name!r} is no plain name; give the folder as out.')

    def expected(self, node_namespace: str) -> dict[str, str]:
        """Return the absolute names of the topics to record, each with its type as far as it is known."""
        wanted: dict[str, str] = {}
        for namespace in self.arm_namespaces(node_namespace):
            prefix = namespace.rstrip('/')
            for topic in (*self.topics, *self.more_topics):
                if topic:
                    name = topic if topic.startswith('/') else f'{prefix}/{topic}'
                    wanted.setdefault(name, RECORDED.get(topic, ''))
            for camera in self.further_cameras():
                wanted[f'{prefix}/{camera}/image_raw'] = RECORDED[topics.IMAGE]
                wanted[f'{prefix}/{camera}/camera_info'] = RECORDED[topics.CAMERA_INFO]
        return wanted

    def further_cameras(self) -> list[str]:
        """Return what the topics begin with of cameras beside the wrist's: all of the task, observed or not."""
        if topics.IMAGE not in self.topics:
            return []  # whoever leaves out pictures gets none
        named = all_cameras(told_task(self.task), self.cameras)
        found = (topics.CAMERAS.get(name, name) for name in named)
        return [camera for camera in found if camera != topics.WRIST_CAMERA]

    def arm_namespaces(self, node_namespace: str) -> list[str]:
        """Return the namespaces to record, each with a slash in front."""
        return [f'/{(namespace or node_namespace).strip("/")}' for namespace in self.namespaces]


def existing(folder: Path) -> Path:
    """Return a folder, or the one above it that exists already."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def yaml_files(folder: str) -> dict[str, bytes]:
    """Return the parameter files of a folder by their names; nothing where no folder is named.

    Raises:
        BagError: there is no such folder.
    """
    if not folder:
        return {}
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise BagError(f'expected a folder with *.yaml at {path}, found none; correct the parameter config')
    return {file.name: file.read_bytes() for file in sorted(path.glob('*.yaml'))}
