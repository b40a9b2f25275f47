"""Other ways to read a local memory, for benchmarks/local_attention.py.

Each takes query (1, C, H, W), T keys, T values and the odd side of the window, and gives (1, V, H, W); each computes
what models.ops.local_attention defines: raw logits, one softmax over all frames, taps outside the map with logit zero.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

Maps = list[Tensor]
SIDE = 8  # of the tiles of SDPA and FlexAttention


def unfold(query: Tensor, keys: Maps, values: Maps, size: int) -> Tensor:
    """The textbook form: every window of every frame laid out, one frame at a time."""
    height, width = query.shape[-2:]

    def windows(x):
        return F.unfold(x, size, padding=size // 2).view(x.shape[1], size**2, height * width)

    q = query.flatten(2).transpose(0, 1)  # (C, 1, H W)
    weights = torch.stack([(q * windows(key)).sum(0) for key in keys]).flatten(0, 1).softmax(0)
    parts = weights.unflatten(0, (len(keys), size**2))
    read = sum((part * windows(value)).sum(1) for part, value in zip(parts, values, strict=True))
    return read.view(1, -1, height, width)


def shifts(query: Tensor, keys: Maps, values: Maps, size: int) -> Tensor:
    """P^2 shifted products per frame, in place; no gradients."""
    (height, width), radius = query.shape[-2:], size // 2

    def taps(maps):
        for x in maps:
            padded = F.pad(x, (radius,) * 4)
            for top in range(size):
                for left in range(size):
                    yield padded[..., top : top + height, left : left + width]

    weights = query.new_empty(1, len(keys) * size**2, height, width)
    for i, tap in enumerate(taps(keys)):
        torch.sum(query * tap, 1, out=weights[:, i])
    weights = weights.softmax(1)
    read = torch.zeros_like(values[0])
    for i, tap in enumerate(taps(values)):
        read.addcmul_(weights[:, i : i + 1], tap)
    return read


def sdpa(query: Tensor, keys: Maps, values: Maps, size: int) -> Tensor:
    """torch's fused attention tile by tile, with an additive mask; keys are padded to as many channels as values."""
    (height, width), radius = query.shape[-2:], size // 2
    below, right = -height % SIDE, -width % SIDE
    channels = values[0].shape[1]

    def rows(x, border):
        lacking = channels - x.shape[1]
        return F.pad(x, (border, border + right, border, border + below, 0, lacking))[0].permute(
            1, 2, 0
        )

    q = rows(query, 0).contiguous()
    k, v = (torch.stack([rows(x, radius) for x in maps]) for maps in (keys, values))
    mask = tile_mask(size, len(keys), query.dtype)
    read = query.new_empty(*q.shape)
    for y in range(0, height, SIDE):
        for x in range(0, width, SIDE):
            seen = [
                m[:, y : y + SIDE + size - 1, x : x + SIDE + size - 1].reshape(1, 1, -1, channels)
                for m in (k, v)
            ]
            pixels = q[y : y + SIDE, x : x + SIDE].reshape(1, 1, -1, channels)
            out = F.scaled_dot_product_attention(pixels, *seen, attn_mask=mask, scale=1.0)
            read[y : y + SIDE, x : x + SIDE] = out.view(SIDE, SIDE, channels)
    return read[:height, :width].permute(2, 0, 1)[None]


@lru_cache(maxsize=8)
def tile_mask(size: int, frames: int, dtype: torch.dtype) -> Tensor:
    """(SIDE^2, T cells): 0 in the window of a pixel, else -inf."""
    distance = torch.arange(SIDE + size - 1) - torch.arange(SIDE)[:, None]
    near = (distance >= 0) & (distance < size)
    seen = (near[:, None, :, None] & near[None, :, None, :]).flatten(2).flatten(0, 1)
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf")).repeat(1, frames)


# FlexAttention


def tiled_order(x: Tensor, border: int) -> Tensor:
    """(1, C, H, W) with a zero border, padded to whole tiles -> (1, 1, tiles SIDE^2, C), tile after tile."""
    height, width = (side + 2 * border for side in x.shape[-2:])
    x = F.pad(x, (border, border + -width % SIDE, border, border + -height % SIDE))
    x = x[0].unflatten(2, (-1, SIDE)).unflatten(1, (-1, SIDE))  # (C, ty, SIDE, tx, SIDE)
    return x.permute(1, 3, 2, 4, 0).reshape(1, 1, -1, x.shape[0])


