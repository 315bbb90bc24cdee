# SPDX-License-Identifier: Apache-2.0
"""Where calibration files are kept: our own folder, and LeRobot's, of both its namings."""

from collections.abc import Mapping
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Literal

from so101_driver.calibration.calibration import ArmCalibration, CalibrationError
from so101_driver.calibration.files import CalibrationNotFoundError, check_arm_id, load, SIDECAR_SUFFIX

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
    """Load the calibration that a person means.

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
