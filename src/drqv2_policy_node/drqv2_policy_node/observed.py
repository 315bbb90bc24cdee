# SPDX-License-Identifier: Apache-2.0
"""What the policy saw at a step, as a hash: whoever rebuilds the observation elsewhere can tell that it is the same."""

from dataclasses import dataclass
from typing import ClassVar

from so101_contract.errors import ObservationError
from so101_contract.record import Record


@dataclass(frozen=True, kw_only=True)
class Observed(Record):
    """What an action was decided from (`policy/observed`, as JSON).

    Attributes:
        episode: number of the episode.
        index: number of the step.
        sha256: `observation_digest` of what was seen.
        version: of the weights that decided; 0 for those from disk.
        std: exploration noise that was added, in network units.
        seed: of the noise.
        latency_s: from the step's arrival to the action's departure [s].
    """

    KIND: ClassVar[str] = 'drqv2_policy_node/observed/1'
    ERROR = ObservationError

    episode: int
    index: int
    sha256: str
    version: int
    std: float
    seed: int
    latency_s: float
