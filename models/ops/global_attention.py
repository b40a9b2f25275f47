"""Attention of every pixel to every cell of several remembered frames, as in STM (Oh et al., ICCV 2019).

It is one call of PyTorch's fused attention, which never holds all weights: at 1024x2048 and stride 8 those of two
frames would be 8 GiB.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def global_attention(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    constant: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """query (B, C, H, W), T keys (B, C, H, W), T values (B, V, H, W) -> (B, V, H, W).

    constant: a scalar tensor, one more logit with a value of zero. scale: of the products of keys, 1 / sqrt(C) by
    default. Cells are ordered (t, y, x).
    """
    height, width = query.shape[-2:]
    q, k, v = rows([query]), rows(keys), rows(values)  # (B, 1, cells, channels)
    scale = query.shape[1] ** -0.5 if scale is None else scale
    if constant is not None:  # a cell more, told from the others by a channel more
        q, k, v = F.pad(q, (0, 1), value=1.0), F.pad(k, (0, 1, 0, 1)), F.pad(v, (0, 0, 0, 1))
        last = torch.zeros_like(k)
        last[..., -1, -1] = 1
        k = k + last * (constant / scale)
    # Fused kernels want one head, named, and keys as wide as values: zeros change neither products nor sums
    channels, widest = v.shape[-1], max(q.shape[-1], v.shape[-1])
    q, k, v = (F.pad(x, (0, widest - x.shape[-1])) for x in (q, k, v))
    read = F.scaled_dot_product_attention(q, k, v, scale=scale)[:, 0, :, :channels]  # (B, H W, V)
    return read.transpose(1, 2).unflatten(2, (height, width))


def rows(maps: Sequence[Tensor]) -> Tensor:
    """T maps (B, C, H, W) -> (B, 1, T H W, C)."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)[:, None]
