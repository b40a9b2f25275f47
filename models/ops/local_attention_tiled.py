"""Local attention tile by tile: small matrix products instead of P^2 shifts, and a backward pass that recomputes.

A tile of 8 x 8 query pixels sees the (8 + 2r) x (8 + 2r) cells around it in each frame. These are few enough that one
product with all of them, of which each pixel masks those outside its own window, is faster than P^2 shifted
products over whole maps; and that the logits of a tile stay in the processor's cache. Nothing of the size of the
weights is ever kept: the backward pass computes a tile's weights anew. Tiles are added up in a fixed order, so
gradients are deterministic.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SIDE = 8                # of a tile; 4 to 8 are about equally fast on CPUs, 16 takes twice as long


class Tile(NamedTuple):
    """Where a tile of one map of the batch lies."""

    query: tuple[int, slice, slice]     # its pixels
    cells: tuple[int, slice, slice]     # the cells around them that are inside the map
    inside: tuple[slice, slice]         # the same, in the window of all cells around the tile


def local_attention_tiled(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], size: int,
                          constant: Tensor | None) -> Tensor:
    """As models.ops.local_attention, with T maps each -> (B, V, H, W)."""
    return TiledAttention.apply(size, constant, query, *keys, *values)


class TiledAttention(torch.autograd.Function):
    """Saves its inputs and nothing else."""

    @staticmethod
    def forward(ctx, size, constant, query, *memory):
        maps = [channels_last(x) for x in (query, *memory)]
        ctx.size, ctx.has_constant = size, constant is not None
        ctx.save_for_backward(*maps, *([constant] if ctx.has_constant else []))
        return read_tiles(size, constant, *maps).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        *maps, constant = ctx.saved_tensors if ctx.has_constant else (*ctx.saved_tensors, None)
        of_constant, gradients = differentiate_tiles(ctx.size, constant, channels_last(gradient), *maps)
        return None, of_constant, *(x.permute(0, 3, 1, 2) for x in gradients)


def channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> contiguous (B, H, W, C); no copy where the convolution before it wrote channels last."""
    return x.permute(0, 2, 3, 1).contiguous()


def read_tiles(size: int, constant: Tensor | None, query: Tensor, *memory: Tensor) -> Tensor:
    """query (B, H, W, C), T keys (B, H, W, C), T values (B, H, W, V) -> read (B, H, W, V)."""
    read = query.new_empty(*query.shape[:3], memory[-1].shape[-1])
    windows = Windows(size, constant, memory)
    for tile in tiles(query.shape, size):
        keys, values = windows.gather(tile)
        pixels = query[tile.query]                                                  # (th, tw, C)
        weights = windows.weights(pixels, keys)
        read[tile.query] = (weights @ values).view(*pixels.shape[:2], -1)
    return read


def differentiate_tiles(size: int, constant: Tensor | None, gradient: Tensor, query: Tensor,
                        *memory: Tensor) -> tuple[Tensor | None, list[Tensor]]:
    """gradient (B, H, W, V) of the read -> the gradient of the constant, and those of query, keys and values.

    With weights p and the gradient g of the read: dv = p^T g, and the gradient of the logits is p (g v^T - delta),
    delta the sum of p (g v^T) over a row. That is <g, read> too, but only so a weight of 1 gets a gradient of just 0.
    """
    gradients = [torch.zeros_like(x) for x in (query, *memory)]
    of_constant = None if constant is None else torch.zeros_like(constant)
    windows = Windows(size, constant, memory)
    for tile in tiles(query.shape, size):
        keys, values = windows.gather(tile)
        pixels = query[tile.query]
        q, g = pixels.flatten(0, 1), gradient[tile.query].flatten(0, 1)
        weights = windows.weights(pixels, keys)                                     # (th tw, T cells)
        of_logits = torch.mm(g, values.t()).mul_(weights)
        of_logits.addcmul_(weights, of_logits.sum(1, keepdim=True), value=-1)
        gradients[0][tile.query] = (of_logits @ keys).view_as(pixels)
        windows.scatter(tile, gradients[1:], of_logits.t() @ q, weights.t() @ g)
        if of_constant is not None:
            of_constant += of_logits[:, -1].sum()
    return of_constant, gradients


