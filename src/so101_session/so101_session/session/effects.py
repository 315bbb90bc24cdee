# SPDX-License-Identifier: Apache-2.0
"""What the session wants to be done: its node carries these out, in order."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from so101_contract.episodes import EventKind
from so101_contract.records import StepRecord
from so101_session.session.arbiter import Execute, Stop


@dataclass(frozen=True)
class Event:
    """Publish that something happened to an episode."""

    kind: EventKind
    episode: int
    index: int
    reason: str = ''


@dataclass(frozen=True)
class Quieten:
    """Have the controller forget its setpoint, so that it is silent while the session leads the joints."""


@dataclass(frozen=True)
class ResetScene:
    """Have the simulated scene arranged anew."""


@dataclass(frozen=True, eq=False)
class MoveTo:
    """Send joint goals (6,) [rad]."""

    goal: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Say:
    """Tell people, in one sentence."""

    sentence: str
    warning: bool = False


@dataclass(frozen=True)
class Finish:
    """End the node: the work is done."""


Effect: TypeAlias = StepRecord | Execute | Event | Quieten | ResetScene | MoveTo | Stop | Say | Finish
