# SPDX-License-Identifier: Apache-2.0
"""The policy as LeRobot calls it."""

from pathlib import Path
import shutil
from typing import Any, Self

from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import OBS_IMAGES, OBS_STATE
import numpy as np
import torch

from lerobot_policy_so101.acting import Hand, load_policy
from lerobot_policy_so101.configuration_so101 import SO101Config, STORED


class SO101Policy(PreTrainedPolicy):
    """A stored policy of this project; its weights are checked when it is loaded, and never change here."""

    config_class = SO101Config
    name = 'so101'

    def __init__(self, config: SO101Config, folder: Path | None = None, **_: Any) -> None:
        super().__init__(config)
        if folder is None:
            raise ValueError(
                'expected --policy.path with a folder that python -m lerobot_policy_so101 has made; such a policy is '
                'not made from nothing'
            )
        self.config: SO101Config = config
        self._folder = folder
        self._policy = load_policy(folder)
        self._policy.self_test()
        self.encoder, self.actor = self._policy.encoder, self._policy.actor
        self._hands: list[Hand] = []

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, config: SO101Config | None = None, **_: Any
    ) -> Self:
        """Load it; only from a folder of this machine."""
        place = Path(pretrained_name_or_path)
        found = SO101Config.from_pretrained(place) if config is None else config
        return cls(found, place / STORED).eval()

    def _save_pretrained(self, save_directory: Path, state_dict: Any = None) -> None:
        self.config._save_pretrained(save_directory)
        shutil.copytree(self._folder, save_directory / STORED, dirs_exist_ok=True)

    def reset(self) -> None:
        """Begin another episode, in each of the arms."""
        self._hands.clear()

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **_: Any) -> torch.Tensor:
        """Return joint targets (n, 6) for n arms."""
        states = batch[OBS_STATE].detach().cpu().numpy()
        key = f'{OBS_IMAGES}.{self.config.camera}'
        if key not in batch:
            raise KeyError(f'expected pictures as {key}, got {", ".join(batch)}; see --rename_map')
        pictures = np.rint(255.0 * batch[key].detach().cpu().numpy()).astype(np.uint8).transpose(0, 2, 3, 1)
        while len(self._hands) < len(states):
            self._hands.append(Hand(self._policy, self.config.use_degrees))
        targets = [hand.act(*seen) for hand, *seen in zip(self._hands, states, pictures, strict=False)]
        return torch.from_numpy(np.array(targets, dtype=np.float32))

    def predict_action_chunk(self, batch: dict[str, Any], **_: Any) -> torch.Tensor:
        """Return a chunk of one action (n, 1, 6)."""
        return self.select_action(batch)[:, None]

    def get_optim_params(self) -> dict[str, Any]:
        """Return nothing: LeRobot does not train it."""
        return {}

    def forward(self, batch: dict[str, Any]) -> tuple[torch.Tensor, None]:
        """Refuse to be trained.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            'expected a policy that LeRobot trains; this one learns with ./so101 up or train'
        )