@lru_cache(maxsize=8)
def block_mask(size: int, frames: int, height: int, width: int, device: torch.device):
    """Which tiles of keys a tile of queries sees: known from their places; `create_block_mask` takes half a minute."""
    from torch.nn.attention.flex_attention import BlockMask

    rows, columns = -(-height // SIDE), -(-width // SIDE)
    krows, kcolumns = (-(-(side + size - 1) // SIDE) for side in (height, width))
    reach = -(-(SIDE + size - 1) // SIDE)  # tiles that a window touches
    cells, queries = SIDE**2, rows * columns * SIDE**2

    def places(tiles, per_row):
        index = torch.arange(tiles * cells, device=device)
        tile, inner = index // cells, index % cells
        return tile // per_row * SIDE + inner // SIDE, tile % per_row * SIDE + inner % SIDE

    (ys, xs), (kys, kxs) = places(rows * columns, columns), places(krows * kcolumns, kcolumns)
    kys, kxs = kys.repeat(frames), kxs.repeat(frames)

    def seen(b, h, q, k):
        dy, dx = kys[k] - ys[q], kxs[k] - xs[q]
        return (dy >= 0) & (dy < size) & (dx >= 0) & (dx < size)

    offsets = [(t, dy, dx) for t in range(frames) for dy in range(reach) for dx in range(reach)]
    indices = torch.zeros(rows * columns, frames * krows * kcolumns, dtype=torch.int32)
    counts = torch.zeros(rows * columns, dtype=torch.int32)
    for i in range(rows * columns):
        y, x = divmod(i, columns)
        tiles = [
            (t * krows + y + dy) * kcolumns + x + dx
            for t, dy, dx in offsets
            if y + dy < krows and x + dx < kcolumns
        ]
        indices[i, : len(tiles)], counts[i] = torch.tensor(tiles, dtype=torch.int32), len(tiles)
    lengths = queries, frames * krows * kcolumns * cells
    return BlockMask.from_kv_blocks(
        counts[None, None].to(device),
        indices[None, None].to(device),
        BLOCK_SIZE=(cells, cells),
        mask_mod=seen,
        seq_lengths=lengths,
    )


@lru_cache(maxsize=1)
def compiled_flex():
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def flex(query: Tensor, keys: Maps, values: Maps, size: int) -> Tensor:
    """Compiled FlexAttention on pixels in tile order, keys and values with an explicit border of zeros."""
    (height, width), radius = query.shape[-2:], size // 2
    q, k, v = (
        torch.cat([tiled_order(x, border) for x in maps], 2)
        for maps, border in (([query], 0), (keys, radius), (values, radius))
    )
    mask = block_mask(size, len(keys), height, width, query.device)
    read = compiled_flex()(q, k, v, block_mask=mask, scale=1.0)[0, 0]
    rows, columns = -(-height // SIDE), -(-width // SIDE)
    read = read.view(rows, columns, SIDE, SIDE, -1).permute(4, 0, 2, 1, 3).flatten(3).flatten(1, 2)
    return read[None, :, :height, :width]


# Packages that may be installed


def natten(query: Tensor, keys: Maps, values: Maps, size: int) -> Tensor:
    """NATTEN, whose windows shift inwards at borders: on zero-padded maps, cropped after; frames merged."""
    from natten.functional import merge_attentions, na2d

    radius = size // 2
    q, *memory = (
        F.pad(x, (radius,) * 4).permute(0, 2, 3, 1)[:, :, :, None].contiguous()
        for x in (query, *keys, *values)
    )
    parts = [
        na2d(q, k, v, kernel_size=size, scale=1.0, return_lse=True)
        for k, v in zip(memory[: len(keys)], memory[len(keys) :], strict=True)
    ]
    read = (
        merge_attentions([out for out, _ in parts], [lse for _, lse in parts])[0]
        if len(parts) > 1
        else parts[0][0]
    )
    return read[:, radius:-radius, radius:-radius, 0].permute(0, 3, 1, 2)


def correlation_only(query: Tensor, keys: Maps, values: Maps, size: int) -> Tensor:
    """spatial-correlation-sampler: the logits alone, neither softmax nor values; not comparable in its result."""
    from spatial_correlation_sampler import spatial_correlation_sample

    return torch.stack(
        [spatial_correlation_sample(query, key, kernel_size=1, patch_size=size) for key in keys]
    )
