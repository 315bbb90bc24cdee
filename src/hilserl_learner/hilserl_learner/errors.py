# SPDX-License-Identifier: Apache-2.0
"""The errors that this package raises."""

from so101_contract.errors import ContractError


class LearnerError(ValueError):
    """Something that the learner needs is missing or wrong; the message says what was expected and what to do."""


class ReplayError(LearnerError):
    """A replay buffer cannot be set up as asked, or a transition does not fit it."""


class NotReadyError(LearnerError):
    """There is not enough data for a batch yet; wait for more instead of training on less."""


class SegmentError(LearnerError, ContractError):
    """A buffer on disk is damaged, of another format, or cannot be written."""


class IngestError(LearnerError, ContractError):
    """A bag cannot be turned into transitions."""


class EpisodeError(IngestError):
    """One episode of a bag cannot be learned from; the others can."""


class DatasetError(IngestError):
    """A dataset of LeRobot's format is damaged, contradicts itself, or is not of this arm."""


class CheckpointError(LearnerError, ContractError):
    """A checkpoint cannot be written or read."""
