"""Local attention tile by tile: small matrix products instead of P^2 shifts, and a backward pass that recomputes.

A tile of h x w query pixels sees the (h + 2r) x (w + 2r) cells around it in each frame. These are few enough that one
product with all of them, of which each pixel masks those outside its own window, is faster than P^2 shifted
products over whole maps; and that the logits of a tile stay in the processor's cache. Nothing of the size of the
weights is ever kept: the backward pass computes a tile's weights anew. Tiles are added up in a fixed order, so
gradients are deterministic.

Cells are laid out for a strip of tiles at a time, column by column and frame by frame: what one tile sees is then a
contiguous part of the strip, its neighbour sees the same part moved on by w columns, and nothing is copied per tile.

    strip (columns, T, h + 2r, C):   | column 0: frame 0 | frame 1 | .. | column 1: frame 0 | ..
    tile 0                           <------------- w + 2r columns ------------->
    tile 1                                      w columns on: <------------- w + 2r columns ------------->
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# A tile is SIDE / 2 x SIDE pixels: what is masked of a product grows with the tile, (h + 2r)(w + 2r) to P^2. Values of
# more than WIDE channels are read from memory once per tile, so there a tile is SIDE x SIDE.
SIDE, WIDE = 8, 256
STRIP = 8 << 20  # bytes of the cells of a strip, unless a single tile has more


class Tile(NamedTuple):
    """Tile number `index` of a strip: where its pixels lie in the batch of maps."""

    pixels: tuple[int, slice, slice]
    index: int


class Strip(NamedTuple):
    """A row of tiles, and what they see."""

    tiles: list[Tile]
    cells: tuple[int, slice, slice]  # the cells that are inside the map
    inside: tuple[slice, slice]  # the same, in rows and columns of the strip


def local_attention_tiled(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    size: int,
    constant: Tensor | None,
) -> Tensor:
    """As models.ops.local_attention, with T maps each -> (B, V, H, W).

    Values may be of a narrower type than queries and keys: weights are then rounded to it. Gradients are wide.
    """
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
        wide = maps[0].dtype
        of_constant, gradients = differentiate_tiles(
            ctx.size, constant, channels_last(gradient).to(wide), *(x.to(wide) for x in maps)
        )
        return (
            None,
            of_constant,
            *(
                found.permute(0, 3, 1, 2).to(x.dtype)
                for found, x in zip(gradients, maps, strict=True)
            ),
        )


def channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> contiguous (B, H, W, C); no copy where the convolution before it wrote channels last."""
    return x.permute(0, 2, 3, 1).contiguous()


def filled_up(x: Tensor, multiple: int) -> Tensor:
    """(B, H, W, C) with channels of zeros until they are a multiple of so many."""
    excess = -x.shape[-1] % multiple
    return F.pad(x, (0, excess)).contiguous() if excess else x


def read_tiles(size: int, constant: Tensor | None, query: Tensor, *memory: Tensor) -> Tensor:
    """query (B, H, W, C), T keys (B, H, W, C), T values (B, H, W, V) -> read (B, H, W, V)."""
    read = memory[-1].new_empty(memory[-1].shape)
    windows = Windows(size, constant, memory)
    for strip in windows.strips():
        windows.fill(strip)
        for tile in strip.tiles:
            keys, values = windows.seen(tile)
            pixels = query[tile.pixels]  # (h, w, C)
            weights, _ = windows.weights(pixels, keys)
            read[tile.pixels] = (weights.to(values.dtype) @ values).view(*pixels.shape[:2], -1)
    return read


def differentiate_tiles(
    size: int, constant: Tensor | None, gradient: Tensor, query: Tensor, *memory: Tensor
) -> tuple[Tensor | None, list[Tensor]]:
    """gradient (B, H, W, V) of the read -> the gradient of the constant, and those of query, keys and values.

    With weights p and the gradient g of the read: dv = p^T g, and the gradient of the logits is p (g v^T - delta),
    delta the sum of p (g v^T) over a row. That is <g, read> too, but only so a weight of 1 gets a gradient of just 0.
    """
    gradients = [torch.zeros_like(x) for x in (query, *memory)]
    of_constant = None if constant is None else torch.zeros_like(constant)
    windows, sums = Windows(size, constant, memory), Windows(size, None, gradients[1:])
    for strip in windows.strips():
        windows.fill(strip)
        sums.clear()
        for tile in strip.tiles:
            (keys, values), (of_keys, of_values) = windows.seen(tile), sums.seen(tile)
            pixels = query[tile.pixels]
            q, g = pixels.flatten(0, 1), gradient[tile.pixels].flatten(0, 1)
            weights, by_constant = windows.weights(pixels, keys)  # (h w, cells), (h w, 1)
            of_logits = torch.mm(g, values.t()).mul_(weights)
            delta = of_logits.sum(1, keepdim=True)
            if of_constant is not None:
                of_constant -= (by_constant * delta).sum()
            of_logits.addcmul_(weights, delta, value=-1)
            gradients[0][tile.pixels] = (of_logits @ keys).view_as(pixels)
            of_keys.addmm_(of_logits.t(), q)
            of_values.addmm_(weights.t(), g)
        sums.add_to_maps(strip)
    return of_constant, gradients


