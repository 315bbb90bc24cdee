# SPDX-License-Identifier: Apache-2.0
"""Files that nobody has looked at: opened only where they are plain ones, and read up to a bound.

Whoever opens a named pipe waits for a writer that may never come, a device may have no end, and opening some of them
does something. What is refused is an `OSError`, so that it gets the sentence that a file gets which is not there.
"""

import errno
from io import BufferedReader
import os
from pathlib import Path
import stat

MOST_TEXT = 16 * 2**20
"""Of a file of settings [B]; the largest of ours have a few kilobytes."""
MOST_BYTES = 2**31
"""Of a file of numbers that is read as a whole [B]."""


def open_file(path: str | Path) -> BufferedReader:
    """Open a plain file to read bytes from it.

    Raises:
        OSError: it is missing, cannot be opened, or is a folder, a pipe or a device.
    """
    _require_plain(os.stat(path).st_mode, path)
    # It may have become another one since.
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _require_plain(os.fstat(number).st_mode, path)
        return os.fdopen(number, 'rb')
    except BaseException:
        os.close(number)
        raise


def read_file(path: str | Path, most: int = MOST_TEXT) -> bytes:
    """Return what is in a plain file.

    Args:
        path: of the file.
        most: how long it may be [B].

    Raises:
        OSError: it is missing, cannot be read, is longer, or is a folder, a pipe or a device.
    """
    with open_file(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f'more than the {most} bytes that such a file may have', str(path))
    return content


def read_text(path: str | Path, most: int = MOST_TEXT) -> str:
    """Return the text of a plain file.

    Raises:
        OSError: as for `read_file`, and where it is no text.
    """
    try:
        return read_file(path, most).decode()
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, f'no text: {error}', str(path)) from error


def require_file(path: str | Path) -> None:
    """Refuse what is no plain file, where a library opens it by its name.

    Raises:
        OSError: it is missing, or is a folder, a pipe or a device.
    """
    _require_plain(os.stat(path).st_mode, path)


def _require_plain(mode: int, path: str | Path) -> None:
    if not stat.S_ISREG(mode):
        kind = 'a folder' if stat.S_ISDIR(mode) else 'a pipe or a device'
        raise OSError(errno.EINVAL, f'{kind} where a plain file belongs', str(path))
