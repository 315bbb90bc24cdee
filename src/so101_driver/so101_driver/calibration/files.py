# SPDX-License-Identifier: Apache-2.0
"""Calibration files: LeRobot's JSON, read and written, and a sidecar for what LeRobot has no field for.

The JSON is exactly what LeRobot writes, so either program can use a file of the other. Signs, offsets and the
gripper map go to `<id>.so101.json` beside it, which names the JSON it belongs to by hash: after a calibration
by LeRobot the old offsets are refused instead of applied.
"""

from collections.abc import Mapping
import contextlib
from dataclasses import dataclass, replace
import hashlib
import json
import os
from pathlib import Path
import re
import tempfile
from typing import Any, Literal

from so101_contract.joints import JOINT_NAMES
from so101_driver.calibration.calibration import (
    ArmCalibration,
    CalibrationError,
    GripperMap,
    JointCalibration,
)
from so101_driver.calibration.checks import require_plausible
from so101_interfaces_py.files import read_text

FIELDS = ('id', 'drive_mode', 'homing_offset', 'range_min', 'range_max')
"""Fields of a joint in LeRobot's JSON, in its order."""

SIDECAR_SUFFIX = '.so101.json'


class CalibrationNotFoundError(CalibrationError):
    """No file of that name exists in any place where calibrations are kept."""


def to_lerobot(calibration: ArmCalibration) -> dict[str, dict[str, int]]:
    """Return the content of LeRobot's JSON."""
    return {name: {field: getattr(calibration[name], field) for field in FIELDS} for name in JOINT_NAMES}


def lerobot_text(calibration: ArmCalibration) -> str:
    """Return LeRobot's JSON, byte for byte as LeRobot writes it."""
    return json.dumps(to_lerobot(calibration), indent=4)


def from_lerobot(data: object, *, gripper_map: GripperMap = 'angle') -> ArmCalibration:
    """Build a calibration from the content of LeRobot's JSON.

    Raises:
        CalibrationError: it is malformed or cannot be right.
    """
    if not isinstance(data, Mapping):
        raise CalibrationError(
            f'expected a JSON object with one entry per joint, got {type(data).__name__}; this is not a '
            f'calibration file'
        )
    joints = {str(name): _joint(str(name), row) for name, row in data.items()}
    return require_plausible(ArmCalibration(joints, gripper_map))


def load(path: Path, *, gripper_map: GripperMap | None = None) -> ArmCalibration:
    """Read a calibration, with its sidecar where there is one.

    Args:
        path: the JSON file.
        gripper_map: how to read the gripper; by default what the sidecar says, else `linear` for a file in
            one of LeRobot's leader folders and `angle` for any other.

    Raises:
        CalibrationNotFoundError: there is no such file.
        CalibrationError: it is malformed or cannot be right; the message names the file.
    """
    leader = path.parent.name.endswith('_leader')
    file, sidecar = path, sidecar_path(path)
    try:
        calibration = from_lerobot(_read_json(file), gripper_map='linear' if leader else 'angle')
        if sidecar.exists():
            file = sidecar
            calibration = _with_sidecar(calibration, _read_json(file))
    except CalibrationNotFoundError:
        raise
    except CalibrationError as error:
        raise CalibrationError(f'{file}: {error}') from error
    return calibration if gripper_map is None else replace(calibration, gripper_map=gripper_map)


