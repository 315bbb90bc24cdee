# SPDX-License-Identifier: Apache-2.0
"""Who acts, what happens to an episode, and how it ends. Values are those of the messages' constants."""

from enum import IntEnum

NO_EPISODE = 0
"""Episode number of the steps between episodes; nothing is learned from them."""


class Source(IntEnum):
    """Who decided an action (`EeDelta.source`)."""

    NONE = 0
    POLICY = 1
    TELEOP = 2
    RESET = 3


class EventKind(IntEnum):
    """What happened to an episode (`EpisodeEvent.kind`)."""

    START = 0
    SUCCESS = 1
    FAILURE = 2
    DISCARD = 3
    TIME_LIMIT = 4
    ABORT = 5
    PAUSE = 6
    RESUME = 7
    INTERVENTION_START = 8
    INTERVENTION_END = 9
    RESET_START = 10
    RESET_DONE = 11

    @property
    def outcome(self) -> 'Outcome | None':
        """The outcome that this event gives its episode, or None where it gives none."""
        return Outcome(self.value) if self.value in {outcome.value for outcome in Outcome} else None


class Outcome(IntEnum):
    """How an episode ended."""

    SUCCESS = 1
    FAILURE = 2
    DISCARD = 3
    TIME_LIMIT = 4
    ABORT = 5

    @property
    def terminal(self) -> bool:
        """Whether nothing follows, so that no value is bootstrapped; else the episode was cut short."""
        return self in (Outcome.SUCCESS, Outcome.FAILURE)
