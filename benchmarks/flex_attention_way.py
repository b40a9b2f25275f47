"""Local attention by compiled FlexAttention, for benchmarks/local_attention.py.

Pixels are in tile order; keys and values have an explicit border of zeros, so that the place of a
tap is that of a cell.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

Maps = list[Tensor]
SIDE = 8  # of a tile, in pixels
CELLS = SIDE**2


def flex(query: Tensor, keys: Maps, values: Maps, size: int) -> Tensor:
    """query (1, C, H, W), T keys, T values -> (1, V, H, W)."""
    height, width = query.shape[-2:]
    radius = size // 2
    q = tiled_order(query, 0)
    k = torch.cat([tiled_order(x, radius) for x in keys], 2)
    v = torch.cat([tiled_order(x, radius) for x in values], 2)
    mask = block_mask(size, len(keys), height, width, query.device)
    read = compiled_flex()(q, k, v, block_mask=mask, scale=1.0)[0, 0]  # (pixels, V)
    read = read.view(tiles_along(height), tiles_along(width), SIDE, SIDE, -1)
    read = read.permute(4, 0, 2, 1, 3).flatten(3).flatten(1, 2)  # (V, rows SIDE, columns SIDE)
    return read[None, :, :height, :width]


def tiles_along(side: int) -> int:
    return -(-side // SIDE)  # rounded up


def tiled_order(x: Tensor, border: int) -> Tensor:
    """(1, C, H, W) with a border of zeros, padded to whole tiles -> (1, 1, tiles SIDE^2, C)."""
    height, width = (side + 2 * border for side in x.shape[-2:])
    below = border + -height % SIDE
    right = border + -width % SIDE
    x = F.pad(x, (border, right, border, below))[0]
    x = x.unflatten(2, (-1, SIDE)).unflatten(1, (-1, SIDE))  # (C, rows, SIDE, columns, SIDE)
    x = x.permute(1, 3, 2, 4, 0)  # (rows, columns, SIDE, SIDE, C)
    return x.reshape(1, 1, -1, x.shape[-1])


@lru_cache(maxsize=1)
def compiled_flex():
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


@lru_cache(maxsize=8)
def block_mask(size: int, frames: int, height: int, width: int, device: torch.device):
    """Which tiles of keys a tile of queries sees.

    Known from their places: `create_block_mask` would take half a minute to find it.
    """
    from torch.nn.attention.flex_attention import BlockMask

    # Rows and columns of tiles; keys have a border
    tiles = (tiles_along(height), tiles_along(width))
    key_tiles = (tiles_along(height + size - 1), tiles_along(width + size - 1))
    counts, indices = tiles_seen(size, frames, tiles, key_tiles)
    queries = math.prod(tiles) * CELLS
    cells = frames * math.prod(key_tiles) * CELLS
    # The leading axes are batch and heads, one each
    return BlockMask.from_kv_blocks(
        counts[None, None].to(device),
        indices[None, None].to(device),
        BLOCK_SIZE=(CELLS, CELLS),
        mask_mod=window(size, frames, tiles, key_tiles, device),
        seq_lengths=(queries, cells),
    )


def window(
    size: int, frames: int, tiles: tuple[int, int], key_tiles: tuple[int, int], device: torch.device
):
    """The mask of single cells: whether one is in the window of a pixel, by their numbers."""
    ys, xs = places(tiles, device)
    # Every frame of keys has the same places
    key_ys, key_xs = (place.repeat(frames) for place in places(key_tiles, device))

    def seen(b, h, q, k):
        dy = key_ys[k] - ys[q]
        dx = key_xs[k] - xs[q]
        near_row = (dy >= 0) & (dy < size)
        near_column = (dx >= 0) & (dx < size)
        return near_row & near_column

    return seen


def places(tiles: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """y and x of all cells in tile order, (tiles SIDE^2,) each."""
    columns = tiles[1]
    index = torch.arange(math.prod(tiles) * CELLS, device=device)
    tile = index // CELLS
    inner = index % CELLS  # within the tile, row by row
    y = tile // columns * SIDE + inner // SIDE
    x = tile % columns * SIDE + inner % SIDE
    return y, x


def tiles_seen(
    size: int, frames: int, tiles: tuple[int, int], key_tiles: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """For each tile of queries: how many tiles of keys it sees, and their numbers."""
    rows, columns = tiles
    key_rows, key_columns = key_tiles
    reach = tiles_along(SIDE + size - 1)  # tiles that a window touches
    count = rows * columns
    counts = torch.zeros(count, dtype=torch.int32)
    indices = torch.zeros(count, frames * key_rows * key_columns, dtype=torch.int32)
    for i in range(count):
        y, x = divmod(i, columns)
        # Keys have a border on all sides: a window begins at the pixel's own place
        seen_rows = range(y, min(y + reach, key_rows))
        seen_columns = range(x, min(x + reach, key_columns))
        seen = []
        for t in range(frames):
            for row in seen_rows:
                first = (t * key_rows + row) * key_columns
                seen += [first + column for column in seen_columns]
        counts[i] = len(seen)
        indices[i, : len(seen)] = torch.tensor(seen, dtype=torch.int32)
    return counts, indices
