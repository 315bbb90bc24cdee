# SPDX-License-Identifier: Apache-2.0
"""A progress bar for long work, where a person looks at it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

Told = Callable[[int, int], None]


@contextmanager
def progress_bar(console: Console, what: str = 'reading') -> Iterator[Told | None]:
    """Show a bar that is told how much is done, and how much there is; nothing where nobody looks."""
    if not console.is_terminal:
        yield None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
