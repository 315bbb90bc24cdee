# SPDX-License-Identifier: Apache-2.0
"""Peers are packages of PyPI; each bench installs its own into .bench on its first run, never into our environment."""

from collections.abc import Callable, Sequence
from pathlib import Path
import shutil
import subprocess
import sys

from processes import ROOT

FOLDER = ROOT / '.bench'
PIP = ('-m', 'pip', 'install', '--quiet', '--disable-pip-version-check')


def in_venv(name: str, wanted: Sequence[str], alone: Sequence[str] = (), python: str = sys.executable) -> str:
    """Return the interpreter of a virtual environment that has some packages.

    Args:
        name: Of its folder.
        wanted: Requirements, installed with what they need.
        alone: Requirements that are installed without what they say they need.
        python: The interpreter that it is made of.
    """
    folder = FOLDER / name
    interpreter = str(folder / 'bin' / 'python')

    def make() -> None:
        subprocess.run([python, '-m', 'venv', str(folder)], check=True)
        subprocess.run([interpreter, *PIP, *wanted], check=True)
        if alone:
            subprocess.run([interpreter, *PIP, '--no-deps', *alone], check=True)

    _once(folder, [python, *wanted, *alone], make)
    return interpreter


def files_only(name: str, wanted: Sequence[str]) -> Path:
    """Return a folder with the files of some packages alone, to be imported beside our own environment."""
    folder = FOLDER / name
    words = [sys.executable, *PIP, '--no-deps', '--target', str(folder), *wanted]
    _once(folder, [sys.executable, *wanted], lambda: subprocess.run(words, check=True))
    return folder


def _once(folder: Path, wanted: Sequence[str], make: Callable[[], object]) -> None:
    """Make a folder unless it was made of the same; one that was interrupted is made again."""
    stamp, text = folder / 'stamp', '\n'.join(wanted)
    if stamp.exists() and stamp.read_text() == text:
        return
    sys.stderr.write(f'Installing {", ".join(wanted[1:])} into {folder}; this may take minutes ...\n')
    shutil.rmtree(folder, ignore_errors=True)
    make()
    stamp.write_text(text)