class Windows:
    """The cells that a strip of tiles sees in T keys and T values (B, H, W, C), zero outside the map."""

    def __init__(self, size: int, constant: Tensor | None, memory: Sequence[Tensor]):
        self.size, self.constant, self.frames = size, constant, len(memory) // 2
        self.maps = memory[: self.frames], memory[self.frames :]
        self.shape = memory[0].shape[:3]
        self.tile = (SIDE // 2 if memory[-1].shape[-1] <= WIDE else SIDE, SIDE)
        self.rows, self.columns = (side + size - 1 for side in self.tile)  # that a tile sees
        column = (
            self.frames
            * self.rows
            * sum(maps[0].shape[-1] * maps[0].element_size() for maps in self.maps)
        )
        fit = max((STRIP // column - size + 1) // self.tile[1], 1)
        self.per_strip = min(fit, -(-self.shape[2] // self.tile[1]))
        width = self.per_strip * self.tile[1] + size - 1
        self.buffers = [
            maps[0].new_zeros(width, self.frames, self.rows, maps[0].shape[-1])
            for maps in self.maps
        ]
        self.flat = [buffer.flatten(0, 2) for buffer in self.buffers]

    def strips(self) -> Iterator[Strip]:
        """All strips, in a fixed order."""
        batch, height, width = self.shape
        (h, w), radius = self.tile, self.size // 2
        for b in range(batch):
            for top in range(0, height, h):
                for left in range(0, width, w * self.per_strip):
                    starts = range(left, min(left + w * self.per_strip, width), w)
                    pixel_rows = slice(top, min(top + h, height))
                    tiles = [
                        Tile((b, pixel_rows, slice(x, min(x + w, width))), i)
                        for i, x in enumerate(starts)
                    ]
                    rows = inside(top - radius, self.rows, height)
                    columns = inside(left - radius, len(self.buffers[0]), width)
                    yield Strip(tiles, (b, rows[0], columns[0]), (rows[1], columns[1]))

    def fill(self, strip: Strip) -> None:
        """Lay the cells of a strip out."""
        rows, columns = strip.inside
        for buffer, maps in zip(self.buffers, self.maps, strict=True):
            buffer[: columns.start].zero_()
            buffer[columns.stop :].zero_()
            buffer[:, :, : rows.start].zero_()
            buffer[:, :, rows.stop :].zero_()
            for t, x in enumerate(maps):
                buffer[columns, t, rows] = x[strip.cells].transpose(0, 1)

    def clear(self) -> None:
        for buffer in self.buffers:
            buffer.zero_()

    def add_to_maps(self, strip: Strip) -> None:
        """The reverse of fill."""
        rows, columns = strip.inside
        for buffer, maps in zip(self.buffers, self.maps, strict=True):
            for t, x in enumerate(maps):
                x[strip.cells] += buffer[columns, t, rows].transpose(0, 1)

    def seen(self, tile: Tile) -> list[Tensor]:
        """Keys (cells, C) and values (cells, V) that a tile sees: views."""
        per_column = self.frames * self.rows
        start = tile.index * self.tile[1] * per_column
        return [x[start : start + self.columns * per_column] for x in self.flat]

    def weights(self, pixels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor | None]:
        """pixels (h, w, C) of a tile -> weights of its cells (h w, cells), and of the constant (h w, 1)."""
        mask = window_mask(
            self.size, self.tile, tuple(pixels.shape[:2]), self.frames, pixels.dtype, pixels.device
        )
        logits = torch.addmm(mask, pixels.flatten(0, 1), keys.t())
        weights = logits.softmax(1)
        if self.constant is None:
            return weights, None
        excess = (
            logits.logsumexp(1, keepdim=True) - self.constant
        )  # the constant: a logit more in the denominator
        return weights.mul_(excess.sigmoid()), excess.neg_().sigmoid_()


def inside(start: int, length: int, side: int) -> tuple[slice, slice]:
    """The part of `length` cells from `start` on that lies in a map of this side: counted in the map and from start."""
    first, stop = max(start, 0), min(start + length, side)
    return slice(first, stop), slice(first - start, stop - start)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def window_mask(
    size: int,
    tile: tuple[int, int],
    pixels: tuple[int, int],
    frames: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """(rows columns of pixels, cells of a tile): 0 where a cell lies in the window of a pixel, else -inf."""
    near = []
    for side, count in zip(tile, pixels, strict=True):
        distance = (
            torch.arange(side + size - 1, device=device)
            - torch.arange(count, device=device)[:, None]
        )
        near.append((distance >= 0) & (distance < size))
    rows, columns = near
    seen = (
        rows[:, None, None, None, :] & columns[None, :, :, None, None]
    )  # (.., .., columns, 1, rows)
    seen = seen.expand(-1, -1, -1, frames, -1)
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))
    return mask.flatten(2).flatten(0, 1)
