"""Which clips a rank sees, in which order: a function of seed, epoch and position alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

APART = 1_000_003  # keeps the epochs of one seed apart from those of the next


class Share(NamedTuple):
    """Clips that follow one another in the data set, and how many of them an epoch has."""

    clips: int
    drawn: int


class EpochBatches:
    """Batches of (index, epoch) of one epoch for one rank, for DataLoader's `batch_sampler`.

    Step k of an epoch has the same `batch_size * ranks` clips for any number of ranks; rank r takes
    its part of them. The incomplete last batch is left out. `start` skips the steps that a resumed
    run has done.

    Of each share of a mixed data set an epoch has as many clips as it says. They come pass by pass:
    a clip is seen again when all others of its share were.
    """

    def __init__(
        self,
        shares: Sequence[Share],
        batch_size: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        seed: int = 0,
    ):
        """shares: all clips of the data set. ValueError if an epoch does not fill one batch."""
        self.shares = list(shares)
        length = sum(share.drawn for share in self.shares)
        self.batch_size = batch_size
        self.rank = rank
        self.seed = seed
        self.clips_per_step = batch_size * ranks
        self.steps = length // self.clips_per_step
        self.epoch = 0
        self.start = 0
        if not self.steps:
            raise ValueError(
                f"an epoch of the training set has {length} clips, fewer than one batch of "
                f"{batch_size} on {ranks} ranks: lower --batch-size or --gpus"
            )

    def begin(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch (from 0) and its first step for the next iteration."""
        self.epoch = epoch
        self.start = start

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = self.order()
        for step in range(self.start, self.steps):
            first = step * self.clips_per_step + self.rank * self.batch_size
            yield order[first : first + self.batch_size]

    def order(self) -> list[tuple[int, int]]:
        """All (index, pass) of the epoch."""
        found = []
        first = 0
        for number, share in enumerate(self.shares):
            # Shares differ in their seeds; the only one has that of the run.
            seed = self.seed + number
            found += [(first + clip, turn) for clip, turn in drawn(share, self.epoch, seed)]
            first += share.clips
        if len(self.shares) == 1:
            return found
        return [found[i] for i in permutation(len(found), self.seed + len(self.shares), self.epoch)]


def drawn(share: Share, epoch: int, seed: int) -> Iterator[tuple[int, int]]:
    """(clip, pass) of a share in an epoch: a clip's random draws depend on the pass, too.

    Where an epoch has all clips of the share once, passes are epochs.
    """
    position = epoch * share.drawn
    end = position + share.drawn
    while position < end:
        turn, place = divmod(position, share.clips)
        order = permutation(share.clips, seed, turn)[place : place + end - position]
        yield from ((clip, turn) for clip in order)
        position += len(order)


def permutation(length: int, seed: int, turn: int) -> list[int]:
    """The numbers below `length` in an order of their own for each seed and turn."""
    # A generator of its own: the order depends on no draw made elsewhere.
    generator = torch.Generator().manual_seed(seed * APART + turn)
    return torch.randperm(length, generator=generator).tolist()