def save(calibration: ArmCalibration, path: Path) -> Path:
    """Write a calibration and, where it needs one, its sidecar.

    A crash at any moment leaves the old calibration or the new one, never half of one: files are written
    aside and renamed, and the sidecar, which goes first, describes both. An old file of another content is
    kept as `<name>.<hash>.bak`.

    Returns:
        The path of the JSON file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sidecar = sidecar_path(path)
    if sidecar.exists() or calibration != _without_sidecar(calibration):
        entries = {_plain_hash(calibration): _entry(calibration)}
        if path.exists():
            with contextlib.suppress(CalibrationError):
                old = load(path)
                entries[_plain_hash(old)] = entries.get(_plain_hash(old), _entry(old))
        _write(sidecar, json.dumps({'calibrations': entries}, indent=4))
    _write(path, lerobot_text(calibration))
    return path


def sidecar_path(path: Path) -> Path:
    """Where the sidecar of a calibration file lies."""
    return path.with_name(path.stem + SIDECAR_SUFFIX)


def check_arm_id(arm_id: str) -> str:
    """Return the name of an arm, or raise `CalibrationError` when it cannot be a file name."""
    if not re.fullmatch(r'[A-Za-z0-9_][A-Za-z0-9_.-]*', arm_id) or arm_id.endswith(('.json', '.so101')):
        raise CalibrationError(
            f'expected an arm name of letters, digits, dots, dashes and underscores, got {arm_id!r}; '
            f'give a name such as my_follower, not a path'
        )
    return arm_id


def _joint(name: str, row: object) -> JointCalibration:
    if not isinstance(row, Mapping) or set(row) != set(FIELDS):
        came = ', '.join(map(str, row)) if isinstance(row, Mapping) else repr(row)
        raise CalibrationError(
            f'{name}: expected the fields {", ".join(FIELDS)}, got {came}; '
            f'this is not a calibration of an SO-101'
        )
    try:
        return JointCalibration(**row)
    except CalibrationError as error:
        raise CalibrationError(f'{name}: {error}') from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path), object_pairs_hook=_no_duplicates)
    except FileNotFoundError as error:
        raise CalibrationNotFoundError(
            f'{path}: there is no such file; run calibrate, or calibrate --import-lerobot FILE'
        ) from error
    except CalibrationError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CalibrationError(f'expected a readable JSON file, got {error}; restore a backup') from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CalibrationError(f'expected each name once, got {", ".join(twice)} twice; remove the wrong one')
    return dict(pairs)


def _without_sidecar(calibration: ArmCalibration) -> ArmCalibration:
    """Return what is left of a calibration in LeRobot's JSON alone."""
    return ArmCalibration({name: replace(calibration[name], sign=1, offset_rad=0.0) for name in JOINT_NAMES})


def _plain_hash(calibration: ArmCalibration) -> str:
    return hashlib.sha256(lerobot_text(calibration).encode()).hexdigest()


def _entry(calibration: ArmCalibration) -> dict[str, Any]:
    joints = {
        name: {'sign': calibration[name].sign, 'offset_rad': calibration[name].offset_rad}
        for name in JOINT_NAMES
    }
    return {
        'calibration_id': calibration.calibration_id,
        'gripper_map': calibration.gripper_map,
        'joints': joints,
    }


def _with_sidecar(calibration: ArmCalibration, data: Any) -> ArmCalibration:
    try:
        entry = data['calibrations'].get(_plain_hash(calibration))
        if entry is None:
            raise CalibrationError(
                f'the signs and offsets in its sidecar *{SIDECAR_SUFFIX} belong to an older calibration '
                f'and do not hold any more; delete the sidecar, then run calibrate --zero-check'
            )
        joints = {name: replace(calibration[name], **entry['joints'][name]) for name in JOINT_NAMES}
        return ArmCalibration(joints, entry['gripper_map'])
    except (KeyError, TypeError, AttributeError) as error:
        raise CalibrationError(
            f'its sidecar *{SIDECAR_SUFFIX} is damaged ({error!r}); delete it, then run '
            f'calibrate --zero-check'
        ) from error


