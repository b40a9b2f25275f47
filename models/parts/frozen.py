"""A network inside another that is never trained or saved: a teacher, a flow network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Frozen(nn.Module):
    """Calls `network` without gradients, always in eval mode, and keeps it out of every state dict.

    It stays a submodule, so it moves with the model and its `normalize` is found where others are.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.frozen = network.requires_grad_(False)
        self.eval()
        self.register_load_state_dict_post_hook(forget_missing)

    def train(self, mode: bool = True) -> Frozen:
        """Stays in eval mode, whatever the model around it does."""
        return super().train(False)

    def state_dict(self, *args, destination=None, prefix="", keep_vars=False):
        """Nothing: its weights have a file of their own."""
        return {} if destination is None else destination

    def separate_entries(self, prefix: str = "") -> dict[str, Tensor]:
        """What a file of its own fills (utils.checkpoint.load_weights), by name."""
        return self.frozen.state_dict(prefix=f"{prefix}frozen.")

    @property
    def needs_weights(self) -> bool:
        """Whether nothing it computes means anything without such a file."""
        return getattr(self.frozen, "needs_weights", False)

    def key_maps(self) -> list:
        """Published checkpoints that it reads (models.keymaps.KeyMap)."""
        published = self.frozen.key_maps() if hasattr(self.frozen, "key_maps") else []
        return [key_map.prefixed("frozen.") for key_map in published]

    @torch.no_grad()
    def forward(self, *args, **kwargs):
        return self.frozen(*args, **kwargs)


def forget_missing(module: Frozen, incompatible) -> None:
    """Loading a checkpoint without the frozen network's entries is as it should be."""
    incompatible.missing_keys[:] = [
        key for key in incompatible.missing_keys if ".frozen." not in f".{key}"
    ]
