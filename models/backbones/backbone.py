"""The contract of a backbone: the single-frame network that any method builds on.

    frame -- encode --> Features -- embed --> embedding -- classify --> logits
                           |
                           +-- auxiliary --> logits (training only)

A method never asks which backbone it has. Differences between backbones are attributes (`channels`,
`stride`, `size_rule`, `align_corners`) and methods. Frames come in as RGB in [0, 1]; the network
normalises them by its own submodule `normalize`.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Features(NamedTuple):
    """Maps of one frame. Memory methods read `last`; each backbone says which map that is."""

    last: Tensor  # (B, F, h, w)
    stages: tuple[Tensor, ...] = ()  # of the encoder, finest first, where the backbone offers them


@dataclass(frozen=True)
class SizeRule:
    """Sides that work: multiple * n + offset, n >= 1. The engine pads frames up to the next one."""

    multiple: int = 1
    offset: int = 0

    def fit(self, side: int) -> int:
        """The smallest side >= `side` that works."""
        steps = -((self.offset - side) // self.multiple)  # rounded up
        return max(steps, 1) * self.multiple + self.offset

    def __str__(self) -> str:
        if self.offset:
            return f"{self.multiple}n+{self.offset}"
        return f"a multiple of {self.multiple}"


class Normalize(nn.Module):
    """(x - mean) / std per channel, for frames (B, 3, H, W) in [0, 1]."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]):
        super().__init__()
        # Not persistent: published state dicts have no such entries
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, frame: Tensor) -> Tensor:
        return (frame - self.mean) / self.std


def imagenet_normalize() -> Normalize:
    """Mean and standard deviation of ImageNet's RGB channels."""
    return Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Backbone(nn.Module):
    """Base class. A subclass sets the attributes and gives encode, embed and classify."""

    num_outputs: int  # channels of the logits
    learned_ignore: bool = False  # whether the last of them stands for "ignore"
    channels: int  # F of Features.last
    stride: int  # H / h of Features.last
    size_rule: SizeRule = SizeRule()
    align_corners: bool = False  # of the upsampling of logits
    stage_strides: tuple[int, ...] = ()  # of Features.stages
    # Channels of Features.stages and of the embedding, where there are maps at 1/4 to 1/32
    stage_channels: tuple[int, ...] = ()
    embedding_channels: int | None = None
    # Whether losses bring the labels to the size of the logits, instead of the logits to that of
    # the labels. Published for ERFNet's shallow decoder.
    loss_at_logits: bool = False

    def __init__(self):
        super().__init__()
        # A child of every backbone, so that golden tests can replace all of them by an identity
        self.normalize: nn.Module = nn.Identity()

    @classmethod
    def from_args(cls, num_classes: int, args: Namespace) -> Backbone:
        """The network that parsed options (main.parse_args) ask for.

        num_classes: as evaluated, without "ignore". This is the only place that sees options.
        """
        return cls(num_classes)

    def encode(self, frame: Tensor) -> Features:
        """frame (B, 3, H, W) RGB in [0, 1] -> Features."""
        raise NotImplementedError

    def embed(self, features: Features) -> Tensor:
        """Features -> the map (B, E, h', w') that the classifier reads."""
        raise NotImplementedError

    def classify(self, embedding: Tensor) -> Tensor:
        """(B, E, h', w') -> logits (B, K, h'', w'')."""
        raise NotImplementedError

    def decode(self, features: Features) -> Tensor:
        """Features -> logits (B, K, h, w) at the network's own resolution."""
        return self.classify(self.embed(features))

    def second_decoder(self, channels: int) -> nn.Module:
        """A new decoder of this network's kind, for a map (B, channels, h, w) -> logits."""
        raise NotImplementedError

    def auxiliary(self, features: Features) -> Tensor | None:
        """Logits of the training-only auxiliary head, or None where the network has none."""
        return None

    def auxiliary_parts(self) -> list[nn.Module]:
        """The modules that only `auxiliary` uses."""
        return []

    def encoder_parts(self) -> list[nn.Module]:
        """The modules that --train-encoder and --encoder-eval-mode are about.

        All other modules belong to the decoder.
        """
        raise NotImplementedError

    def undecayed(self) -> Iterable[nn.Parameter]:
        """The parameters that weight decay leaves alone, as published."""
        return ()

    def follow_keys(self, keys: Collection[str]) -> None:
        """Become the variant that a file with these keys is of, where there are several."""

    def key_maps(self) -> list:
        """Published checkpoints that this backbone reads (models.keymaps.KeyMap)."""
        return []

    def forward(self, frame: Tensor) -> Tensor:
        """The single-frame network: frame (B, 3, H, W) -> logits (B, K, h, w)."""
        return self.decode(self.encode(frame))
