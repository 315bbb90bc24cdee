# SPDX-License-Identifier: Apache-2.0
"""How a program comes to its end: which signals ask for it, and what else does. No ROS.

A motor whose program nobody can reach any longer would stay on. So a closed terminal and a dead SSH line end a program
as Ctrl-C does, and so does the end of whoever started it, however that went.
"""

from collections.abc import Callable
from contextlib import suppress
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from typing import Any, NoReturn

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Ctrl-C, the word of whoever started the program, a terminal or line that dies, Ctrl-\\."""

PARENT_PERIOD_S = 0.2
_PR_SET_PDEATHSIG = 1


class Ending:
    """Takes the signals of `ENDS`: what runs comes to its end first.

    rclpy's own way ends the context at once, and Python's raises in the middle of whatever runs: a callback that
    publishes at that moment fails, and the log ends in a traceback.

    Attributes:
        asked: the program is to end.
        spinning: it looks at `asked` by itself; else it is interrupted, while it waits for a port, say.
    """

    def __init__(self) -> None:
        self.asked = self.spinning = False

    def __call__(self, *_: Any) -> None:
        """Take one signal."""
        first, self.asked = not self.asked, True
        if first and not self.spinning:
            raise KeyboardInterrupt


def heed_endings(handler: Callable[..., Any]) -> None:
    """Have a handler called for each of `ENDS`, and once the parent process is gone.

    `nohup` says otherwise, as always: with SIGHUP ignored a program outlives its terminal and its parent. A program
    may be started with SIGINT blocked, so that one which comes while it imports waits for this call.
    """
    outlives = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    for number in ENDS:
        if not (outlives and number == signal.SIGHUP):
            signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
    if not outlives:
        threading.Thread(target=_follow, args=(os.getppid(), handler), daemon=True).start()
        # Whoever tied this process to its parent lets go: the signal for that may come after another one, and would
        # pass for a second wish to end.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


def ignore_endings() -> None:
    """An orderly end is under way, and not to be interrupted: terminals and ros2 launch send signals twice at times."""
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)


def _follow(parent: int, handler: Callable[..., Any]) -> None:
    """Ask for the end once the parent is gone, unless it has been asked for: an arm may be parking by then."""
    while os.getppid() == parent:
        time.sleep(PARENT_PERIOD_S)
    asked = isinstance(handler, Ending) and handler.asked
    if signal.getsignal(signal.SIGTERM) == handler and not asked:
        os.kill(os.getpid(), signal.SIGTERM)


def leave(code: int) -> NoReturn:
    """End the process here and now, once everything is closed that has to be.

    What would follow is memory, which the kernel frees at once. The interpreter takes torch, MuJoCo and hundreds of
    modules apart first, which costs a second of a quiet machine and many of a busy one: whoever has pressed Ctrl-C
    waits for it, and whoever started the process takes it for one that hangs.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def tell(sentence: str) -> None:
    """Write a line to the terminal, if there still is one: what remains to be done does not depend on it."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f'{sentence}\n')
        sys.stderr.flush()
