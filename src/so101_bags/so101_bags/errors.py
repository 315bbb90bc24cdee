# SPDX-License-Identifier: Apache-2.0
"""The error that everything about bags raises."""


class BagError(ValueError):
    """A bag cannot be read, written or repaired; the message says what was expected and what to do."""


class TruncatedBagError(BagError):
    """A bag was not closed: its recorder was killed, or still runs."""


class DecodeError(BagError):
    """One message cannot be decoded, or lacks a field."""
