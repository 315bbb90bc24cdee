# SPDX-License-Identifier: Apache-2.0
"""The rows and pictures of a LeRobot dataset, one episode after the other; files are read from front to back.

A video is decoded in order, so that each frame is decoded once, whatever its distance of key frames is.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
import io
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hilserl_learner.errors import DatasetError
from hilserl_learner.lerobot.dataset import DatasetInfo, EpisodeInfo, Feature, INDEX_FEATURES
from hilserl_learner.lerobot.metadata import MAX_EDGE, open_table, read_table

Array: TypeAlias = npt.NDArray[Any]
UInt8Array: TypeAlias = npt.NDArray[np.uint8]
Rows: TypeAlias = Mapping[str, Array]
"""Columns of an episode: (n,) or (n, entries)."""

TOLERANCE_S = 1e-4
"""How far a time may lie off the grid of frames: what LeRobot's own loader takes [s]."""

_OTHER_RATE = 0.05  # share by which most periods differ from that of fps
_BATCH_ROWS = 64


class DatasetReader:
    """Reads episodes; in order is fastest."""

    def __init__(self, info: DatasetInfo, columns: Collection[str]) -> None:
        """Prepare.

        Args:
            info: what the dataset says about itself.
            columns: features to read as rows, beside those that every dataset has.
        """
        self.info = info
        self._columns = [*columns, *INDEX_FEATURES]
        self._first: dict[str, int] = {}
        self._lengths: Counter[str] = Counter()
        for episode in info.episodes:
            self._first.setdefault(episode.data, episode.first)
            self._lengths[episode.data] += episode.length
        self._table: tuple[str, dict[str, Array]] = ('', {})
        self._videos: dict[str, _Video] = {}
        self._pictures: dict[str, _PictureColumn] = {}

    def rows(self, episode: EpisodeInfo) -> Rows:
        """Return the rows of an episode.

        Raises:
            DatasetError: they are missing, damaged, or not on the grid that fps says.
        """
        if self._table[0] != episode.data:
            self._table = (episode.data, self._read(episode.data))
        start = self._offset(episode)
        found = {key: column[start : start + episode.length] for key, column in self._table[1].items()}
        self._check(episode, found)
        return found

    def pictures(
        self, episode: EpisodeInfo, camera: str, wanted: Collection[int]
    ) -> Iterator[tuple[int, UInt8Array]]:
        """Yield the rows that are wanted, in order, each with its picture (height, width, 3) RGB.

        Raises:
            DatasetError: a picture is missing, damaged, or of another size than the features say.
        """
        feature = self.info.features[camera]
        if feature.dtype == 'image':
            column = self._pictures.get(camera)
            if column is None or column.name != episode.data:
                path = self.info.folder / episode.data
                column = self._pictures[camera] = _PictureColumn(episode.data, path, feature)
            yield from column.episode(self._offset(episode), wanted)
            return
        name, start_s = episode.videos[camera]
        video = self._videos.get(camera)
        if video is None or video.name != name:
            if video is not None:
                video.close()
            video = self._videos[camera] = _Video(name, self.info.folder / name, feature, self.info.fps)
        yield from video.episode(start_s, episode, wanted)

    def close(self) -> None:
        """Close every video."""
        for video in self._videos.values():
            video.close()
        self._videos.clear()

    def _offset(self, episode: EpisodeInfo) -> int:
        """Return the row of its file at which an episode begins."""
        return episode.first - self._first[episode.data]

    def _read(self, name: str) -> dict[str, Array]:
        path = self.info.folder / name
        table = open_table(path, self.info.frames)
        foreign = [column for column in table.schema_arrow.names if column not in self.info.features]
        if foreign:
            raise DatasetError(
                f'expected the columns that meta/info.json names in {path}, got {foreign[:10]} too, at which '
                f'LeRobot fails as well; add them to its features, or remove them'
            )
        if table.metadata.num_rows != self._lengths[name]:
            raise DatasetError(
                f'expected {self._lengths[name]} rows in {path}, as the table of episodes says, got '
                f'{table.metadata.num_rows}; the recording may have been cut off: copy the dataset again'
            )
        found = read_table(table, self._columns, path)
        return {key: _array(found.column(key), self.info.features[key], path) for key in self._columns}

    def _check(self, episode: EpisodeInfo, rows: Rows) -> None:
        path, length = self.info.folder / episode.data, episode.length
        expected = {
            'episode_index': np.full(length, episode.index),
            'frame_index': np.arange(length),
            'index': np.arange(episode.first, episode.first + length),
        }
        for key, values in expected.items():
            wrong = np.flatnonzero(rows[key] != values)
            if len(wrong):
                raise DatasetError(
                    f'expected {key} {values[wrong[0]]} in row {wrong[0]} of episode {episode.index} in {path}, got '
                    f'{rows[key][wrong[0]]}; copy the dataset again'
                )
        self._check_times(episode, rows['timestamp'].astype(np.float64), path)

    def _check_times(self, episode: EpisodeInfo, times: Array, path: Path) -> None:
        grid = np.arange(len(times)) / self.info.fps
        rounding = np.spacing(np.float32(max(grid[-1], 1.0)))
        wrong = np.flatnonzero(~(np.abs(times - grid) <= TOLERANCE_S + rounding))
        if not len(wrong):
            return
        period = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        if abs(period * self.info.fps - 1.0) > _OTHER_RATE:
            raise DatasetError(
                f'expected {self.info.fps:g} rows per second in episode {episode.index} of {path}, as fps says, got '
                f'rows {period:.4g} s apart; datasets of several rates cannot be mixed: record them apart'
            )
        raise DatasetError(
            f'expected the time {grid[wrong[0]]:.4f} s in row {wrong[0]} of episode {episode.index} of {path}, as fps '
            f'says, got {times[wrong[0]]:.4f} s; LeRobot refuses such times too: record again, or set timestamp to '
            f'frame_index / fps where the rows were taken at that rate'
        )


