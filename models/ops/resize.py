"""Resizing of maps whose cells are areas of a frame."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """x (B, C, h, w) -> (B, C, *size): bilinear, or where that is smaller the mean of each area."""
    if x.shape[-2:] == tuple(size):
        return x
    if x.shape[-1] > size[-1]:
        return F.interpolate(x, size=tuple(size), mode="area")
    return F.interpolate(x, size=tuple(size), mode="bilinear")
