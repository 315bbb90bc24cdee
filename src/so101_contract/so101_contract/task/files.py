# SPDX-License-Identifier: Apache-2.0
"""Tasks as files: `config/tasks/NAME.yaml`, which people write and every part is told by name or path.

A file says only what differs from the defaults of `TaskSpec`; a key that there is not is refused with the nearest one
that there is. The built-in tasks are such files too.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import difflib
import os
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from so101_contract.errors import ContractError, TaskError
from so101_contract.observation_spec import get_observation, ObservationSpec
from so101_contract.record import Record
from so101_contract.task.spec import TaskSpec
from so101_interfaces_py.files import open_file
from so101_interfaces_py.yaml_text import load_yaml, YamlError

FOLDER = 'config/tasks'
SUFFIX = '.yaml'
MOST_BYTES = 100_000
"""A task file is a page; what is longer is something else."""

ROOT = 'SO101_ROOT'
"""Environment variable with the folder of the checkout."""


def load_task(word: str) -> TaskSpec | None:
    """Return the task that a parameter names; None where it names none.

    Raises:
        TaskError: there is no such task, or its file is wrong.
    """
    return get_task(word) if word else None


def told_task(word: str, cameras: Sequence[str] = ()) -> TaskSpec | None:
    """Return the task that the parameters `task` and `cameras` of a node say; None where they say none.

    Raises:
        ContractError: there is no such task, or no such camera.
    """
    task = load_task(word)
    return None if task is None else task.with_cameras(cameras)


def observed(
    task: TaskSpec | None,
    name: str,
    *,
    tcp: str | None = None,
    camera_preset: str | None = None,
    cameras: Sequence[str] = (),
) -> ObservationSpec:
    """Return what is observed: the observation of a name with the cameras of the task, or as it is without a task.

    Args:
        task: what is to be done, from `told_task`.
        name: of the observation.
        tcp: TCP preset instead of the observation's own.
        camera_preset: where the wrist camera is mounted, instead of the observation's own.
        cameras: where there is no task: names of cameras instead of the observation's own.
    """
    if task is None:
        return get_observation(name, tcp=tcp, camera_preset=camera_preset, cameras=cameras)
    return task.observe(name, tcp=tcp, camera_preset=camera_preset)


def all_cameras(task: TaskSpec | None, given: Sequence[str]) -> list[str]:
    """Return the names of the cameras that there are: those of the task, then those that are given beside them."""
    known = [] if task is None else [camera.name for camera in task.cameras]
    return list(dict.fromkeys([*known, *filter(None, given)])) or ['wrist']


def get_task(word: str) -> TaskSpec:
    """Return a task by its name in `config/tasks`, or by the path of its file.

    Raises:
        TaskError: there is none, or it is wrong; the message says which file, what, and what to do.
    """
    return read_task(find_task(word))


def find_task(word: str) -> Path:
    """Return the file of a task.

    Raises:
        TaskError: there is none.
    """
    if '/' in word or word.endswith((SUFFIX, '.yml')):
        path = Path(word).expanduser()
        if not path.exists():
            raise TaskError(f'expected a task file at {path}, got none; correct the path, or name a task')
        return path.resolve()
    for folder in folders():
        if word and (folder / f'{word}{SUFFIX}').is_file():
            return folder / f'{word}{SUFFIX}'
    known = ', '.join(task_names()) or 'none'
    raise TaskError(
        f'expected one of the tasks {known}, got {word[:60]!r}; name one, or the path of a task file ending in {SUFFIX}'
    )


def task_names() -> list[str]:
    """Return the names of the tasks that are there."""
    return sorted({path.stem for folder in folders() for path in folder.glob(f'*{SUFFIX}')})


def folders() -> Iterator[Path]:
    """Yield the folders of tasks that are there: of the checkout, then as they are installed."""
    root = os.environ.get(ROOT, '')
    above = [Path(__file__), *([Path(root) / 'x'] if root else [])]
    installed = Path('share/so101_bringup') / FOLDER
    prefixes = [
        Path(prefix) for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if prefix
    ]
    candidates = [
        *(parent / FOLDER for path in reversed(above) for parent in path.resolve().parents),
        *(prefix / installed for prefix in prefixes),
        *(parent / installed for parent in Path(__file__).resolve().parents),
    ]
    yield from (folder for folder in dict.fromkeys(candidates) if folder.is_dir())


def read_task(path: Path) -> TaskSpec:
    """Read the file of a task.

    Raises:
        TaskError: it cannot be read, or says something that cannot be done.
    """
    try:
        with open_file(path) as file:  # which no pipe keeps waiting
            text = file.read(MOST_BYTES + 1).decode('utf-8')
    except OSError as error:
        raise TaskError(
            f'expected a task file at {path}, got "{error.strerror}"; correct the path'
        ) from error
    except UnicodeDecodeError as error:
        raise TaskError(f'{path}: expected text in UTF-8, got other bytes; write it anew') from error
    try:
        return task_of_yaml(text)
    except ContractError as error:
        raise TaskError(f'{path}: {error}') from error


def task_of_yaml(text: str) -> TaskSpec:
    """Return the task that a text says.

    Raises:
        TaskError: it is no YAML, has a key that there is not, or a value that cannot be.
    """
    if len(text) > MOST_BYTES:
        raise TaskError(f'expected a task of up to {MOST_BYTES} characters, got more; is this another file?')
    try:
        said = load_yaml(text)  # which bounds it before anything follows it
        _refuse_repeated(yaml.compose(text, Loader=yaml.SafeLoader))
        made: TaskSpec = _make(TaskSpec, said, '')
    except YamlError as error:
        raise TaskError(f'{error}; see docs/your_task.md for an example') from error
    return made


def yaml_of_task(task: TaskSpec) -> str:
    """Return the text of a task's file: what differs from the defaults, in their order."""
    said = _differing(task)
    return str(
        yaml.dump(
            said, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110
        )
    )


