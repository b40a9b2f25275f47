"""Other ways to read a local memory, for benchmarks/local_attention.py.

Each takes query (1, C, H, W), T keys, T values and the odd side of the window, and gives (1, V, H,
W). Each computes what models.ops.local_attention defines: raw logits, one softmax over all frames,
taps outside the map with logit zero. FlexAttention is in flex_attention_way.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

Maps = list[Tensor]
SIDE = 8  # of the tiles of `sdpa`, in pixels


def unfold(query: Tensor, keys: Maps, values: Maps, size: int) -> Tensor:
    """The textbook form: every window of every frame laid out, one frame at a time."""
    height, width = query.shape[-2:]
    taps = size**2

    def windows(x):
        """(1, C, H, W) -> (C, P^2, H W)."""
        unfolded = F.unfold(x, size, padding=size // 2)  # (1, C P^2, H W)
        return unfolded.view(x.shape[1], taps, height * width)

    q = query.flatten(2).transpose(0, 1)  # (C, 1, H W)
    logits = []
    for key in keys:
        products = q * windows(key)  # (C, P^2, H W)
        logits.append(products.sum(0))
    # One softmax over all frames
    weights = torch.cat(logits).softmax(0)  # (T P^2, H W)
    weights = weights.unflatten(0, (len(keys), taps))
    read = 0
    for weight, value in zip(weights, values, strict=True):
        read = read + (weight * windows(value)).sum(1)  # (V, H W)
    return read.view(1, -1, height, width)


def shifts(query: Tensor, keys: Maps, values: Maps, size: int) -> Tensor:
    """P^2 shifted products per frame, in place; no gradients."""
    height, width = query.shape[-2:]
    weights = query.new_empty(1, len(keys) * size**2, height, width)
    for i, tap in enumerate(shifted(keys, size)):
        torch.sum(query * tap, 1, out=weights[:, i])
    weights = weights.softmax(1)
    read = torch.zeros_like(values[0])
    for i, tap in enumerate(shifted(values, size)):
        read.addcmul_(weights[:, i : i + 1], tap)
    return read


def shifted(maps: Maps, size: int) -> Iterator[Tensor]:
    """Maps (1, C, H, W) -> P^2 views of each with its border of zeros, dy before dx."""
    height, width = maps[0].shape[-2:]
    for x in maps:
        padded = F.pad(x, (size // 2,) * 4)
        for top in range(size):
            for left in range(size):
                yield padded[..., top : top + height, left : left + width]


def sdpa(query: Tensor, keys: Maps, values: Maps, size: int) -> Tensor:
    """PyTorch's fused attention tile by tile, with an additive mask."""
    height, width = query.shape[-2:]
    radius = size // 2
    # Fused kernels want keys and queries as wide as values
    channels = values[0].shape[1]
    q = channels_last(query, 0, channels).contiguous()
    k = torch.stack([channels_last(x, radius, channels) for x in keys])
    v = torch.stack([channels_last(x, radius, channels) for x in values])
    mask = tile_mask(size, len(keys), query.dtype)
    span = SIDE + size - 1  # cells that a tile sees, along one side
    read = query.new_empty(*q.shape)
    for y in range(0, height, SIDE):
        for x in range(0, width, SIDE):
            # Maps have a border of zeros: what a tile sees begins at its own place
            tile = (slice(y, y + SIDE), slice(x, x + SIDE))
            cells = (slice(None), slice(y, y + span), slice(x, x + span))
            pixels = q[tile].reshape(1, 1, -1, channels)  # (1, 1 head, SIDE^2, V)
            seen_keys = k[cells].reshape(1, 1, -1, channels)  # (1, 1, T cells, V)
            seen_values = v[cells].reshape(1, 1, -1, channels)
            out = F.scaled_dot_product_attention(
                pixels, seen_keys, seen_values, attn_mask=mask, scale=1.0
            )
            read[tile] = out.view(SIDE, SIDE, channels)
    inside = read[:height, :width]  # without what fills up the last tiles
    return inside.permute(2, 0, 1)[None]


def channels_last(x: Tensor, border: int, channels: int) -> Tensor:
    """(1, C, H, W) with a border of zeros, padded to whole tiles -> (height, width, channels)."""
    height, width = x.shape[-2:]
    below = border + -height % SIDE
    right = border + -width % SIDE
    lacking = channels - x.shape[1]
    padded = F.pad(x, (border, right, border, below, 0, lacking))
    return padded[0].permute(1, 2, 0)


@lru_cache(maxsize=8)
def tile_mask(size: int, frames: int, dtype: torch.dtype) -> Tensor:
    """(SIDE^2, T cells): 0 in the window of a pixel, else -inf."""
    cells = torch.arange(SIDE + size - 1)
    pixels = torch.arange(SIDE)
    distance = cells - pixels[:, None]
    near = (distance >= 0) & (distance < size)  # (SIDE, SIDE + P - 1), of rows or columns
    near_rows = near[:, None, :, None]
    near_columns = near[None, :, None, :]
    seen = (near_rows & near_columns).flatten(2).flatten(0, 1)  # (SIDE^2, cells)
    mask = torch.zeros(seen.shape, dtype=dtype)
    mask.masked_fill_(~seen, float("-inf"))
    return mask.repeat(1, frames)


# Packages that may be installed


def natten(query: Tensor, keys: Maps, values: Maps, size: int) -> Tensor:
    """NATTEN on maps with a border of zeros, cropped after; frames are merged.

    The border is needed since NATTEN's windows shift inwards at borders.
    """
    from natten.functional import merge_attentions, na2d

    radius = size // 2

    def laid_out(x):
        """(1, C, H, W) -> (1, H + 2r, W + 2r, 1 head, C)."""
        padded = F.pad(x, (radius,) * 4)
        return padded.permute(0, 2, 3, 1)[:, :, :, None].contiguous()

    q = laid_out(query)
    outs = []
    sums = []
    options = {"kernel_size": size, "scale": 1.0, "return_lse": True}
    for key, value in zip(keys, values, strict=True):
        out, log_sum = na2d(q, laid_out(key), laid_out(value), **options)
        outs.append(out)
        sums.append(log_sum)
    read = outs[0]
    if len(outs) > 1:
        read = merge_attentions(outs, sums)[0]
    inside = read[:, radius:-radius, radius:-radius, 0]  # (1, H, W, V)
    return inside.permute(0, 3, 1, 2)


def correlation_only(query: Tensor, keys: Maps, values: Maps, size: int) -> Tensor:
    """spatial-correlation-sampler: the logits alone, neither softmax nor values."""
    from spatial_correlation_sampler import spatial_correlation_sample

    logits = []
    for key in keys:
        logits.append(spatial_correlation_sample(query, key, kernel_size=1, patch_size=size))
    return torch.stack(logits)
