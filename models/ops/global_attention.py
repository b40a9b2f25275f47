"""Global attention: every pixel attends to every cell of several remembered frames.

As in STM (Oh et al., ICCV 2019). It is one call of PyTorch's fused attention, which never holds all
weights: at 1024x2048 and stride 8 those of two frames would be 8 GiB.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LARGE = 1 << 24  # numbers: 64 MB of values


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
    if constant is not None:
        q, k = add_constant_cell(q, k, constant / scale)
    channels = values[0].shape[1]
    step = values_at_once(query.shape[1], channels, k.shape[2])
    # Fused kernels want an axis of heads, and keys as wide as values. Channels of zeros change
    # neither products nor sums.
    widest = max(q.shape[-1], step)
    q = F.pad(q, (0, widest - q.shape[-1]))
    k = F.pad(k, (0, widest - k.shape[-1]))
    reads = []
    for first in range(0, channels, step):
        v = rows([x[:, first : first + step] for x in values])  # (B, 1, T H W, step)
        # The constant's cell has a value of zero
        v = F.pad(v, (0, widest - v.shape[-1], 0, k.shape[2] - v.shape[2]))
        read = F.scaled_dot_product_attention(q, k, v, scale=scale)
        reads.append(read[:, 0, :, : min(step, channels - first)])  # (B, H W, step)
    read = reads[0] if len(reads) == 1 else torch.cat(reads, -1)
    return read.transpose(1, 2).unflatten(2, (height, width))


def values_at_once(keys: int, channels: int, cells: int) -> int:
    """How many of the `channels` of values are read in one pass, by the channels of keys.

    Keys are padded to as many. Where values are large, several passes need half of the memory: at
    1024x2048 and stride 8, four frames of keys and values of 64 and 256 channels take 200 MB more
    than they are.
    """
    if cells * channels <= LARGE:
        return channels
    return min(2 * keys, channels)


def rows(maps: Sequence[Tensor]) -> Tensor:
    """T maps (B, C, H, W) -> (B, 1, T H W, C)."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)[:, None]


def add_constant_cell(q: Tensor, k: Tensor, product: Tensor) -> tuple[Tensor, Tensor]:
    """One more cell of memory, whose product with every query is `product`.

    An extra channel makes it so: it is 1 in all queries, 0 in all keys but the new one.
    """
    q = F.pad(q, (0, 1), value=1.0)
    k = F.pad(k, (0, 1, 0, 1))
    last = torch.zeros_like(k)
    last[..., -1, -1] = 1
    # Not written in place: the constant learns through this sum
    return q, k + last * product