class _PictureColumn:
    """The pictures of one camera that lie in a data file."""

    def __init__(self, name: str, path: Path, feature: Feature) -> None:
        self.name = name
        self._path, self._feature = path, feature
        self._table: pq.ParquetFile = open_table(path)
        self._row, self._cells = 0, self._begin()

    def episode(self, start: int, wanted: Collection[int]) -> Iterator[tuple[int, UInt8Array]]:
        """Yield the wanted rows of the episode that begins at a row of the file."""
        if start < self._row:
            self._row, self._cells = 0, self._begin()
        chosen, last = set(wanted), max(wanted, default=-1)
        while self._row <= start + last:
            row, cell = self._row - start, next(self._cells, None)
            self._row += 1
            if row in chosen:
                yield row, decode_picture(cell, self._feature, self._path)

    def _begin(self) -> Iterator[bytes | None]:
        key = self._feature.key
        if key not in self._table.schema_arrow.names:
            raise DatasetError(
                f'expected the pictures {key} in {self._path}, found no such column; copy it again'
            )
        try:
            for batch in self._table.iter_batches(_BATCH_ROWS, columns=[key]):
                cells = batch.column(0)
                if not pa.types.is_struct(cells.type) or cells.type.get_field_index('bytes') < 0:
                    raise DatasetError(
                        f'expected pictures with bytes as {key} in {self._path}, got {cells.type}'
                    )
                yield from (cell.as_py() for cell in cells.field('bytes'))
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(
                f'expected readable pictures in {self._path}, got "{error}"; copy it again'
            ) from error


def decode_picture(cell: bytes | None, feature: Feature, path: Path) -> UInt8Array:
    """Return a compressed picture as (height, width, 3) RGB.

    Raises:
        DatasetError: there is none, or it is damaged, or larger than the features say.
    """
    if not cell:
        raise DatasetError(f'expected a picture in every row of {feature.key} in {path}, got none')
    try:
        with Image.open(io.BytesIO(cell)) as picture:
            width, height = picture.size
            if (height, width) == feature.picture_size:
                return np.array(picture.convert('RGB'))
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DatasetError(
            f'expected a picture in {feature.key} of {path}, got "{error}"; copy it again'
        ) from error
    raise _wrong_size(feature, (height, width), path)


def _wrong_size(feature: Feature, got: tuple[int, int], path: Path) -> DatasetError:
    height, width = feature.picture_size
    return DatasetError(
        f'expected pictures of {height} rows and {width} columns in {path}, as the features say of {feature.key}, '
        f'got {got[0]} and {got[1]}; copy the dataset again'
    )


