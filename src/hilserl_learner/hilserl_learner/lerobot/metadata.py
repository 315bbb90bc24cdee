# SPDX-License-Identifier: Apache-2.0
"""What a LeRobot dataset says about itself in `meta/`: features, episodes, tasks, and in which files what lies.

Two versions of the format are in use. v3.0 keeps many episodes in a file and its tables in Parquet; v2.1 has a file for
each episode and its tables in JSON lines. Nothing is believed before it is bounded: sizes, shapes, counts, depth of
JSON, and paths, which must stay in the dataset's folder.
"""

from collections.abc import Iterator, Mapping
import json
import math
from pathlib import Path, PurePosixPath
import re
from typing import Any, TYPE_CHECKING

from hilserl_learner.errors import DatasetError
from hilserl_learner.lerobot.dataset import (
    DatasetInfo,
    EpisodeInfo,
    EPISODES,
    Feature,
    INDEX_FEATURES,
    INFO,
    PROVENANCE,
    Provenance,
    TASKS,
)
from so101_contract.errors import ContractError
from so101_interfaces_py.files import read_text, require_file

if TYPE_CHECKING:  # pyarrow takes a third of a second and 40 MB; nodes never need it
    import pyarrow as pa
    import pyarrow.parquet as pq

MAX_JSON_BYTES = 64 * 2**20
MAX_FRAMES = 100_000_000
MAX_EPISODES = 1_000_000
MAX_FEATURES = 1000
MAX_EDGE = 8192
"""Longest edge of a picture [px]."""
MAX_ENTRIES = 65_536
"""Most entries of a vector."""
MAX_TABLE_BYTES = 8 * 2**30
"""Most bytes of a table's columns once they are unpacked; a small file can claim any number."""
MAX_FPS = 1000.0

_PLACE = re.compile(r'\{(?P<name>\w+)(?::0?(?P<width>\d{1,2})d)?\}')
_VERSION = re.compile(r'v(2\.[01]|3\.0)')
_DTYPES = frozenset(
    ['image', 'video', 'language', 'string', 'bool', 'float16', 'float32', 'float64']
    + [f'{sign}int{bits}' for sign in ('', 'u') for bits in (8, 16, 32, 64)]
)


