# SPDX-License-Identifier: Apache-2.0
"""The errors that this package raises."""


class KinematicsError(ValueError):
    """A kinematic question is not valid; the message says what was expected, what came, and what to do."""


class IkError(KinematicsError):
    """An inverse-kinematics problem is malformed. A target out of reach is not an error but a result."""


class WorkspaceError(KinematicsError):
    """A workspace box is malformed."""
