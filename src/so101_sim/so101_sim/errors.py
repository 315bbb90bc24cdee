# SPDX-License-Identifier: Apache-2.0
"""The errors that this package raises."""


class SimulationError(ValueError):
    """The simulation cannot be set up or used as asked; the message says what was expected and what to do."""


class PresetError(SimulationError):
    """A preset, task or servo does not exist, or its numbers do not fit together."""


class RenderError(SimulationError):
    """No way to draw a picture works on this machine."""