def _write(path: Path, text: str) -> None:
    if path.exists():
        if path.read_bytes() == text.encode():
            return
        _keep(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.', suffix='.tmp')
    try:
        with os.fdopen(handle, 'w', encoding='utf-8') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _keep(path: Path) -> None:
    content = path.read_bytes()
    backup = path.with_name(f'{path.name}.{hashlib.sha256(content).hexdigest()[:8]}.bak')
    backup.write_bytes(content)


ArmKind = Literal['follower', 'leader']

LEROBOT_FOLDERS: Mapping[ArmKind, tuple[str, ...]] = {
    'follower': ('robots/so_follower', 'robots/so101_follower'),
    'leader': ('teleoperators/so_leader', 'teleoperators/so101_leader'),
}
"""Newest first. LeRobot renamed them in January 2026 and does not look in the old ones itself."""


@dataclass(frozen=True)
class Places:
    """The folders to look in.

    Attributes:
        own: where this project writes.
        lerobot: root of LeRobot's calibrations.
    """

    own: Path
    lerobot: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> 'Places':
        """Find the folders as the XDG rules and LeRobot's own variables say."""
        env = os.environ if environment is None else environment
        home = Path(env.get('HOME') or Path.home())
        config = Path(env.get('XDG_CONFIG_HOME') or home / '.config')
        cache = Path(env.get('XDG_CACHE_HOME') or home / '.cache')
        hugging_face = Path(env.get('HF_HOME') or cache / 'huggingface')
        lerobot_home = Path(env.get('HF_LEROBOT_HOME') or hugging_face / 'lerobot')
        lerobot = Path(env.get('HF_LEROBOT_CALIBRATION') or lerobot_home / 'calibration')
        return cls(config / 'so101' / 'calibration', lerobot.expanduser())

    def folders(self, kind: ArmKind) -> tuple[Path, ...]:
        """Every folder that may hold a calibration of this kind of arm, the first to win first."""
        return (self.own, *(self.lerobot / folder for folder in LEROBOT_FOLDERS[kind]))

    def own_path(self, arm_id: str) -> Path:
        """Where this project keeps the calibration of an arm."""
        return self.own / f'{check_arm_id(arm_id)}.json'

    def lerobot_path(self, arm_id: str, kind: ArmKind) -> Path:
        """Where today's LeRobot looks for the calibration of an arm."""
        return self.lerobot / LEROBOT_FOLDERS[kind][0] / f'{check_arm_id(arm_id)}.json'

    def find(self, arm_id: str, kind: ArmKind = 'follower') -> Path:
        """Return the calibration file of an arm.

        Raises:
            CalibrationNotFoundError: none of the folders has it; the message says which arms they do have.
        """
        name = f'{check_arm_id(arm_id)}.json'
        for folder in self.folders(kind):
            if (folder / name).is_file():
                return folder / name
        known = ', '.join(sorted(self.known(kind))) or 'none'
        raise CalibrationNotFoundError(
            f'expected {name} in {self.own} or below {self.lerobot}, found calibrations of: {known}; '
            f'run calibrate --arm {arm_id}, or calibrate --arm {arm_id} --import-lerobot FILE'
        )

    def known(self, kind: ArmKind = 'follower') -> dict[str, Path]:
        """Every calibration file of this kind of arm, by arm name."""
        found: dict[str, Path] = {}
        for folder in self.folders(kind):
            for path in sorted(folder.glob('*.json')):
                if not path.name.endswith(SIDECAR_SUFFIX):
                    found.setdefault(path.stem, path)
        return found

    def load_known(self, kind: ArmKind = 'follower') -> dict[str, ArmCalibration]:
        """Every calibration of this kind of arm that can be read, by arm name."""
        loaded = {}
        for arm_id, path in self.known(kind).items():
            try:
                loaded[arm_id] = load(path)
            except CalibrationError:
                continue  # a damaged file of some other arm is no reason to fail here
        return loaded


def find_calibration(
    which: str = '', places: Places | None = None, *, kind: ArmKind = 'follower'
) -> ArmCalibration:
    """Load the calibration that is meant.

    Args:
        which: a file, the name of an arm, or nothing: then the only calibration that there is.
        places: where to look, by default as the environment says.
        kind: of the arm.

    Raises:
        CalibrationNotFoundError: there is none, or there are several to choose from.
        CalibrationError: the file cannot be right.
    """
    places = places or Places.from_environment()
    if which.endswith('.json') or '/' in which:
        return load(Path(which).expanduser())
    if which:
        return load(places.find(which, kind))
    known = places.known(kind)
    if len(known) != 1:
        raise CalibrationNotFoundError(
            f'expected one calibration of a {kind} arm in {places.own} or below {places.lerobot}, found '
            f'{", ".join(sorted(known)) or "none"}; '
            + ('name the arm: calibration:=NAME' if known else 'run ./so101 calibrate')
        )
    return load(next(iter(known.values())))
