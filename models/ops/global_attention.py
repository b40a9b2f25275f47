"""Global attention: every pixel attends to every cell of several remembered frames.

As in STM (Oh et al., ICCV 2019). It is one call of PyTorch's fused attention, which never holds all
weights: at 1024x2048 and stride 8 those of two frames would be 8 GiB.
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
    *,
    scale: float | None = None,
) -> Tensor:
    """query (B, C, H, W), T keys (B, C, H, W), T values (B, V, H, W) -> (B, V, H, W).

    constant: a scalar tensor, an extra logit with a value of zero. scale: of the products of keys,
    1 / sqrt(C) by default. Cells are ordered (t, y, x).
    """
    height, width = query.shape[-2:]
    if scale is None:
        scale = query.shape[1] ** -0.5
    q = rows([query])  # (B, 1, H W, C)
    k = rows(keys)  # (B, 1, T H W, C)
    v = rows(values)  # (B, 1, T H W, V)
    if constant is not None:
        q, k, v = add_constant_cell(q, k, v, constant / scale)
    # Fused kernels want an axis of heads, and keys as wide as values. Channels of zeros change
    # neither products nor sums.
    channels = v.shape[-1]
    widest = max(q.shape[-1], channels)
    q, k, v = (F.pad(x, (0, widest - x.shape[-1])) for x in (q, k, v))
    read = F.scaled_dot_product_attention(q, k, v, scale=scale)[:, 0, :, :channels]  # (B, H W, V)
    return read.transpose(1, 2).unflatten(2, (height, width))


def rows(maps: Sequence[Tensor]) -> Tensor:
    """T maps (B, C, H, W) -> (B, 1, T H W, C)."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)[:, None]


def add_constant_cell(
    q: Tensor, k: Tensor, v: Tensor, product: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One more cell of memory, whose value is 0 and whose product with every query is `product`.

    An extra channel makes it so: it is 1 in all queries, 0 in all keys but the new one.
    """
    q = F.pad(q, (0, 1), value=1.0)
    k = F.pad(k, (0, 1, 0, 1))
    v = F.pad(v, (0, 0, 0, 1))
    last = torch.zeros_like(k)
    last[..., -1, -1] = 1
    # Not written in place: the constant learns through this sum
    return q, k + last * product, v
