"""Guided spatially-varying filtering: mends a warped prediction by what the frame shows.

    picture -- intra --> I          logits that the frame alone gives
    warped M -- edge --> E          where its classes change
    I, E -- guide --> 11 weights per pixel, of sum 1:
                      M itself, M moved by one cell in 8 directions, nothing, I
    out = their weighted sum

(Lee et al., GSVNet, arXiv 2103.08834; SwNet-seq is the same network.) All of it lies on the grid of
the small picture, 1/8 of the frame. The ninth kernel is all zeros: its weight is what is given up.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.resize import resize_aligned

SIDE = 3  # of a kernel
KERNELS = SIDE * SIDE
WEIGHTS = 1 + KERNELS + 1  # the warped map, its filtered copies, the frame's own logits
EPSILON = 1e-9


def conv_bn_relu(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, padding=1),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def moving_kernels() -> Tensor:
    """(9, 1, 1, 3, 3): a one at each of the eight places around the centre; the last is empty."""
    kernels = torch.zeros(KERNELS, SIDE * SIDE)
    around = [place for place in range(SIDE * SIDE) if place != SIDE * SIDE // 2]
    for kernel, place in enumerate(around):
        kernels[kernel, place] = 1
    return kernels.view(KERNELS, 1, 1, SIDE, SIDE)


def class_edges(logits: Tensor) -> Tensor:
    """logits (B, K, h, w) -> (B, 1, h, w): 1 where a neighbour has another class, else 0.

    As published: what surrounds the map counts as class 0, and a sum of differences of class ids
    may happen to be 0 on an edge.
    """
    classes = logits.max(1, keepdim=True).indices.to(logits.dtype)
    laplacian = torch.ones(1, 1, 3, 3, dtype=logits.dtype, device=logits.device)
    laplacian[..., 1, 1] = -8
    return (F.conv2d(classes, laplacian, padding=1) != 0).to(logits.dtype)


class Guide(nn.Module):
    """(B, C, h, w) -> (B, 11, h, w): weights of sum 1, or of sum 0 where none is above 0."""

    def __init__(self, channels: int):
        super().__init__()
        self.entry = conv_bn_relu(channels, 32)
        self.down1 = conv_bn_relu(32, 64, stride=2)
        self.down2 = conv_bn_relu(64, 128, stride=2)
        self.up1 = conv_bn_relu(128, 64)
        self.up2 = conv_bn_relu(64, 32)
        self.exit = conv_bn_relu(32, WEIGHTS)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.entry(x)
        middle = self.down1(fine)
        coarse = self.down2(middle)
        # Published as a factor of 2; any size works if each map is enlarged to the one it left.
        coarse = self.up1(resize_aligned(coarse, middle.shape[-2:]))
        coarse = self.up2(resize_aligned(coarse, fine.shape[-2:]))
        weights = self.exit(fine + coarse)
        return weights / (weights.sum(1, keepdim=True) + EPSILON)


class GuidedFilter(nn.Module):
    """Mends a warped prediction; has weights for one number of classes."""

    def __init__(self, num_outputs: int, *, edge: bool = True, train_kernels: bool = False):
        """edge: whether the guide sees where classes change."""
        super().__init__()
        self.edge = edge
        self.intra = nn.Sequential(
            *conv_bn_relu(3, 32), *conv_bn_relu(32, 32), nn.Conv2d(32, num_outputs, 3, padding=1)
        )
        self.guide = Guide(num_outputs + int(edge))
        self.kernels = nn.Parameter(moving_kernels(), requires_grad=train_kernels)
        self.apply(initialize)

    def forward(self, warped: Tensor, picture: Tensor) -> Tensor:
        """warped (B, K, h, w) logits, picture (B, 3, h, w) -> (B, K, h, w) logits."""
        own = self.intra(picture)
        seen = own
        if self.edge:
            # No gradient: a class does not change by a little.
            seen = torch.cat([own, class_edges(warped.detach())], dim=1)
        weights = self.guide(seen)
        return self.filter(warped, weights[:, :-1]) + weights[:, -1:] * own

    def filter(self, warped: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of the warped map and its filtered copies: weights (B, 10, h, w).

        One kernel per pixel is made of all kernels first, so that the map is read 9 times instead
        of 81.
        """
        identity = weights.new_zeros(1, SIDE * SIDE)
        identity[0, SIDE * SIDE // 2] = 1
        kernels = torch.cat([identity, self.kernels.view(KERNELS, -1).to(weights.dtype)])
        taps = torch.einsum("bkhw,kt->bthw", weights, kernels)
        height, width = warped.shape[-2:]
        around = F.pad(warped, (1, 1, 1, 1))
        out = torch.zeros_like(warped)
        for tap in range(SIDE * SIDE):
            y, x = divmod(tap, SIDE)
            out = out + taps[:, tap, None] * around[..., y : y + height, x : x + width]
        return out


def initialize(module: nn.Module) -> None:
    """As published: Xavier's normal weights."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight)