def write_task(path: Path, task: TaskSpec) -> None:
    """Write the file of a task, which appears whole or not at all.

    Raises:
        TaskError: the folder cannot be written.
    """
    aside = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(yaml_of_task(task), encoding='utf-8')
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise TaskError(f'expected to write {path}, got "{error.strerror}"; name another file') from error


class _Dumper(yaml.SafeDumper):
    """Writes a point in one line, as people do."""

    def represent_list(self, data: Any) -> Any:
        """Write a list; of numbers and words in one line."""
        flat = not any(isinstance(item, list | dict) for item in data)
        return self.represent_sequence('tag:yaml.org,2002:seq', data, flow_style=flat)


_Dumper.add_representer(list, _Dumper.represent_list)


def _refuse_repeated(node: Any) -> None:
    """Refuse a key that is there twice: of two values YAML takes the last one without a word."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise TaskError(f'expected each key once, got {twice[0][:60]!r} more often; remove one of them')
        for _, value in node.value:
            _refuse_repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_repeated(value)


def _make(kind: type[Any], said: object, where: str) -> Any:
    """Return a record of what a mapping says; what it leaves out is as usual."""
    if not isinstance(said, Mapping):
        raise TaskError(f'expected {where or "a task"} as a mapping (key: value), got {type(said).__name__}')
    known = {one.name: one for one in dataclasses.fields(kind)}
    for key in said:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f'; did you mean {near[0]}?' if near else ''
            raise TaskError(
                f'expected the keys {", ".join(known)}{f" in {where}" if where else ""}, got {str(key)[:60]!r}{hint}'
            )
    missing = [name for name, one in known.items() if name not in said and _is_needed(one)]
    if missing:
        raise TaskError(
            f'expected {" and ".join(missing)} in {where or "the task"}, got none; add a line for it'
        )
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, _path(where, name)) for name, value in said.items()})


def _value(hint: Any, value: object, where: str) -> object:
    """Make records of mappings; everything else is checked by the record that gets it."""
    inner = [one for one in (hint, *getattr(hint, '__args__', ())) if isinstance(one, type)]
    record = next((one for one in inner if issubclass(one, Record)), None)
    if record is None or value is None:
        return value
    if getattr(hint, '__origin__', None) is not tuple:
        return _make(record, value, where)
    if not isinstance(value, list):
        raise TaskError(f'expected {where} as a list, one "- name: ..." each, got {type(value).__name__}')
    return tuple(_make(record, one, f'{where}[{k}]') for k, one in enumerate(value))


def _is_needed(one: 'dataclasses.Field[Any]') -> bool:
    return one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING


def _path(where: str, name: str) -> str:
    return f'{where}.{name}' if where else name


def _differing(record: Record) -> dict[str, Any]:
    """Return the values that are not the defaults, as plain ones."""
    plain, said = record.to_dict(), {}
    for one in dataclasses.fields(record):  # type: ignore[arg-type]
        usual = one.default_factory() if one.default_factory is not dataclasses.MISSING else one.default
        value = getattr(record, one.name)
        if _is_needed(one) or value != usual:
            said[one.name] = _differing(value) if isinstance(value, Record) else plain[one.name]
    return said
