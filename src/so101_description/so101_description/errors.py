# SPDX-License-Identifier: Apache-2.0
"""The errors that this package raises."""


class DescriptionError(ValueError):
    """The robot cannot be described as asked; the message says what was expected and what to do."""


class ModelError(DescriptionError):
    """The official robot model is missing, or is not the one that this package was written for."""


class PresetError(DescriptionError):
    """A TCP or camera is unknown, or its own description is not valid."""


class MeshError(DescriptionError):
    """A mesh file is missing, malformed or cannot be made."""
