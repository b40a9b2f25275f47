"""The weights of one pixel, in local or global attention, as maps over the remembered frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def attention_map(
    query: Tensor,
    keys: Sequence[Tensor],
    cell: tuple[int, int],
    size: int | None,
    constant: Tensor | None = None,
    *,
    scale: float | None = None,
) -> Tensor:
    """Weights of the cell (y, x) of query (1, C, H, W) over T keys (1, C, H, W) -> (T, H, W).

    size: of the local window; None means global attention. constant: as in the attention. scale: of
    global attention, 1 / sqrt(C) by default. The weights sum to 1, less what falls outside the map
    or to the constant. ValueError for a cell outside the map.
    """
    y, x = cell
    channels, height, width = query.shape[1:]
    if not (0 <= y < height and 0 <= x < width):
        raise ValueError(f"the cell {y}, {x} lies outside the map of {height}x{width} cells")
    if not keys:
        return query.new_zeros(0, height, width)
    pixel = query[0, :, y, x]  # (C,)
    frames = torch.cat(list(keys))  # (T, C, H, W)
    if size is not None:
        return local_map(pixel, frames, cell, size, constant)
    if scale is None:
        scale = channels**-0.5
    logits = torch.einsum("c,tchw->thw", pixel, frames) * scale
    return softmax_with(logits, constant)


def local_map(
    pixel: Tensor, frames: Tensor, cell: tuple[int, int], size: int, constant: Tensor | None
) -> Tensor:
    """pixel (C,) at `cell`, keys (T, C, H, W) -> weights (T, H, W), 0 outside the window."""
    y, x = cell
    height, width = frames.shape[-2:]
    radius = size // 2
    border = (radius,) * 4
    # Taps outside the map take part with a key of zero, as in local attention
    window = F.pad(frames, border)[..., y : y + size, x : x + size]  # (T, C, P, P)
    weights = softmax_with(torch.einsum("c,tcij->tij", pixel, window), constant)
    # The map with its border: the window fits in wherever the cell is
    canvas = F.pad(torch.zeros_like(frames[:, 0]), border)  # (T, H + 2r, W + 2r)
    canvas[:, y : y + size, x : x + size] = weights
    return canvas[:, radius : radius + height, radius : radius + width]


def softmax_with(logits: Tensor, constant: Tensor | None) -> Tensor:
    """Softmax over all logits and the constant -> the weights of the logits, in their shape."""
    flat = logits.flatten()
    if constant is not None:
        flat = torch.cat([flat, constant.to(flat).reshape(1)])
    return flat.softmax(0)[: logits.numel()].view_as(logits)