class _Video:
    """One video file, decoded from front to back."""

    def __init__(self, name: str, path: Path, feature: Feature, fps: float) -> None:
        self.name = name
        self._path, self._feature, self._fps = path, feature, fps
        if not path.is_file():
            raise DatasetError(f'expected the video {path}, found none; copy the whole dataset')
        try:
            self._container = av.open(str(path), metadata_errors='ignore')
            self._stream = self._container.streams.video[0]
            context: Any = self._stream.codec_context
            if context is None:
                raise ValueError('no decoder for its codec')
            height, width = context.height, context.width
        except (av.FFmpegError, OSError, IndexError, ValueError) as error:
            raise self._damaged(error) from error
        if (height, width) != feature.picture_size or max(height, width) > MAX_EDGE:
            self.close()
            raise _wrong_size(feature, (height, width), path)
        self._stream.thread_type = 'AUTO'
        self._next_s = 0.0
        self._frames = self._container.decode(self._stream)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def episode(
        self, start_s: float, episode: EpisodeInfo, wanted: Collection[int]
    ) -> Iterator[tuple[int, UInt8Array]]:
        """Yield the wanted rows of the episode that begins at a time of the video."""
        period = 1.0 / self._fps
        if not self._next_s - period / 4 < start_s < self._next_s + 100 * period:
            self._seek(start_s)
        chosen, last = set(wanted), max(wanted, default=-1)
        for row in range(last + 1):
            frame = self._frame_at(start_s + row * period, row, episode)
            if (frame.height, frame.width) != self._feature.picture_size:
                raise _wrong_size(self._feature, (frame.height, frame.width), self._path)
            if row in chosen:
                yield row, np.asarray(frame.to_ndarray(format='rgb24'), dtype=np.uint8)

    def _frame_at(self, time_s: float, row: int, episode: EpisodeInfo) -> av.VideoFrame:
        """Return the next frame of the file that is due at a time."""
        slack = 0.25 / self._fps
        try:
            for frame in self._frames:
                found_s = 0.0 if frame.time is None else frame.time
                self._next_s = found_s + 1.0 / self._fps
                if found_s > time_s - slack:
                    if found_s > time_s + slack:
                        break
                    return frame
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._damaged(error) from error
        raise DatasetError(
            f'expected a frame at {time_s:.3f} s of {self._path} for row {row} of episode {episode.index}, found none: '
            f'the video is shorter than the rows, or of another rate; copy the dataset again'
        )

    def _seek(self, time_s: float) -> None:
        try:
            base = self._stream.time_base
            assert base is not None
            self._container.seek(int(time_s / base), stream=self._stream)
            self._frames = self._container.decode(self._stream)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DatasetError:
        return DatasetError(f'expected a whole video at {self._path}, got "{error}"; copy it again')


def _array(column: pa.ChunkedArray, feature: Feature, path: Path) -> Array:
    """Return a column as (n,) or (n, entries), with every entry there and finite."""
    kind, size = column.type, int(np.prod(feature.shape))
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    values: pa.Array = pa.concat_arrays(column.chunks)
    if listed:
        lengths = pc.unique(pc.list_value_length(values)).to_pylist()
        if lengths != [size]:
            raise DatasetError(
                f'expected {size} entries in each row of {feature.key} in {path}, got {lengths[:5]}'
            )
        values = values.flatten()
    elif size != 1:
        raise DatasetError(f'expected {size} entries in each row of {feature.key} in {path}, got {kind}')
    number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    if not number and not pa.types.is_boolean(values.type):
        raise DatasetError(f'expected numbers as {feature.key} in {path}, got {kind}; copy it again')
    array: Array = values.to_numpy(zero_copy_only=False)
    whole = np.isfinite(array) if not values.null_count and array.dtype != object else None
    if whole is None or not whole.all():
        row = 0 if whole is None else int(np.flatnonzero(~whole)[0]) // size
        raise DatasetError(
            f'expected numbers in every row of {feature.key} in {path}, got none or no finite one in row {row}; '
            f'record that episode again, or remove it with lerobot-edit-dataset'
        )
    return array.reshape(-1, size) if listed and size > 1 else array


def read_side_table(path: Path, columns: Mapping[str, Feature]) -> dict[str, list[Any]]:
    """Return the columns of a table of our own beside a dataset; empty where there is none."""
    if not path.is_file():
        return {}
    table = read_table(open_table(path), list(columns), path)
    numbers = {key: list(_array(table.column(key), f, path)) for key, f in columns.items() if not f.is_camera}
    cells = {key: table.column(key).to_pylist() for key, f in columns.items() if f.is_camera}
    pictures = {
        key: [decode_picture((cell or {}).get('bytes'), columns[key], path) for cell in found]
        for key, found in cells.items()
    }
    return numbers | pictures
