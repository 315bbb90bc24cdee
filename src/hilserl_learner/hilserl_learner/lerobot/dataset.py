# SPDX-License-Identifier: Apache-2.0
"""A LeRobot dataset: its folder, its features and episodes, and what only its user or our own export can say of it.

What the user says are `DatasetChoices`, and the options of `ingest` that make them.
"""

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hilserl_learner.errors import DatasetError
from so101_bags.storage import find_bags, storage_files
from so101_contract.action import ActionSpec
from so101_contract.observation_spec import CONTROL_RATE_HZ, ObservationSpec
from so101_contract.record import Record
from so101_driver.calibration.files import load
from so101_driver.calibration.lerobot_units import UNITS

INFO = 'meta/info.json'
TASKS = 'meta/tasks.parquet'
EPISODES = 'meta/episodes'
PROVENANCE = 'so101'
"""Key of info.json, prefix of columns and name of the folder with what only our own export says."""

FOLDERS = ('meta', 'data', 'videos', PROVENANCE)
"""Where a dataset's content lies; `images/`, which LeRobot leaves behind while it records, is none of it."""

INDEX_FEATURES = ('timestamp', 'frame_index', 'episode_index', 'index', 'task_index')
"""What every dataset has, whatever its features are."""


def is_dataset(path: Path | str) -> bool:
    """Whether a path is the folder of a LeRobot dataset."""
    return (Path(path) / INFO).is_file()


def dataset_files(folder: Path) -> list[Path]:
    """Return every file of a dataset, in an order that depends on their names alone."""
    return sorted(path for name in FOLDERS for path in (folder / name).rglob('*') if path.is_file())


def source_files(path: Path) -> list[Path]:
    """Return every file with the content of a dataset or a bag, in order."""
    return dataset_files(path) if is_dataset(path) else [storage.path for storage in storage_files(path)]


def find_sources(paths: Iterable[Path | str]) -> list[Path]:
    """Return every dataset and bag that the paths name, themselves or one level below.

    Raises:
        BagError: a path does not exist, or neither is in it.
    """
    datasets, others = find_datasets(paths)
    return [*datasets, *(find_bags(others) if others else [])]


def find_datasets(paths: Iterable[Path | str]) -> tuple[list[Path], list[Path]]:
    """Return the datasets that paths name, themselves or one level below, and the other paths."""
    datasets: list[Path] = []
    others: list[Path] = []
    for path in map(Path, paths):
        below = sorted(child for child in path.iterdir() if is_dataset(child)) if path.is_dir() else []
        found = [path] if is_dataset(path) else below
        datasets += [one for one in found if one not in datasets]
        others += [] if found else [path]
    return datasets, others


@dataclass(frozen=True, kw_only=True)
class DatasetChoices(Record):
    """What a dataset of somebody else's does not say, and the user must.

    Attributes:
        units: of joint positions, one of `UNITS`; empty where only one is possible, or our export says it.
        cameras: `NAME=FEATURE` for each camera of the observation that is called otherwise.
        calibration: file of the calibration of the arm that was recorded.
        calibration_id: what it says, since the file may change.
        delta_scale_m: what a displacement of 1 means [m]; 0 for the scale of the action spec.
        rate_hz: steps per second that the rows become [Hz]; 0 for ours, or for that of our export.
        task: take only episodes with this task; empty for all.
    """

    KIND: ClassVar[str] = 'hilserl_learner/dataset_choices/1'
    ERROR = DatasetError

    units: str = ''
    cameras: tuple[str, ...] = ()
    calibration: str = ''
    calibration_id: str = ''
    delta_scale_m: float = 0.0
    rate_hz: float = 0.0
    task: str = ''


@dataclass(frozen=True, kw_only=True)
class Provenance(Record):
    """What our own export says about itself in info.json.

    Attributes:
        observation: what the pictures and `so101.state` are.
        action: what `action` is scaled by.
        rate_hz: steps per second [Hz].
        sources: hashes of what the buffer was made of.
    """

    KIND: ClassVar[str] = 'hilserl_learner/dataset_provenance/1'
    ERROR = DatasetError

    observation: ObservationSpec
    action: ActionSpec
    rate_hz: float
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Feature:
    """One column of a dataset, or the pictures of one camera.

    Attributes:
        key: its name, with dots, e.g. `observation.state`.
        dtype: of its entries; `image` or `video` for a camera.
        shape: of one row.
        names: of its entries; empty where there are none.
        depth: the pictures are distances.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    depth: bool = False

    @property
    def is_camera(self) -> bool:
        """Whether it has pictures."""
        return self.dtype in ('image', 'video')

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width [px], whether channels are said first or last."""
        first = self.names[:1] and self.names[0].startswith('channel')
        last = self.names[2:] and self.names[2].startswith('channel')
        if first or (not last and self.shape[0] in (1, 3) and self.shape[2] not in (1, 3)):
            return self.shape[1], self.shape[2]
        return self.shape[0], self.shape[1]


