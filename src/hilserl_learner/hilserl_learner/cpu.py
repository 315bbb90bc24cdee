# SPDX-License-Identifier: Apache-2.0
"""Settings of this process that decide how fast a CPU learns; results do not depend on them."""

import ctypes
import logging
import os
import sys

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST = 32 * 2**20
_log = logging.getLogger(__name__)


def prepare_cpu(threads: int = 1) -> None:
    """Set the number of threads, and keep freed memory for the next update.

    One thread is the fastest where cores are shared with a control loop: on busy cores two were up to 17 times
    slower. Without the second setting the C library hands the activations of every update back to the system and gets
    them back page by page, which takes as long as the convolutions.

    Args:
        threads: of torch; 0 leaves the choice to it.
    """
    if threads > 0:
        torch.set_num_threads(threads)
    if not sys.platform.startswith('linux'):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # not the GNU C library
        _log.debug('no mallopt here: memory goes back to the system after each update')
        return
    for option, value in ((_M_MMAP_THRESHOLD, _LARGEST), (_M_TRIM_THRESHOLD, 2**30), (_M_TOP_PAD, _LARGEST)):
        mallopt(option, value)


def step_back() -> None:
    """Let this process have a core only while nothing else wants it.

    Whoever wakes up takes the core at once then. Behind a process that is only nice, a step of the control clock comes
    several milliseconds late.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):  # not Linux, or not allowed
        os.nice(19)
