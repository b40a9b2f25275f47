"""Local attention tile by tile: small matrix products instead of P^2 shifts.

A tile of h x w query pixels sees the (h + 2r) x (w + 2r) cells around it in each frame. One product
with all of them, of which each pixel masks those outside its own window, is faster than P^2 shifted
products over whole maps, and the logits of a tile stay in the processor's cache. Nothing of the
size of the weights is ever kept: the backward pass computes a tile's weights again. Tiles are added
up in a fixed order, so gradients are deterministic.

Cells are laid out for a strip of tiles at a time, column by column and frame by frame. What one
tile sees is then a contiguous part of the strip, its neighbour sees the same part moved on by w
columns, and nothing is copied per tile.

    strip (columns, T, h + 2r, C):   | column 0: frame 0 | frame 1 | .. | column 1: frame 0 | ..
    tile 0                           <------------- w + 2r columns ------------->
    tile 1                               w columns on: <------------- w + 2r columns ------------->
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# A tile is SIDE / 2 x SIDE pixels: what is masked of a product grows with the tile, from P^2 to (h
# + 2r)(w + 2r) cells. Values of more than WIDE channels are read from memory once per tile, so
# there a tile is SIDE x SIDE.
SIDE = 8
WIDE = 256
STRIP = 8 << 20  # bytes of the cells of a strip, unless a single tile has more


class Tile(NamedTuple):
    """Tile number `index` of a strip: where its pixels lie in the batch of maps."""

    pixels: tuple[int, slice, slice]
    index: int


class Strip(NamedTuple):
    """A row of tiles, and the cells that they see."""

    tiles: list[Tile]
    cells: tuple[int, slice, slice]  # those inside the map
    inside: tuple[slice, slice]  # the same cells, in rows and columns of the strip


def local_attention_tiled(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    size: int,
    constant: Tensor | None,
) -> Tensor:
    """As models.ops.local_attention, with T maps (B, C, H, W) each -> (B, V, H, W).

    Values may be of a narrower type than queries and keys: weights are then rounded to it.
    Gradients are computed in the type of the query.
    """
    return TiledAttention.apply(size, constant, query, *keys, *values)


class TiledAttention(torch.autograd.Function):
    """Saves its inputs and nothing else."""

    @staticmethod
    def forward(ctx, size, constant, query, *memory):
        maps = [channels_last(x) for x in (query, *memory)]  # (B, H, W, C) each
        ctx.size = size
        ctx.has_constant = constant is not None
        if ctx.has_constant:
            ctx.save_for_backward(*maps, constant)
        else:
            ctx.save_for_backward(*maps)
        return read_tiles(size, constant, *maps).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        maps = list(ctx.saved_tensors)
        constant = None
        if ctx.has_constant:
            constant = maps.pop()
        wide = maps[0].dtype
        gradient = channels_last(gradient).to(wide)
        widened = [x.to(wide) for x in maps]
        grad_constant, grad_maps = differentiate_tiles(ctx.size, constant, gradient, *widened)
        # Back to the layout and the type of the inputs
        grad_maps = [
            grad.permute(0, 3, 1, 2).to(x.dtype) for grad, x in zip(grad_maps, maps, strict=True)
        ]
        return None, grad_constant, *grad_maps


def channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> contiguous (B, H, W, C).

    Nothing is copied where the convolution before it wrote channels last.
    """
    return x.permute(0, 2, 3, 1).contiguous()


def pad_channels(x: Tensor, multiple: int) -> Tensor:
    """(B, H, W, C) with channels of zeros at the end, until they are a multiple of so many."""
    lacking = -x.shape[-1] % multiple
    if not lacking:
        return x
    return F.pad(x, (0, lacking)).contiguous()


def read_tiles(size: int, constant: Tensor | None, query: Tensor, *memory: Tensor) -> Tensor:
    """query (B, H, W, C), T keys (B, H, W, C), T values (B, H, W, V) -> read (B, H, W, V)."""
    read = memory[-1].new_empty(memory[-1].shape)
    windows = Windows(size, constant, memory)
    for strip in windows.strips():
        windows.fill(strip)
        for tile in strip.tiles:
            keys, values = windows.seen(tile)
            pixels = query[tile.pixels]  # (h, w, C)
            weights, _ = windows.weights(pixels, keys)  # (h w, cells)
            weights = weights.to(values.dtype)
            read[tile.pixels] = (weights @ values).view(*pixels.shape[:2], -1)
    return read