@dataclass(frozen=True)
class EpisodeInfo:
    """Where one episode lies.

    Attributes:
        index: its number, from 0.
        length: rows.
        first: `index` of its first row.
        tasks: what was to be done, as text.
        data: file with its rows, relative to the dataset.
        videos: file and first second of each camera that is a video.
    """

    index: int
    length: int
    first: int
    tasks: tuple[str, ...]
    data: str
    videos: Mapping[str, tuple[str, float]]


@dataclass(frozen=True)
class DatasetInfo:
    """Everything that `meta/` says.

    Attributes:
        folder: the dataset.
        version: `v3.0`, `v2.1` or `v2.0`.
        fps: rows per second.
        features: by key, in the order of the columns.
        episodes: in order.
        tasks: text by number.
        robot_type: as the recorder called it.
        provenance: what our own export says; None for a dataset of somebody else's.
    """

    folder: Path
    version: str
    fps: float
    features: Mapping[str, Feature]
    episodes: tuple[EpisodeInfo, ...]
    tasks: Mapping[int, str]
    robot_type: str = ''
    provenance: Provenance | None = None

    @property
    def frames(self) -> int:
        """Rows of all episodes."""
        return sum(episode.length for episode in self.episodes)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Keys of the features that are pictures."""
        return tuple(key for key, feature in self.features.items() if feature.is_camera)


def add_dataset_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a dataset does not."""
    group = parser.add_argument_group('LeRobot datasets')
    group.add_argument(
        '--repo',
        action='append',
        default=[],
        metavar='USER/NAME',
        help='a dataset of the hub, by huggingface_hub',
    )
    group.add_argument('--units', choices=UNITS, help='of the joint positions, which a dataset does not say')
    group.add_argument(
        '--camera',
        action='append',
        default=[],
        metavar='NAME=FEATURE',
        help='which pictures are those of a camera of the observation, e.g. gripper_cam=wrist',
    )
    group.add_argument('--calibration', metavar='FILE', help='calibration of the arm that was recorded')
    group.add_argument(
        '--delta-scale',
        type=float,
        default=0.0,
        metavar='M',
        help='what a displacement of 1 means [m] (default: the scale of our actions)',
    )
    group.add_argument(
        '--rate',
        type=float,
        default=0.0,
        metavar='HZ',
        help=f'steps per second that the rows become (default: {CONTROL_RATE_HZ:g}, or that of our export)',
    )
    group.add_argument('--task', default='', metavar='TEXT', help='only episodes with this task')


def dataset_choices(options: argparse.Namespace) -> DatasetChoices:
    """Return what was said.

    Raises:
        CalibrationError: the calibration cannot be read.
        DatasetError: a number makes no sense.
    """
    if not (options.delta_scale >= 0 and options.rate >= 0):
        raise DatasetError(
            f'expected a --delta-scale and a --rate above 0, got {options.delta_scale} and {options.rate}'
        )
    path = options.calibration or ''
    return DatasetChoices(
        units=options.units or '',
        cameras=tuple(options.camera),
        calibration=path,
        calibration_id=load(Path(path)).calibration_id if path else '',
        delta_scale_m=options.delta_scale,
        rate_hz=options.rate,
        task=options.task,
    )


def fetch(name: str) -> Path:
    """Return the folder of a dataset of the hub, after bringing it here.

    Raises:
        DatasetError: huggingface_hub is not installed, or cannot bring it.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise DatasetError(
            f'expected huggingface_hub to fetch {name}, got no such package; install it with '
            f'"pip install huggingface_hub", or copy the dataset here and name its folder'
        ) from error
    try:
        return Path(snapshot_download(name, repo_type='dataset'))
    except Exception as error:  # it has a dozen of its own, and those of two HTTP libraries
        raise DatasetError(
            f'expected the dataset {name} from the hub, got "{" ".join(str(error).split())[:300]}"; check its name '
            f'and the network, or copy it here and name its folder'
        ) from error
