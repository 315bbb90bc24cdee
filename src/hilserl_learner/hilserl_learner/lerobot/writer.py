# SPDX-License-Identifier: Apache-2.0
"""Writes datasets of LeRobot's, v3.0 and v2.1, as its own recorder lays them out; read by LeRobot without a change.

v3.0 puts episodes one behind the other into files of up to 100 MB of rows and 200 MB of video; v2.1 has files for each
episode. Rows lie exactly on the grid of fps, without which LeRobot refuses to look a frame up in its video.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
import json
import os
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import av
from av.video.stream import VideoStream
import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hilserl_learner.errors import DatasetError
from hilserl_learner.lerobot.dataset import (
    EPISODES,
    Feature,
    INDEX_FEATURES,
    INFO,
    PROVENANCE,
    Provenance,
    TASKS,
)
from hilserl_learner.lerobot.statistics import (
    count_pictures,
    PictureCounts,
    Statistics,
    vector_statistics,
    without_quantiles,
)

Array: TypeAlias = npt.NDArray[Any]
Pictures: TypeAlias = Sequence[npt.NDArray[np.uint8]]

VERSIONS = ('v3.0', 'v2.1')
ENCODERS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    'av1': ('libsvtav1', {'g': '2', 'crf': '20', 'preset': '8'}),
    'h264': ('libx264', {'g': '2', 'crf': '18', 'preset': 'medium', 'bf': '0'}),
}
"""Encoder and options by codec. A key frame in two, as LeRobot has it, lets a training fetch any frame quickly."""

CHUNK_FILES = 1000
DATA_FILE_MB, VIDEO_FILE_MB = 100, 200

_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 3]
_PLACES = {
    'v3.0': (
        'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet',
        'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4',
    ),
    'v2.1': (
        'data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet',
        'videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4',
    ),
}
_PICTURE = pa.struct([('bytes', pa.binary()), ('path', pa.string())])


class VideoFile:
    """One video, frame by frame."""

    def __init__(self, path: Path, codec: str, fps: int, size: tuple[int, int]) -> None:
        """Begin.

        Args:
            path: of the file.
            codec: one of `ENCODERS`.
            fps: frames per second.
            size: height and width [px], even numbers.
        """
        height, width = size
        if height % 2 or width % 2:
            raise DatasetError(
                f'expected pictures of an even height and width for video, got {height} and {width}; use --video none'
            )
        encoder, options = ENCODERS[codec]
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), 'w', options={'movflags': '+faststart'})
        stream = self._container.add_stream(encoder, rate=fps, options=dict(options))
        assert isinstance(stream, VideoStream)
        self._stream = stream
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, 'yuv420p'
        self._stream.codec_context.time_base = Fraction(1, fps)
        _open_at_ordinary_priority(self._stream)
        self.frames = self.bytes = 0

    def add(self, picture: npt.NDArray[np.uint8]) -> None:
        """Append a picture (height, width, 3) RGB."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format='rgb24')
        frame.pts, frame.time_base = self.frames, self._stream.codec_context.time_base
        self.frames += 1
        self._mux(frame)

    def close(self) -> None:
        """Write what the encoder holds back, and the index."""
        self._mux(None)
        self._container.close()

    def _mux(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self.bytes += packet.size
            self._container.mux(packet)


def _open_at_ordinary_priority(stream: VideoStream) -> None:
    """Open the encoder of a stream, and take back the priority that it takes.

    SVT-AV1 gives its threads, and the one that opens it, the highest real-time priority where it is permitted, as it is
    to root (`svt_switch_to_real_time`): nothing else would run beside an export, and no child of ours after it.
    """
    before = set(os.listdir('/proc/self/task'))
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    stream.codec_context.open()
    os.sched_setscheduler(0, policy, priority)
    for thread in set(os.listdir('/proc/self/task')) - before:
        with suppress(ProcessLookupError):
            os.sched_setscheduler(int(thread), policy, priority)


class _Place:
    """A numbered file: v3.0 begins a new one where the present one is full."""

    def __init__(self) -> None:
        self.chunk = self.file = 0

    def advance(self) -> None:
        """Go to the next one."""
        self.file += 1
        if self.file == CHUNK_FILES:
            self.chunk, self.file = self.chunk + 1, 0


class DatasetWriter:
    """Writes one dataset, episode by episode; it is whole after `finish`."""

    def __init__(
        self,
        folder: Path,
        features: Sequence[Feature],
        *,
        fps: int,
        version: str = 'v3.0',
        codec: str = 'av1',
        robot_type: str = 'so_follower',
        provenance: Provenance | None = None,
    ) -> None:
        """Begin in a folder that does not exist yet.

        Args:
            folder: of the dataset.
            features: columns and cameras, without those that every dataset has.
            fps: rows per second.
            version: one of `VERSIONS`.
            codec: of the features that are videos, one of `ENCODERS`.
            robot_type: what LeRobot calls the arm.
            provenance: what our own reader needs to know.
        """
        folder.mkdir(parents=True)
        index = [Feature(key, 'float32' if key == 'timestamp' else 'int64', (1,)) for key in INDEX_FEATURES]
        self.folder, self.fps = folder, fps
        self._features = {feature.key: feature for feature in (*features, *index)}
        self._version, self._codec, self._robot_type = version, codec, robot_type
        self._provenance = provenance
        self._rows: dict[str, list[Array]] = {}
        self._counts: dict[str, PictureCounts] = {}
        self._episodes: list[dict[str, Any]] = []
        self._tasks: dict[str, int] = {}
        self._total = 0
        self._data: tuple[BinaryIO, pq.ParquetWriter] | None = None
        self._videos: dict[str, VideoFile] = {}
        self._places = {key: _Place() for key in ('data', *self._features)}

    def add(self, columns: Mapping[str, Array], pictures: Mapping[str, Pictures], task: str) -> None:
        """Write an episode.

        Args:
            columns: rows by feature, (n,) or (n, entries).
            pictures: by camera, n of (height, width, 3) RGB.
            task: what was to be done.
        """
        length = len(next(iter(columns.values())))
        number, task_index = len(self._episodes), self._tasks.setdefault(task, len(self._tasks))
        steps = np.arange(length)
        whole = {
            **columns,
            'timestamp': (steps / self.fps).astype(np.float32),
            'frame_index': steps,
            'episode_index': np.full(length, number),
            'index': self._total + steps,
            'task_index': np.full(length, task_index),
        }
        episode = {
            'episode_index': number,
            'tasks': [task],
            'length': length,
            **self._write_rows(number, whole, pictures),
            'dataset_from_index': self._total,
            'dataset_to_index': self._total + length,
            **self._write_videos(number, pictures),
        }
        self._total += length
        episode['stats'] = self._count(whole, pictures)
        self._episodes.append(episode)

    def finish(self) -> None:
        """Close every file and write what the dataset says about itself."""
        self.close()
        folder = self.folder / 'meta'
        folder.mkdir(exist_ok=True)
        if self._version == 'v3.0':
            self._write_tables(folder)
        else:
            self._write_lines(folder)
        (self.folder / INFO).write_text(json.dumps(self._info(), indent=4) + '\n')

    def close(self) -> None:
        """Close every file that is being written."""
        if self._data is not None:
            self._data[1].close()
            self._data[0].close()
        for video in self._videos.values():
            video.close()
        self._data, self._videos = None, {}

    # --- rows and pictures ---

    def _write_rows(
        self, number: int, columns: Mapping[str, Array], pictures: Mapping[str, Pictures]
    ) -> dict[str, int]:
        """Append the rows of an episode, as a row group of its own; return which file has them."""
        place = self._places['data']
        if self._data is not None and (
            self._version != 'v3.0' or self._data[0].tell() >= DATA_FILE_MB * 2**20
        ):
            self._data[1].close()
            self._data[0].close()
            self._data = None
            place.advance()
        named = {
            key: picture_column(pictures[key]) if feature.is_camera else _column(columns[key], feature)
            for key, feature in self._features.items()
            if feature.dtype != 'video'
        }
        table = pa.table(named)
        if self._data is None:
            path = self.folder / self._path(0, number, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open('wb')
            self._data = file, pq.ParquetWriter(file, table.schema)
        self._data[1].write_table(table, row_group_size=max(len(table), 1))
        return {'data/chunk_index': place.chunk, 'data/file_index': place.file}

    def _write_videos(self, number: int, pictures: Mapping[str, Pictures]) -> dict[str, Any]:
        """Append the pictures of an episode to its videos; return where they are."""
        found: dict[str, Any] = {}
        for key, feature in self._features.items():
            if feature.dtype != 'video':
                continue
            place, video = self._places[key], self._videos.get(key)
            if video is not None and (self._version != 'v3.0' or video.bytes >= VIDEO_FILE_MB * 2**20):
                video.close()
                video = None
                place.advance()
            if video is None:
                path = self.folder / self._path(1, number, place, key)
                video = self._videos[key] = VideoFile(path, self._codec, self.fps, feature.picture_size)
            begin = video.frames
            for picture in pictures[key]:
                video.add(picture)
            found[f'videos/{key}/chunk_index'], found[f'videos/{key}/file_index'] = place.chunk, place.file
            found[f'videos/{key}/from_timestamp'] = begin / self.fps
            found[f'videos/{key}/to_timestamp'] = video.frames / self.fps
        return found

    def _path(self, which: int, number: int, place: _Place, key: str = '') -> str:
        return _PLACES[self._version][which].format(
            chunk_index=place.chunk,
            file_index=place.file,
            episode_chunk=number // CHUNK_FILES,
            episode_index=number,
            video_key=key,
        )

    def _count(self, columns: Mapping[str, Array], pictures: Mapping[str, Pictures]) -> dict[str, Statistics]:
        found = {}
        for key, feature in self._features.items():
            if feature.is_camera:
                counts = count_pictures(pictures[key])
                self._counts.setdefault(key, PictureCounts()).merge(counts)
                found[key] = counts.statistics()
            else:
                self._rows.setdefault(key, []).append(columns[key])
                found[key] = vector_statistics(columns[key])
        return found

    # --- what the dataset says about itself ---

    def _info(self) -> dict[str, Any]:
        data, video = _PLACES[self._version]
        videos = sum(feature.dtype == 'video' for feature in self._features.values())
        new = self._version == 'v3.0'
        older = {'total_videos': videos * len(self._episodes), 'total_chunks': self._chunks()}
        sizes = {'data_files_size_in_mb': DATA_FILE_MB, 'video_files_size_in_mb': VIDEO_FILE_MB}
        own = {} if self._provenance is None else {PROVENANCE: self._provenance.to_dict()}
        return {
            'codebase_version': self._version,
            'robot_type': self._robot_type,
            'total_episodes': len(self._episodes),
            'total_frames': self._total,
            'total_tasks': len(self._tasks),
            **({} if new else older),
            'chunks_size': CHUNK_FILES,
            **(sizes if new else {}),
            'fps': self.fps,
            'splits': {'train': f'0:{len(self._episodes)}'},
            'data_path': data,
            'video_path': video if videos else None,
            'features': {key: self._described(feature) for key, feature in self._features.items()},
            **own,
        }

    def _chunks(self) -> int:
        return -(-len(self._episodes) // CHUNK_FILES)

    def _described(self, feature: Feature) -> dict[str, Any]:
        described: dict[str, Any] = {
            'dtype': feature.dtype,
            'shape': list(feature.shape),
            'names': list(feature.names) or None,
        }
        if feature.dtype == 'video':
            height, width = feature.picture_size
            described['info'] = {
                'video.height': height,
                'video.width': width,
                'video.codec': self._codec,
                'video.pix_fmt': 'yuv420p',
                'video.fps': self.fps,
                'video.channels': 3,
                'has_audio': False,
                ('is_depth_map' if self._version == 'v3.0' else 'video.is_depth_map'): False,
            }
        return described

    def _write_tables(self, folder: Path) -> None:
        """Write the tables of v3.0."""
        rows = []
        for episode in self._episodes:
            statistics = episode.pop('stats')
            flat = {f'stats/{key}/{name}': v for key, one in statistics.items() for name, v in one.items()}
            rows.append({**episode, **flat, 'meta/episodes/chunk_index': 0, 'meta/episodes/file_index': 0})
        path = self.folder / EPISODES / 'chunk-000/file-000.parquet'
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
        tasks = pa.table(
            {'task_index': pa.array(self._tasks.values(), pa.int64()), 'task': list(self._tasks)}
        )
        pq.write_table(
            tasks.replace_schema_metadata({'pandas': json.dumps(_TASKS_INDEX)}), self.folder / TASKS
        )
        every = {key: vector_statistics(np.concatenate(rows)) for key, rows in self._rows.items()}
        every |= {key: counts.statistics() for key, counts in self._counts.items()}
        (folder / 'stats.json').write_text(json.dumps(every, indent=4) + '\n')

    def _write_lines(self, folder: Path) -> None:
        """Write the tables of v2.1."""
        names = ('episode_index', 'tasks', 'length')
        statistics = [
            {
                'episode_index': episode['episode_index'],
                'stats': {key: without_quantiles(one) for key, one in episode['stats'].items()},
            }
            for episode in self._episodes
        ]
        tables: Mapping[str, list[dict[str, Any]]] = {
            'episodes': [{name: episode[name] for name in names} for episode in self._episodes],
            'episodes_stats': statistics,
            'tasks': [{'task_index': number, 'task': text} for text, number in self._tasks.items()],
        }
        for name, rows in tables.items():
            (folder / f'{name}.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))


def picture_column(pictures: Pictures) -> pa.Array:
    """Return pictures (height, width, 3) RGB as PNG, in the form in which `datasets` keeps them."""
    cells = []
    for row, picture in enumerate(pictures):
        _, png = cv2.imencode('.png', picture[..., ::-1], _PNG)
        cells.append({'bytes': png.tobytes(), 'path': f'frame-{row:06d}.png'})
    return pa.array(cells, _PICTURE)


def _column(values: Array, feature: Feature) -> pa.Array:
    size, kind = int(np.prod(feature.shape)), pa.from_numpy_dtype(np.dtype(feature.dtype))
    flat = pa.array(np.ascontiguousarray(values, dtype=feature.dtype).reshape(-1), kind)
    return flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)


_TASKS_INDEX = {
    'index_columns': ['task'],
    'column_indexes': [
        {
            'name': None,
            'field_name': None,
            'pandas_type': 'unicode',
            'numpy_type': 'object',
            'metadata': {'encoding': 'UTF-8'},
        }
    ],
    'columns': [
        {'name': name, 'field_name': name, 'pandas_type': kind, 'numpy_type': numpy_type, 'metadata': None}
        for name, kind, numpy_type in (('task_index', 'int64', 'int64'), ('task', 'unicode', 'object'))
    ],
    'creator': {'library': 'pyarrow', 'version': pa.__version__},
    'pandas_version': '2.3.3',
}
"""What makes the text of a task the index of pandas' table; without it LeRobot takes its number for its text."""
