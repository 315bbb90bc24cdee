# SPDX-License-Identifier: Apache-2.0
"""What a base policy says: the action that is there before anything is learned, kept with each step.

Learning on top of a base (IBRL, Hu et al. 2023, arXiv:2311.02198) compares with it at both ends of a step. It is kept
whoever acts, so that an update never has to ask the base again, which may be a large model behind a socket.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from so101_contract.action import EeDeltaValue


@dataclass(frozen=True, slots=True, eq=False)
class BaseAction:
    """What the base policy says at a step, whoever acts: learning on top of it never has to ask it again.

    Attributes:
        translation: displacement of the TCP (3,) [m].
        opening: target opening of the gripper, 0 closed .. 1 open.
        acts: the policy left the step to it; else the learned actor had a part in what the policy said.
    """

    translation: npt.NDArray[np.float64]
    opening: float
    acts: bool

    def __post_init__(self) -> None:
        """Refuse NaN; keep a copy that nobody can change."""
        value = EeDeltaValue(self.translation, self.opening)
        object.__setattr__(self, 'translation', value.translation)
        object.__setattr__(self, 'opening', value.opening)


@dataclass(frozen=True, slots=True, eq=False)
class BaseRecord:
    """What the base policy says at a step (`EeDelta` on `policy/base`).

    Attributes:
        episode: number of the episode.
        index: number of the step.
        base: its action, and whether it acts.
    """

    episode: int
    index: int
    base: BaseAction