def tiles(shape: Sequence[int], size: int) -> Iterator[Tile]:
    """All tiles of maps (B, H, W, ...), in a fixed order."""
    batch, height, width = shape[:3]
    rows, columns = ([spans(start, side, size) for start in range(0, side, SIDE)] for side in (height, width))
    for b in range(batch):
        for row in rows:
            for column in columns:
                query, cells, inside = zip(row, column, strict=True)
                yield Tile((b, *query), (b, *cells), inside)


def spans(start: int, length: int, size: int) -> tuple[slice, slice, slice]:
    """One direction of the Tile that begins at `start`."""
    origin = start - size // 2
    first, stop = max(origin, 0), min(origin + SIDE + size - 1, length)
    return slice(start, min(start + SIDE, length)), slice(first, stop), slice(first - origin, stop - origin)


class Windows:
    """The cells around a tile in T frames as matrices, zero outside the map, in one pair of buffers for all tiles.

    The constant is one cell more: its key and value are zero, its logit is the constant.
    """

    def __init__(self, size: int, constant: Tensor | None, memory: Sequence[Tensor]):
        self.size, self.constant, self.frames = size, constant, len(memory) // 2
        self.maps = memory[:self.frames], memory[self.frames:]
        self.side, self.filled, extra = SIDE + size - 1, None, constant is not None
        self.masks: dict[torch.Size, Tensor] = {}
        self.buffers = [maps[0].new_zeros(self.frames * self.side ** 2 + extra, maps[0].shape[-1])
                        for maps in self.maps]

    def cells(self, matrix: Tensor) -> Tensor:
        """(T cells, C) -> a view (T, side, side, C)."""
        return matrix[:self.frames * self.side ** 2].view(self.frames, self.side, self.side, -1)

    def gather(self, tile: Tile) -> list[Tensor]:
        """Keys (T cells, C) and values (T cells, V); valid until the next call."""
        for buffer, maps in zip(self.buffers, self.maps, strict=True):
            if self.filled != tile.inside:      # another part of the window lies inside the map than did before
                buffer.zero_()
            for frame, x in zip(self.cells(buffer), maps, strict=True):
                frame[tile.inside] = x[tile.cells]
        self.filled = tile.inside
        return self.buffers

    def scatter(self, tile: Tile, gradients: Sequence[Tensor], *parts: Tensor) -> None:
        """The reverse of gather: add to the gradients of T keys and T values what the tile's cells got."""
        frames = [frame for part in parts for frame in self.cells(part)]
        for x, frame in zip(gradients, frames, strict=True):
            x[tile.cells] += frame[tile.inside]

    def weights(self, pixels: Tensor, keys: Tensor) -> Tensor:
        """pixels (th, tw, C) of a tile -> (th tw, T cells), rows that sum to 1."""
        if pixels.shape not in self.masks:
            mask = window_mask(self.size, *pixels.shape[:2], self.frames, pixels.dtype, pixels.device)
            self.masks[pixels.shape] = mask if self.constant is None else torch.cat(
                [mask, self.constant.expand(len(mask), 1)], 1)
        return torch.addmm(self.masks[pixels.shape], pixels.flatten(0, 1), keys.t()).softmax(1)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def window_mask(size: int, rows: int, columns: int, frames: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(rows columns, frames cells): 0 where a cell lies in the window of a pixel of the tile, else -inf."""
    cells = torch.arange(SIDE + size - 1, device=device)
    distances = [cells - torch.arange(n, device=device)[:, None] for n in (rows, columns)]
    near_rows, near_columns = ((distance >= 0) & (distance < size) for distance in distances)
    seen = near_rows[:, None, :, None] & near_columns[None, :, None, :]             # (rows, columns, cells, cells)
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))
    return mask.flatten(2).flatten(0, 1).repeat(1, frames)
