"""The contract of a backbone: the single-frame network that any method builds on.

    frame -- encode --> Features -- embed --> embedding -- classify --> logits
                           |
                           +-- auxiliary --> logits (training only)

A method never asks which backbone it has: differences are attributes (`channels`, `stride`, `size_rule`,
`align_corners`) and methods. Frames come in as RGB in [0, 1]; the network normalises them by its
own submodule `normalize`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Features(NamedTuple):
    """Maps of one frame. `last` is the one memory methods read (each backbone's docstring says which)."""

    last: Tensor  # (B, F, h, w)
    stages: tuple[Tensor, ...] = ()  # of the encoder, finest first, where the backbone offers them


@dataclass(frozen=True)
class SizeRule:
    """Sides that work: multiple * n + offset. The engine pads frames up to the next such size."""

    multiple: int = 1
    offset: int = 0

    def fit(self, side: int) -> int:
        """The smallest side >= `side` that works."""
        return max(-(-(side - self.offset) // self.multiple), 1) * self.multiple + self.offset

    def __str__(self) -> str:
        return (
            f"{self.multiple}n+{self.offset}" if self.offset else f"a multiple of {self.multiple}"
        )


class Normalize(nn.Module):
    """(x - mean) / std per channel, for frames in [0, 1]; buffers that stay out of the state dict."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, frame: Tensor) -> Tensor:
        return (frame - self.mean) / self.std


def imagenet_normalize() -> Normalize:
    return Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Backbone(nn.Module):
    """Base class. A subclass sets the attributes in __init__ and gives encode, embed and classify."""

    num_outputs: int  # channels of the logits
    learned_ignore: bool = False  # whether the last of them stands for "ignore"
    channels: int  # F of Features.last
    stride: int  # H / h of Features.last
    size_rule: SizeRule = SizeRule()
    align_corners: bool = False  # of the upsampling of logits
    stage_strides: tuple[int, ...] = ()  # of Features.stages

    def __init__(self):
        super().__init__()
        self.normalize: nn.Module = nn.Identity()

    def encode(self, frame: Tensor) -> Features:
        """frame (B, 3, H, W) RGB in [0, 1] -> Features."""
        raise NotImplementedError

    def embed(self, features: Features) -> Tensor:
        """Features -> the map (B, E, h', w') the classifier reads."""
        raise NotImplementedError

    def classify(self, embedding: Tensor) -> Tensor:
        """(B, E, h', w') -> logits (B, K, h'', w'')."""
        raise NotImplementedError

    def decode(self, features: Features) -> Tensor:
        """Features -> logits (B, K, h, w) at the network's own resolution."""
        return self.classify(self.embed(features))

    def second_decoder(self, channels: int) -> nn.Module:
        """A new decoder of this network's kind for a map of another width: (B, channels, h, w) -> logits."""
        raise NotImplementedError

    def auxiliary(self, features: Features) -> Tensor | None:
        """Logits of the training-only auxiliary head, or None where the network has none."""
        return None

    def auxiliary_parts(self) -> list[nn.Module]:
        """The modules that only `auxiliary` uses."""
        return []

    def encoder_parts(self) -> list[nn.Module]:
        """The modules --train-encoder and --encoder-eval-mode speak of; all others are the decoder's."""
        raise NotImplementedError

    def key_maps(self) -> list:
        """Published checkpoints this backbone reads (models.keymaps.KeyMap)."""
        return []

    def forward(self, frame: Tensor) -> Tensor:
        """The single-frame network: frame (B, 3, H, W) -> logits (B, K, h, w)."""
        return self.decode(self.encode(frame))