def differentiate_tiles(
    size: int, constant: Tensor | None, gradient: Tensor, query: Tensor, *memory: Tensor
) -> tuple[Tensor | None, list[Tensor]]:
    """gradient (B, H, W, V) of the read -> gradients of the constant and of query, keys, values.

    With weights p and the gradient g of the read, the gradient of the values is p^T g, and that of
    the logits is p (g v^T - delta), where delta is the sum of p (g v^T) over a row. delta equals
    <g, read>, too, but only as this sum does a weight of 1 get a gradient of exactly 0.
    """
    grad_maps = [torch.zeros_like(x) for x in (query, *memory)]
    grad_query, *grad_memory = grad_maps
    grad_constant = None
    if constant is not None:
        grad_constant = torch.zeros_like(constant)
    windows = Windows(size, constant, memory)
    sums = Windows(size, None, grad_memory)
    for strip in windows.strips():
        windows.fill(strip)
        sums.clear()
        for tile in strip.tiles:
            keys, values = windows.seen(tile)  # (cells, C), (cells, V)
            grad_keys, grad_values = sums.seen(tile)  # views, added to in place
            pixels = query[tile.pixels]  # (h, w, C)
            q = pixels.flatten(0, 1)  # (h w, C)
            g = gradient[tile.pixels].flatten(0, 1)  # (h w, V)
            weights, of_constant = windows.weights(pixels, keys)  # (h w, cells), (h w, 1)
            grad_logits = torch.mm(g, values.t()).mul_(weights)  # (h w, cells)
            delta = grad_logits.sum(1, keepdim=True)  # (h w, 1)
            if grad_constant is not None:
                grad_constant -= (of_constant * delta).sum()
            grad_logits.addcmul_(weights, delta, value=-1)
            grad_query[tile.pixels] = (grad_logits @ keys).view_as(pixels)
            grad_keys.addmm_(grad_logits.t(), q)
            grad_values.addmm_(weights.t(), g)
        sums.add_to_maps(strip)
    return grad_constant, grad_maps


