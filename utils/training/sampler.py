"""Which clips a rank sees, in which order: a function of seed, epoch and position alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch


class EpochBatches:
    """Batches of (index, epoch) of one epoch for one rank, for DataLoader's `batch_sampler`.

    Step k of an epoch has the same `batch_size * ranks` clips for any number of ranks; rank r takes
    its part of them. The incomplete last batch is left out. `start` skips the steps that a resumed
    run has done.
    """

    def __init__(
        self, length: int, batch_size: int, *, rank: int = 0, ranks: int = 1, seed: int = 0
    ):
        """length: clips in the data set. Raises ValueError if they do not fill one batch."""
        self.length = length
        self.batch_size = batch_size
        self.rank = rank
        self.seed = seed
        self.clips_per_step = batch_size * ranks
        self.steps = length // self.clips_per_step
        self.epoch = 0
        self.start = 0
        if not self.steps:
            raise ValueError(
                f"the training set has {length} clips, fewer than one batch of {batch_size} on "
                f"{ranks} ranks: lower --batch-size or --gpus"
            )

    def begin(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch (from 0) and its first step for the next iteration."""
        self.epoch = epoch
        self.start = start

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        # A generator of its own: the order depends on no draw made elsewhere. The large factor
        # keeps the epochs of one seed apart from those of the next.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.length, generator=generator).tolist()
        for step in range(self.start, self.steps):
            first = step * self.clips_per_step + self.rank * self.batch_size
            # The epoch goes along, since a clip's random draws depend on it.
            yield [(index, self.epoch) for index in order[first : first + self.batch_size]]
