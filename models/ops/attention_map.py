"""Where one pixel looks: the weights of local or global attention as maps over the remembered frames."""

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
    scale: float | None = None,
) -> Tensor:
    """Weights of the cell (y, x) of query (1, C, H, W) over T keys (1, C, H, W) -> (T, H, W).

    size: of the local window, None for global attention, whose `scale` it then is. They sum to 1, less what falls
    outside the map or to the constant. ValueError for a cell outside the map.
    """
    (y, x), (channels, height, width) = cell, query.shape[1:]
    if not (0 <= y < height and 0 <= x < width):
        raise ValueError(f"the cell {y}, {x} lies outside the map of {height}x{width} cells")
    if not keys:
        return query.new_zeros(0, height, width)
    pixel, frames = query[0, :, y, x], torch.cat(list(keys))  # (C,), (T, C, H, W)
    if size is None:
        scale = channels**-0.5 if scale is None else scale
        return softmax_with(torch.einsum("c,tchw->thw", pixel, frames) * scale, constant)
    radius = size // 2
    window = F.pad(frames, (radius,) * 4)[..., y : y + size, x : x + size]
    weights = softmax_with(torch.einsum("c,tcij->tij", pixel, window), constant)
    canvas = F.pad(torch.zeros_like(frames[:, 0]), (radius,) * 4)
    canvas[:, y : y + size, x : x + size] = weights
    return canvas[:, radius : radius + height, radius : radius + width]


def softmax_with(logits: Tensor, constant: Tensor | None) -> Tensor:
    """Softmax over all logits and the constant; the weights of the logits, in their shape."""
    flat = logits.flatten()
    if constant is not None:
        flat = torch.cat([flat, constant.to(flat).reshape(1)])
    return flat.softmax(0)[: logits.numel()].view_as(logits)