class Windows:
    """The cells that a strip of tiles sees in T keys and T values (B, H, W, C).

    Cells outside the map are zero.
    """

    def __init__(self, size: int, constant: Tensor | None, memory: Sequence[Tensor]):
        """memory: T keys, then T values."""
        self.size = size
        self.constant = constant
        self.frames = len(memory) // 2
        self.maps = (memory[: self.frames], memory[self.frames :])
        self.shape = memory[0].shape[:3]  # (B, H, W)
        self.tile = tile_for(memory[-1].shape[-1])  # (h, w)
        # Of cells that a tile sees
        self.rows, self.columns = (side + size - 1 for side in self.tile)

        self.per_strip = self.tiles_per_strip()
        width = self.per_strip * self.tile[1] + size - 1  # columns of a strip
        # (columns, T, rows, channels), of keys and of values
        self.buffers = [
            maps[0].new_zeros(width, self.frames, self.rows, maps[0].shape[-1])
            for maps in self.maps
        ]
        self.flat = [buffer.flatten(0, 2) for buffer in self.buffers]  # (cells, channels)

    def tiles_per_strip(self) -> int:
        """As many as a row of the map has, or as STRIP bytes hold, but one at least."""
        tile_width = self.tile[1]
        pixel = sum(maps[0].shape[-1] * maps[0].element_size() for maps in self.maps)  # bytes
        column = self.frames * self.rows * pixel
        fitting = max((STRIP // column - self.size + 1) // tile_width, 1)
        per_row = -(-self.shape[2] // tile_width)  # rounded up
        return min(fitting, per_row)

    def strips(self) -> Iterator[Strip]:
        """All strips, in a fixed order."""
        batch, height, width = self.shape
        tile_height, tile_width = self.tile
        for b in range(batch):
            for top in range(0, height, tile_height):
                for left in range(0, width, tile_width * self.per_strip):
                    yield self.strip(b, top, left)

    def strip(self, b: int, top: int, left: int) -> Strip:
        """The strip of map b whose first pixel is (top, left)."""
        _, height, width = self.shape
        tile_height, tile_width = self.tile
        radius = self.size // 2
        pixel_rows = slice(top, min(top + tile_height, height))
        end = min(left + tile_width * self.per_strip, width)
        tiles = []
        for index, x in enumerate(range(left, end, tile_width)):
            pixel_columns = slice(x, min(x + tile_width, width))
            tiles.append(Tile((b, pixel_rows, pixel_columns), index))
        map_rows, strip_rows = inside(top - radius, self.rows, height)
        map_columns, strip_columns = inside(left - radius, len(self.buffers[0]), width)
        return Strip(tiles, (b, map_rows, map_columns), (strip_rows, strip_columns))

    def fill(self, strip: Strip) -> None:
        """Copy the cells of a strip into the buffers, zeros where it reaches beyond the map."""
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
        """The reverse of fill: adds the buffers to the maps."""
        rows, columns = strip.inside
        for buffer, maps in zip(self.buffers, self.maps, strict=True):
            for t, x in enumerate(maps):
                x[strip.cells] += buffer[columns, t, rows].transpose(0, 1)

    def seen(self, tile: Tile) -> list[Tensor]:
        """Keys (cells, C) and values (cells, V) that a tile sees: views."""
        per_column = self.frames * self.rows
        start = tile.index * self.tile[1] * per_column
        stop = start + self.columns * per_column
        return [x[start:stop] for x in self.flat]

    def weights(self, pixels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor | None]:
        """pixels (h, w, C) -> weights of the cells (h w, cells) and of the constant (h w, 1)."""
        mask = window_mask(
            self.size,
            self.tile,
            tuple(pixels.shape[:2]),
            frames=self.frames,
            dtype=pixels.dtype,
            device=pixels.device,
        )
        logits = torch.addmm(mask, pixels.flatten(0, 1), keys.t())  # (h w, cells)
        weights = logits.softmax(1)
        if self.constant is None:
            return weights, None
        # With the constant c and s = log(sum of exp(logits)), the cells together have the weight
        # sigmoid(s - c). That of the constant is not 1 minus it: the difference would lose digits.
        excess = logits.logsumexp(1, keepdim=True) - self.constant
        return weights.mul_(excess.sigmoid()), excess.neg_().sigmoid_()


def tile_for(value_channels: int) -> tuple[int, int]:
    """Height and width of a tile in pixels."""
    if value_channels <= WIDE:
        return SIDE // 2, SIDE
    return SIDE, SIDE


def inside(start: int, length: int, side: int) -> tuple[slice, slice]:
    """The part of `length` cells from `start` on that lies in a map of this side.

    -> the same cells, counted in the map and counted from start.
    """
    first = max(start, 0)
    stop = min(start + length, side)
    return slice(first, stop), slice(first - start, stop - start)


# Not an inference tensor, wherever it is called first: later calls may record gradients
@lru_cache(maxsize=16)
@torch.inference_mode(False)
def window_mask(
    size: int,
    tile: tuple[int, int],
    pixels: tuple[int, int],
    *,
    frames: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """(h w, cells of a tile): 0 where a cell lies in the window of a pixel, else -inf.

    pixels: h and w, rows and columns of the tile that lie in the map.
    """
    near = []
    for side, count in zip(tile, pixels, strict=True):
        cells = torch.arange(side + size - 1, device=device)
        distance = cells - torch.arange(count, device=device)[:, None]
        near.append((distance >= 0) & (distance < size))
    near_row, near_column = near  # (h, rows), (w, columns)
    # In the order of the strip's cells: (h, w, columns, T, rows)
    seen = near_row[:, None, None, None, :] & near_column[None, :, :, None, None]
    seen = seen.expand(-1, -1, -1, frames, -1)
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))
    return mask.flatten(2).flatten(0, 1)
