# SPDX-License-Identifier: Apache-2.0
"""The errors that this package raises: one base class, one subclass per part of the contract."""


class ContractError(ValueError):
    """What came does not agree with the contract; the message says what was expected and what to do."""


class JointError(ContractError):
    """Joint names or joint values do not describe this arm."""


class ActionError(ContractError):
    """An action cannot be converted, or an action spec is not valid."""


class ObservationError(ContractError):
    """An observation, or one of its parts, does not match its spec."""


class OrientationError(ContractError):
    """A matrix or quaternion is not a rotation."""


class ImageError(ContractError):
    """An image has the wrong type, shape, encoding or crop."""


class VelocityError(ContractError):
    """A position sample cannot be differentiated."""


class AssemblyError(ContractError):
    """A record that is handed to the assembler contradicts itself."""


class ManifestError(ContractError):
    """A policy manifest is malformed or does not describe the policy next to it."""


class SpecMismatchError(ContractError):
    """Two specs that must be the same differ; the message lists every differing field."""


class TaskError(ContractError):
    """A task says something that cannot be done, or its file cannot be read."""
