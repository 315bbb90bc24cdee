# SPDX-License-Identifier: Apache-2.0
"""Errors of the session."""


class SessionError(ValueError):
    """Something that the session was asked for or given cannot be right."""
