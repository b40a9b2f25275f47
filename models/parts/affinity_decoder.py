"""Refines pictures of one channel and merges three scales of them (VSS-MRCFA, section 3.3).

    1/32 -- encoder_layer4 -- up --+
    1/16 -- encoder_layer3 --------+-- encoder_layer4to3 -- up --+
    1/8  -- encoder_layer2 --------------------------------------+-- encoder_layer3to2 --> 1/8

The paper speaks of 4-D convolutions over places of both frames; the published network has only
their half over places of the target: every token's picture is convolved for itself. Published are
two sizes: blocks of one convolution, and, on its second smallest encoder, of two.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.resize import resize_aligned

# (channels in, channels out, side) of the convolutions of each block, by how many a block has.
BLOCKS = {
    1: {
        "encoder_layer4": ((1, 1, 3),),
        "encoder_layer3": ((1, 1, 5),),
        "encoder_layer2": ((1, 1, 5),),
        "encoder_layer4to3": ((1, 1, 3),),
        "encoder_layer3to2": ((1, 1, 3),),
    },
    2: {
        "encoder_layer4": ((1, 1, 3), (1, 2, 3)),
        "encoder_layer3": ((1, 1, 3), (1, 2, 3)),
        "encoder_layer2": ((1, 1, 5), (1, 2, 3)),
        "encoder_layer4to3": ((2, 2, 3), (2, 2, 3)),
        "encoder_layer3to2": ((2, 2, 3), (2, 1, 3)),
    },
}


class PictureConv(nn.Conv2d):
    """x (M, in, h, w) -> (M, out, h, w) of many pictures that have one or two channels.

    On a CPU they are the channels of one picture, convolved in M groups: that takes a third to a
    twentieth of the time.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        pictures = len(x)
        weight = self.weight.repeat(pictures, 1, 1, 1)
        bias = self.bias.repeat(pictures)
        channels = x.reshape(1, -1, *x.shape[2:])  # (1, M in, h, w)
        convolved = F.conv2d(channels, weight, bias, padding=self.padding, groups=pictures)
        return convolved.view(pictures, -1, *x.shape[2:])


def block(convolutions: Sequence[tuple[int, int, int]]) -> nn.Sequential:
    """x (M, in, h, w) -> (M, out, h, w), not negative. Each picture is normalised for itself."""
    layers = []
    for in_channels, channels, side in convolutions:
        layers += [
            PictureConv(in_channels, channels, side, padding=side // 2),
            nn.GroupNorm(1, channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class AffinityDecoder(nn.Module):
    """pictures (M, 1, h, w) at 1/8, 1/16 and 1/32 -> (M, 1, h, w) at 1/8, not negative."""

    def __init__(self, convolutions: int):
        super().__init__()
        for name, layers in BLOCKS[convolutions].items():
            self.add_module(name, block(layers))

    def forward(self, pictures: Sequence[Tensor]) -> Tensor:
        fine, middle, coarse = pictures
        coarse = self.encoder_layer4(coarse)
        middle = self.encoder_layer3(middle)
        middle = self.encoder_layer4to3(resize_aligned(coarse, middle.shape[-2:]) + middle)
        fine = self.encoder_layer2(fine)
        return self.encoder_layer3to2(resize_aligned(middle, fine.shape[-2:]) + fine)
