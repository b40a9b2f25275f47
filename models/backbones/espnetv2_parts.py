"""What ESPNetv2 is made of (Mehta et al., CVPR 2019; the decoder: Mehta et al., EdgeNets).

Units of the encoder with four dilations side by side, and the two blocks of the decoder: pyramid
pools and gated merges. PReLU has a slope per channel; published slopes may be negative or above 1.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.resize import resize_aligned

BRANCHES = 4  # dilations of a unit, and groups of its 1x1 convolutions
SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)  # of the maps of a pyramid pool, in the order of its weights
MIN_SIDE = 5  # cells, of those maps


def halve(x: Tensor) -> Tensor:
    """x (B, C, h, w) -> (B, C, h/2, w/2), rounded up: means of 3x3, the zeros outside count."""
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=True)


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution without a bias, batch norm."""
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding=kernel_size // 2,
        groups=groups,
        bias=False,
    )
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels)))


def conv_bn_act(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution without a bias, batch norm, PReLU."""
    layers = conv_bn(in_channels, out_channels, kernel_size, stride=stride, groups=groups)
    layers.add_module("act", nn.PReLU(out_channels))
    return layers


def bn_act(channels: int) -> nn.Sequential:
    """Batch norm, PReLU."""
    return nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(channels), act=nn.PReLU(channels)))


class SpatialPyramid(nn.Module):
    """x (B, in, h, w) -> (B, out, h, w), or half the sides: four dilations of one narrow map.

    Each branch is added to the sum of those before it, the smallest dilation first, so that large
    ones leave no grid in the result (the paper's hierarchical feature fusion). It ends in a batch
    norm, without an activation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, dilations: Sequence[int], stride: int = 1
    ):
        super().__init__()
        narrow = out_channels // BRANCHES
        self.proj_1x1 = conv_bn_act(in_channels, narrow, 1, groups=BRANCHES)
        self.spp_dw = nn.ModuleList(
            nn.Conv2d(narrow, narrow, 3, stride, dilation, dilation, groups=narrow, bias=False)
            for dilation in dilations
        )
        self.br_after_cat = bn_act(out_channels)
        self.conv_1x1_exp = conv_bn(out_channels, out_channels, 1, groups=BRANCHES)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.proj_1x1(x)  # (B, out / 4, h, w)
        total = self.spp_dw[0](narrow)
        sums = [total]
        for branch in self.spp_dw[1:]:
            total = total + branch(narrow)
            sums.append(total)
        return self.conv_1x1_exp(self.br_after_cat(torch.cat(sums, 1)))


class Unit(SpatialPyramid):
    """x (B, C, h, w) -> the same shape: a residual unit (EESP)."""

    def __init__(self, channels: int, dilations: Sequence[int]):
        super().__init__(channels, channels, dilations)
        self.module_act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.module_act(super().forward(x) + x)


class StridedUnit(nn.Module):
    """x (B, in, h, w), image (B, 3, h/2, w/2) -> (B, out, h/2, w/2).

    The pooled x, and beside it what a pyramid adds; the image reinforces both.
    """

    def __init__(self, in_channels: int, out_channels: int, dilations: Sequence[int]):
        super().__init__()
        self.eesp = SpatialPyramid(in_channels, out_channels - in_channels, dilations, stride=2)
        self.inp_reinf = nn.Sequential(conv_bn_act(3, 3, 3), conv_bn(3, out_channels, 1))
        self.act = nn.PReLU(out_channels)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        strided = torch.cat([halve(x), self.eesp(x)], 1)
        return self.act(strided + self.inp_reinf(image))


class GatedMerge(nn.Module):
    """A map of the encoder (B, in, h, w) -> (B, out, h, w), each channel weighed by a gate.

    The gate sees the mean of the whole map: every pixel depends on the whole frame.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        groups = math.gcd(in_channels, out_channels)
        self.wt_layer = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.expansion_layer = conv_bn_act(in_channels, out_channels, 3, groups=groups)

    def gate(self, x: Tensor) -> Tensor:
        """x (B, in, h, w) -> (B, out, 1, 1)."""
        return self.wt_layer(F.adaptive_avg_pool2d(x, 1)).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.expansion_layer(x) * self.gate(x)


class PyramidPool(nn.Module):
    """x (B, in, h, w) -> (B, out, h, w): one narrow map, convolved at five sizes of the map.

    `last` is for logits: it ends in a convolution with a bias, else in batch norm and PReLU.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int, *, last: bool = False):
        """width: channels of the narrow map."""
        super().__init__()
        self.projection_layer = conv_bn_act(in_channels, width, 1)
        self.stages = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False) for _ in SCALES
        )
        # The positions are part of the published names
        self.merge_layer = nn.Sequential(
            bn_act(width * len(SCALES)),
            nn.Identity(),  # published: the shuffle that AcrossScales does without
            nn.Sequential(
                OrderedDict(conv=AcrossScales(width), bn=nn.BatchNorm2d(width), act=nn.PReLU(width))
            ),
            nn.Conv2d(width, out_channels, 1, bias=last),
        )
        self.br = nn.Identity() if last else bn_act(out_channels)

    def embed(self, x: Tensor) -> Tensor:
        """x (B, in, h, w) -> (B, width, h, w): all but the last convolution."""
        x = self.projection_layer(x)
        pairs = zip(SCALES, self.stages, strict=True)
        maps = [at_scale(x, scale, convolve) for scale, convolve in pairs]
        return self.merge_layer[:-1](torch.cat(maps, 1))

    def classify(self, embedding: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, out, h, w)."""
        return self.br(self.merge_layer[-1](embedding))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.embed(x))


def at_scale(x: Tensor, scale: float, convolve: nn.Module) -> Tensor:
    """x (B, C, h, w), convolved at `scale` times its size, then back -> (B, C, h, w)."""
    size = x.shape[-2:]
    if scale == 1:
        return convolve(x)
    scaled = [max(MIN_SIDE, math.ceil(scale * side)) for side in size]
    if scale > 1:
        return F.adaptive_avg_pool2d(convolve(resize_aligned(x, scaled)), size)
    return resize_aligned(convolve(F.adaptive_avg_pool2d(x, scaled)), size)


class AcrossScales(nn.Conv2d):
    """x (B, 5 C, h, w), scale after scale -> (B, C, h, w): each channel from its five scales.

    Published as a shuffle to the order of channels, then a convolution of C groups. The sum of five
    depthwise convolutions is the same, and a third of the time: nothing is moved in memory.
    """

    def __init__(self, channels: int):
        total = channels * len(SCALES)
        super().__init__(total, channels, 3, padding=1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        maps = x.split(self.out_channels, 1)
        kernels = self.weight.split(1, 1)  # (C, 1, 3, 3) of each scale
        total = self.depthwise(maps[0], kernels[0])
        for map_, kernel in zip(maps[1:], kernels[1:], strict=True):
            total = total + self.depthwise(map_, kernel)
        return total

    def depthwise(self, x: Tensor, kernel: Tensor) -> Tensor:
        return F.conv2d(x, kernel, padding=self.padding, groups=self.groups)