def read_info(folder: Path) -> DatasetInfo:
    """Read what a dataset says about itself.

    Raises:
        DatasetError: it contradicts itself, is damaged, or of another version.
    """
    raw = read_json(folder / INFO)
    version = _version(raw, folder)
    fps = raw.get('fps')
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= MAX_FPS:
        raise DatasetError(f'expected fps above 0 and up to {MAX_FPS:g} in {folder / INFO}, got {fps!r}')
    features = _features(raw.get('features'), folder)
    read = _Tables3(folder, raw, features) if version == 'v3.0' else _Tables2(folder, raw, features)
    episodes = tuple(read.episodes())
    _check_totals(raw, episodes, folder)
    return DatasetInfo(
        folder,
        version,
        float(fps),
        features,
        episodes,
        read.tasks(),
        str(raw.get('robot_type') or ''),
        _provenance(raw, folder),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object of a file.

    Raises:
        DatasetError: it is too large, damaged, nested without end, or no object.
    """
    return _parse(_bounded_text(path), path)


def open_table(path: Path, most_rows: int = MAX_FRAMES) -> 'pq.ParquetFile':
    """Open a Parquet file.

    Raises:
        DatasetError: it is missing, damaged, or claims more rows or bytes than there can be.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        require_file(path)
        table = pq.ParquetFile(path)
        rows, groups = table.metadata.num_rows, table.metadata.num_row_groups
        size = sum(table.metadata.row_group(k).total_byte_size for k in range(groups))
    except FileNotFoundError as error:
        raise DatasetError(f'expected the file {path}, found none; copy the whole dataset') from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DatasetError(
            f'expected a whole Parquet file at {path}, got "{_line(error)}"; its writer may have been killed before '
            f'the end; copy it again'
        ) from error
    if not 0 <= rows <= most_rows or size > MAX_TABLE_BYTES:
        raise DatasetError(
            f'expected at most {most_rows} rows and {MAX_TABLE_BYTES} bytes in {path}, got {rows} and {size}; '
            f'copy it again'
        )
    return table


def read_table(table: 'pq.ParquetFile', columns: list[str], path: Path) -> 'pa.Table':
    """Return some columns of an open Parquet file.

    Raises:
        DatasetError: one is missing, or its bytes are damaged.
    """
    import pyarrow as pa

    names = table.schema_arrow.names
    missing = [name for name in columns if name not in names]
    if missing:
        raise DatasetError(f'expected the columns {missing} in {path}, got {names[:40]}; copy it again')
    try:
        return table.read(columns=columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DatasetError(
            f'expected readable columns in {path}, got "{_line(error)}"; copy it again'
        ) from error


class _Tables:
    """What both versions have in common: the paths that templates of info.json make."""

    def __init__(self, folder: Path, raw: Mapping[str, Any], features: Mapping[str, Feature]) -> None:
        self.folder, self.raw = folder, raw
        self.videos = [key for key, feature in features.items() if feature.dtype == 'video']

    def path(self, which: str, **values: int | str) -> str:
        """Return a path by the template of that name."""
        template = self.raw.get(which)
        if not isinstance(template, str) or len(template) > 1000:
            raise DatasetError(
                f'expected a template as {which} in {self.folder / INFO}, got {template!r:.80}'
            )

        def fill(match: re.Match[str]) -> str:
            value = values.get(match['name'])
            if value is None:
                raise DatasetError(
                    f'expected {which} made of {sorted(values)} in {self.folder / INFO}, got {template!r}'
                )
            return str(value).rjust(int(match['width'] or 0), '0')

        made = _PLACE.sub(fill, template)
        parts = PurePosixPath(made).parts
        if '{' in made or '}' in made or not parts or made.startswith('/') or '..' in parts or '\0' in made:
            raise DatasetError(
                f'expected {which} to name a file in the dataset in {self.folder / INFO}, got {template!r}; '
                f'do not use a dataset that reaches out of its folder'
            )
        return made


class _Tables3(_Tables):
    """Episodes and tasks of v3.0."""

    def episodes(self) -> Iterator[EpisodeInfo]:
        """Yield where each episode lies."""
        paths = sorted((self.folder / EPISODES).glob('*/*.parquet'))
        if not paths:
            raise DatasetError(f'expected {self.folder / EPISODES}/*/*.parquet, found none; copy all of it')
        columns = ['episode_index', 'length', 'tasks', 'dataset_from_index', 'dataset_to_index']
        columns += ['data/chunk_index', 'data/file_index']
        for key in self.videos:
            columns += [f'videos/{key}/{name}' for name in ('chunk_index', 'file_index', 'from_timestamp')]
        expected = 0
        for path in paths:
            for row in read_table(open_table(path, MAX_EPISODES), columns, path).to_pylist():
                yield self._episode(row, expected, path)
                expected += 1

    def _episode(self, row: Mapping[str, Any], expected: int, path: Path) -> EpisodeInfo:
        index, length, first = (row[name] for name in ('episode_index', 'length', 'dataset_from_index'))
        if (
            None in row.values()
            or index != expected
            or length < 1
            or row['dataset_to_index'] - first != length
        ):
            raise DatasetError(
                f'expected episode {expected} with as many rows as its range in {path}, got episode {index} with '
                f'{length} rows from {first} to {row["dataset_to_index"]}; copy the dataset again'
            )
        videos = {}
        for key in self.videos:
            chunk, file = row[f'videos/{key}/chunk_index'], row[f'videos/{key}/file_index']
            start = row[f'videos/{key}/from_timestamp']
            if not math.isfinite(start) or start < 0:
                raise DatasetError(f'expected episode {index} to begin in its video in {path}, got {start}')
            name = self.path('video_path', video_key=key, chunk_index=chunk, file_index=file)
            videos[key] = (name, float(start))
        data = self.path('data_path', chunk_index=row['data/chunk_index'], file_index=row['data/file_index'])
        return EpisodeInfo(index, length, first, tuple(row['tasks']), data, videos)

    def tasks(self) -> dict[int, str]:
        """Return the tasks by number."""
        path = self.folder / TASKS
        rows = read_table(open_table(path, MAX_EPISODES), ['task_index'], path).column(0).to_pylist()
        names = open_table(path, MAX_EPISODES).schema_arrow.names
        texts = next((name for name in names if name in ('task', '__index_level_0__')), '')
        found = read_table(open_table(path, MAX_EPISODES), [texts or 'task'], path).column(0).to_pylist()
        return {number: str(text) for number, text in zip(rows, found, strict=True)}


class _Tables2(_Tables):
    """Episodes and tasks of v2.0 and v2.1."""

    def episodes(self) -> Iterator[EpisodeInfo]:
        """Yield where each episode lies."""
        size = self.raw.get('chunks_size', 1000)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise DatasetError(f'expected chunks_size of at least 1 in {self.folder / INFO}, got {size!r}')
        first, path = 0, self.folder / 'meta/episodes.jsonl'
        for expected, row in enumerate(_json_lines(path)):
            index, length, tasks = row.get('episode_index'), row.get('length'), row.get('tasks')
            whole = isinstance(length, int) and 1 <= length <= MAX_FRAMES and isinstance(tasks, list)
            if index != expected or not whole:
                raise DatasetError(
                    f'expected episode {expected} with its length and tasks in {path}, got {row!r:.200}; '
                    f'copy the dataset again'
                )
            assert isinstance(length, int)
            assert isinstance(tasks, list)
            place = {'episode_chunk': expected // size, 'episode_index': expected}
            videos = {key: (self.path('video_path', video_key=key, **place), 0.0) for key in self.videos}
            data = self.path('data_path', **place)
            yield EpisodeInfo(expected, length, first, tuple(map(str, tasks)), data, videos)
            first += length

    def tasks(self) -> dict[int, str]:
        """Return the tasks by number."""
        rows = _json_lines(self.folder / 'meta/tasks.jsonl')
        return {
            row['task_index']: str(row.get('task')) for row in rows if isinstance(row.get('task_index'), int)
        }


def _version(raw: Mapping[str, Any], folder: Path) -> str:
    version = raw.get('codebase_version')
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise DatasetError(
            f'expected codebase_version v3.0 or v2.1 in {folder / INFO}, got {version!r:.40}; convert the dataset '
            f'with the scripts of LeRobot'
        )
    return version


def _provenance(raw: Mapping[str, Any], folder: Path) -> Provenance | None:
    if PROVENANCE not in raw:
        return None
    try:
        return Provenance.from_dict(raw[PROVENANCE])
    except ContractError as error:
        raise DatasetError(
            f'expected what our export writes under {PROVENANCE} in {folder / INFO}, got another thing ({error}); '
            f'export again, or remove that key'
        ) from error


def _features(raw: object, folder: Path) -> dict[str, Feature]:
    if not isinstance(raw, dict) or not 0 < len(raw) <= MAX_FEATURES:
        raise DatasetError(f'expected 1 to {MAX_FEATURES} features in {folder / INFO}, got {raw!r:.80}')
    features = {key: _feature(str(key), value, folder) for key, value in raw.items()}
    missing = [key for key in INDEX_FEATURES if key not in features]
    if missing:
        raise DatasetError(f'expected the features {missing} in {folder / INFO}, found none; copy it again')
    return features


def _feature(key: str, raw: object, folder: Path) -> Feature:
    entry = raw if isinstance(raw, dict) else {}
    dtype, shape = entry.get('dtype'), entry.get('shape')
    whole = isinstance(shape, list) and all(type(size) is int and size >= 1 for size in shape)
    if '/' in key or '\0' in key or key in ('.', '..') or dtype not in _DTYPES or not whole:
        raise DatasetError(
            f'expected a feature with a dtype and a shape, and without / in its name, in {folder / INFO}, got '
            f'{key!r:.80}: {raw!r:.120}'
        )
    assert isinstance(shape, list)
    info = entry.get('info') or entry.get('video_info')
    depth = isinstance(info, dict) and bool(info.get('is_depth_map') or info.get('video.is_depth_map'))
    made = Feature(key, str(dtype), tuple(shape), _names(entry.get('names')), depth)
    camera = made.is_camera
    too_large = max(shape, default=1) > MAX_EDGE if camera else math.prod(shape) > MAX_ENTRIES
    if too_large or (camera and len(shape) != 3):
        raise DatasetError(
            f'expected pictures of three axes up to {MAX_EDGE} px and vectors up to {MAX_ENTRIES} entries in '
            f'{folder / INFO}, got {shape} for {key}'
        )
    return made


def _names(raw: object) -> tuple[str, ...]:
    """Return the names of entries: LeRobot writes them as list, as mapping to places, or inside a mapping."""
    if isinstance(raw, dict):
        lists = [value for value in raw.values() if isinstance(value, list)]
        if len(lists) == 1:
            return tuple(map(str, lists[0]))
        if not all(type(value) is int for value in raw.values()):
            return ()
        return tuple(map(str, sorted(raw, key=lambda name: raw[name])))
    return tuple(map(str, raw)) if isinstance(raw, list) else ()


def _check_totals(raw: Mapping[str, Any], episodes: tuple[EpisodeInfo, ...], folder: Path) -> None:
    frames = sum(episode.length for episode in episodes)
    for name, count in (('total_episodes', len(episodes)), ('total_frames', frames)):
        if raw.get(name) != count:
            raise DatasetError(
                f'expected {name} {count} in {folder / INFO}, as its table of episodes says, got '
                f'{raw.get(name)!r:.40}; the recording may have been cut off: copy the dataset again'
            )
    if not episodes or frames > MAX_FRAMES:
        raise DatasetError(f'expected 1 to {MAX_FRAMES} rows in {folder}, got {frames}')
    first = 0
    for episode in episodes:
        if episode.first != first:
            raise DatasetError(
                f'expected episode {episode.index} of {folder} to begin at row {first}, got {episode.first}; '
                f'copy the dataset again'
            )
        first += episode.length


def _bounded_text(path: Path) -> str:
    try:
        return read_text(path, MAX_JSON_BYTES)
    except FileNotFoundError as error:
        raise DatasetError(f'expected the file {path}, found none; copy the whole dataset') from error
    except OSError as error:
        raise DatasetError(
            f'expected readable text in {path}, got "{_line(error)}"; copy it again'
        ) from error


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f'expected JSON in {path}, got "{_line(error)}"; copy it again') from error
    if not isinstance(content, dict):
        raise DatasetError(f'expected a JSON object in {path}, got {content!r:.80}; copy it again')
    return content


def _json_lines(path: Path) -> list[dict[str, Any]]:
    return [_parse(line, path) for line in _bounded_text(path).splitlines() if line.strip()]


def _line(error: Exception) -> str:
    return ' '.join(str(error).split())[:300]
