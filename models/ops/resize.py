"""Resizing of maps: by the areas of their cells, or bilinear as networks were published."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """x (B, C, h, w) -> (B, C, *size): bilinear, or where that is smaller the mean of each area."""
    if x.shape[-2:] == tuple(size):
        return x
    if x.shape[-1] > size[-1]:
        return F.interpolate(x, size=tuple(size), mode="area")
    return F.interpolate(x, size=tuple(size), mode="bilinear")


def resize_bilinear(x: Tensor, size: Sequence[int]) -> Tensor:
    """x (B, C, h, w) -> (B, C, *size): bilinear, smaller sizes too; corners are not aligned."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


def resize_aligned(x: Tensor, size: Sequence[int]) -> Tensor:
    """x (B, C, h, w) -> (B, C, *size): bilinear, the centres of the corner cells kept."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=True)
