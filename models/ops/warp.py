"""Backward warping: what a map shows where the flow points.

    out(p) = x(p + flow(p)), bilinear between cells

align_corners follows torch.nn.functional.grid_sample. GSVNet (SwNet-seq) builds its grid for True
and leaves the argument unset, which means True up to torch 1.2 and False since. With False a flow
of zero is not the identity, so True is the default; the other is for published numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(x: Tensor, flow: Tensor, align_corners: bool = True, padding: str = "zeros") -> Tensor:
    """x (B, C, h, w), flow (B, 2, h, w) in cells of x, channel 0 to the right -> (B, C, h, w).

    padding: what lies outside of x, "zeros" or "border" (its nearest cell). Half precision is
    widened within: a place among a hundred cells would be off by a tenth of a cell.
    """
    if x.shape[-2:] != flow.shape[-2:]:
        raise ValueError(
            f"flow on a grid of {tuple(flow.shape[-2:])} cannot warp a map of "
            f"{tuple(x.shape[-2:])}: resize_flow brings it there"
        )
    kind = torch.promote_types(x.dtype, torch.float32)
    warped = F.grid_sample(
        x.to(kind),
        sampling_grid(flow.to(kind)),
        mode="bilinear",
        padding_mode=padding,
        align_corners=align_corners,
    )
    return warped.to(x.dtype)


def sampling_grid(flow: Tensor) -> Tensor:
    """flow (B, 2, h, w) in cells -> (B, h, w, 2): places in [-1, 1], as grid_sample reads them."""
    height, width = flow.shape[-2:]
    kind = {"dtype": flow.dtype, "device": flow.device}
    across = torch.linspace(-1, 1, width, **kind) + 2 * flow[:, 0] / max(width - 1, 1)
    down = torch.linspace(-1, 1, height, **kind)[:, None] + 2 * flow[:, 1] / max(height - 1, 1)
    return torch.stack([across, down], dim=-1)


def resize_flow(flow: Tensor, size: tuple[int, int], cells_of: tuple[int, int]) -> Tensor:
    """flow (B, 2, h', w') in cells of a grid of `cells_of` -> (B, 2, *size) in cells of `size`.

    cells_of is the frame's size for flow in pixels, whatever grid it lies on.
    """
    height, width = size
    if flow.shape[-2:] != tuple(size):
        flow = F.interpolate(flow, tuple(size), mode="bilinear", align_corners=False)
    return scale_flow(flow, width / cells_of[1], height / cells_of[0])


def scale_flow(flow: Tensor, across: float, down: float) -> Tensor:
    """flow (B, 2, h, w), its two channels times these factors."""
    # By plain numbers: a tensor of them would have to be copied to a GPU, which no graph can hold.
    return torch.stack([flow[:, 0] * across, flow[:, 1] * down], 1)
