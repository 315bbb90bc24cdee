# SPDX-License-Identifier: Apache-2.0
"""Errors of this package."""

from so101_contract.errors import ContractError


class FetchError(ContractError):
    """The model is not installed, or an environment is asked for that there is not."""
