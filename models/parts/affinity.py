"""Cross-frame affinities of VSS-MRCFA (Sun et al., ECCV 2022, sections 3.2 to 3.4).

Every place of the frame to label (the target) is compared with tokens of earlier frames (the
references), at three scales. A token's products with all places are a picture of one channel; few
tokens are kept, and small convolutions refine the pictures and merge the scales.

Shapes: B clips, R references, N tokens of a reference on its grid, S of them kept, X places of the
target at one scale. Levels are listed from 1/8 over 1/16 to 1/32, the order of published names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .affinity_decoder import AffinityDecoder

# Sides and strides of the convolutions that bring a reference's maps at 1/8 and 1/16 to its grid,
# and the map of values at 1/8, by the grid's scale.
REDUCTIONS = {"1_32": (4, 2, 4), "1_16": (2, 1, 2)}


class Affinity(NamedTuple):
    """What a target finds in its references."""

    maps: Tensor  # (B, R, S, h, w) at 1/8, before a softmax over S
    kept: Tensor  # (B, R, S): which tokens, in the order of the grid


class CrossFrameAffinity(nn.Module):
    """Compares a target with references, whose keys are computed once (`keys`)."""

    def __init__(
        self,
        channels: Sequence[int],
        *,
        keep_ratio: float = 0.5,
        topk: int = 5,
        grid: str = "1_32",
        convolutions: int = 1,
    ):
        """channels: of the maps at 1/8, 1/16 and 1/32. keep_ratio: share of a reference's tokens
        that is kept. topk: places whose products with a token are its score. grid: scale of the
        references, 1_32 or 1_16. convolutions: in each block of the decoder, 1 or 2.
        """
        super().__init__()
        self.keep_ratio = keep_ratio
        self.topk = topk
        side8, side16, _ = REDUCTIONS[grid]
        width8, width16, width32 = channels
        self.sr2 = nn.Conv2d(width8, width8, side8, side8)
        self.sr3 = nn.Conv2d(width16, width16, side16, side16)
        self.q1 = nn.Linear(width8, width8)
        self.k1 = nn.Linear(width8, width8)
        self.q2 = nn.Linear(width16, width16)
        self.k2 = nn.Linear(width16, width16)
        self.q3 = nn.Linear(width32, width32)
        self.k3 = nn.Linear(width32, width32)
        self.decoder = AffinityDecoder(convolutions)

    def reduce(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """maps (B, C, h, w) of a reference at 1/8, 1/16, 1/32 -> the same on its grid.

        The one at 1/32 stays as it is.
        """
        return self.sr2(maps[0]), self.sr3(maps[1]), maps[2]

    def keys(self, reduced: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """reduced (B, C, gh, gw) by level -> keys (B, gh, gw, C)."""
        keys = project((self.k1, self.k2, self.k3), reduced)
        require_one_grid(keys)
        return keys

    def forward(self, target: Sequence[Tensor], keys: Sequence[Sequence[Tensor]]) -> Affinity:
        """target (B, C, h, w) by level; keys of each reference, as `keys` gives them."""
        queries = project((self.q1, self.q2, self.q3), target)
        stacked = [torch.stack(level, 1) for level in zip(*keys, strict=True)]
        products, kept = self.select(queries[2], stacked[2], tuple(stacked[1].shape[2:4]))
        pictures = [
            compare(query, gather(level.flatten(2, 3), kept))
            for query, level in zip(queries[:2], stacked[:2], strict=True)
        ]
        maps = self.decoder([x.flatten(0, 2)[:, None] for x in (*pictures, products)])
        return Affinity(maps.unflatten(0, kept.shape)[:, :, :, 0], kept)

    def select(self, query: Tensor, keys: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The products (B, R, S, h, w) of the tokens that are kept, and which (B, R, S) these are.

        query (B, h, w, C) and keys (B, R, gh, gw, C) at 1/32. grid: of the other levels' keys;
        where it differs, products and scores are resized to it, and tokens are chosen there.
        """
        require_places(query.shape[1:3], self.topk)
        own_grid = keys.shape[2:4]
        products = compare(query, keys.flatten(2, 3))  # (B, R, N, h, w)
        scores = products.flatten(3).topk(self.topk, -1).values.sum(-1)  # (B, R, N)
        if own_grid != grid:
            products = regrid(products.flatten(3), own_grid, grid).unflatten(3, query.shape[1:3])
            scores = regrid(scores[..., None], own_grid, grid)[..., 0]
        count = max(int(scores.shape[2] * self.keep_ratio), 1)
        kept = scores.topk(count, -1).indices.sort(-1).values
        return gather(products, kept), kept


def project(layers: Sequence[nn.Linear], maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """maps (B, C, h, w) -> (B, h, w, C), each through its layer."""
    return tuple(layer(x.permute(0, 2, 3, 1)) for layer, x in zip(layers, maps, strict=True))


def compare(query: Tensor, tokens: Tensor) -> Tensor:
    """query (B, h, w, C), tokens (B, R, N, C) -> products (B, R, N, h, w), not scaled down."""
    places = query.flatten(1, 2)[:, None]  # (B, 1, X, C)
    return (tokens @ places.transpose(-1, -2)).unflatten(3, query.shape[1:3])


def gather(x: Tensor, kept: Tensor) -> Tensor:
    """x (B, R, N, ...), kept (B, R, S) -> (B, R, S, ...)."""
    index = kept.reshape(*kept.shape, *(1,) * (x.ndim - 3))
    return x.gather(2, index.expand(*kept.shape, *x.shape[3:]))


def regrid(x: Tensor, old: Sequence[int], new: tuple[int, int]) -> Tensor:
    """x (B, R, N, X) over tokens on one grid -> over those on another, bilinear."""
    planes = x.flatten(0, 1).transpose(1, 2).unflatten(2, tuple(old))  # (B R, X, gh, gw)
    resized = F.interpolate(planes, new, mode="bilinear", align_corners=False)
    return resized.flatten(2).transpose(1, 2).unflatten(0, x.shape[:2])


def require_places(size: Sequence[int], topk: int) -> None:
    """ValueError where the target has too few places at 1/32 to score a token by."""
    height, width = size
    if height * width < topk:
        raise ValueError(
            f"a token is scored by its {topk} best places at 1/32 of the frame (--stm-topk), but "
            f"the frame has {height}x{width} (HxW) of them: take frames of at least {topk} cells "
            "of 32x32 pixels, such as 96x96"
        )


def require_one_grid(keys: Sequence[Tensor]) -> None:
    """ValueError where a reference's maps at 1/8 and 1/16 came to grids of different sizes."""
    sizes = [tuple(level.shape[-3:-1]) for level in keys[:2]]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the tokens of a frame lie on two grids, {sizes[0]} and {sizes[1]} (HxW): take frames "
            "whose sides are multiples of 32"
        )
