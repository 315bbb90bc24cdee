# SPDX-License-Identifier: Apache-2.0
"""What a policy requires of the graph around it, as its manifest says: the stack gives it that."""

from pathlib import Path
from typing import TYPE_CHECKING

from so101_bringup.options import OptionError

if TYPE_CHECKING:
    from so101_contract.config import ContractConfig

MANIFEST = 'manifest.json'


def contract_config(checkpoint: str, observation: str, tcp: str) -> 'ContractConfig':
    """Return what all nodes are told.

    Args:
        checkpoint: folder of the policy; anything else requires nothing.
        observation: name of the observation where the policy requires none.
        tcp: TCP preset where it requires none.

    Raises:
        OptionError: its manifest cannot be read, or asks for what has no name.
    """
    # Here and not above: the options must be readable where nothing is installed yet.
    from so101_contract.config import ContractConfig
    from so101_contract.errors import ContractError
    from so101_contract.manifest import PolicyManifest

    manifest = Path(checkpoint).expanduser() / MANIFEST
    if checkpoint in ('none', 'default', '') or not manifest.exists():
        return ContractConfig(observation=observation, tcp=tcp)
    try:
        return ContractConfig.from_manifest(PolicyManifest.from_json(manifest.read_text()))
    except (OSError, ContractError) as error:
        raise OptionError(f'checkpoint:={checkpoint} cannot be read or run here: {error}') from error
