# SPDX-License-Identifier: Apache-2.0
"""Which motors of an arm have been set up already, kept in a file so that the work can be taken up again."""

import json
import os
from pathlib import Path

from so101_contract.joints import JOINT_NAMES

SETUP_ORDER = tuple(reversed(JOINT_NAMES))
"""Gripper first: the order in which the motors are reached when the arm is put together."""


class SetupState:
    """The joints whose motors are done.

    Args:
        path: where to keep it; None keeps it in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._done: list[str] = self._load()

    @classmethod
    def of_arm(cls, arm: str) -> 'SetupState':
        """The state of an arm, in the place that the XDG rules give for such."""
        base = Path(os.environ.get('XDG_STATE_HOME') or Path.home() / '.local' / 'state')
        return cls(base / 'so101' / f'setup_motors_{arm}.json')

    @property
    def done(self) -> tuple[str, ...]:
        """Joints whose motors are done, in the order in which they were."""
        return tuple(self._done)

    @property
    def next_joint(self) -> str | None:
        """The joint whose motor comes next; None when all are done."""
        return next((name for name in SETUP_ORDER if name not in self._done), None)

    def mark_done(self, joint: str) -> None:
        """Note that a motor is done."""
        if joint not in self._done:
            self._done.append(joint)
        self._save()

    def forget(self) -> None:
        """Begin anew."""
        self._done = []
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _load(self) -> list[str]:
        if self._path is None:
            return []
        try:
            names = json.loads(self._path.read_text(encoding='utf-8'))['done']
            return [name for name in SETUP_ORDER if name in names]
        except (OSError, ValueError, KeyError, TypeError):
            return []  # what is done is found again by looking at each motor

    def _save(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix('.tmp')
        temporary.write_text(json.dumps({'done': self._done}), encoding='utf-8')
        temporary.replace(self._path)
