"""Batch norm over the clips of all ranks, on a CPU too: torch's SyncBatchNorm runs on GPUs only."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

# This all_reduce passes gradients on; that of torch.distributed does not.
from torch.distributed.nn.functional import all_reduce


class RankBatchNorm2d(nn.BatchNorm2d):
    """While training, mean and variance are those of all ranks' inputs, each (B, C, H, W).

    Gradients flow through both.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        # Sums of many half-precision values would lose digits or overflow.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # Values per channel, over all ranks; ranks may differ in B.
        count = wide.new_tensor(x.numel() / x.shape[1])
        dist.all_reduce(count)
        if count == 1:
            raise ValueError("Expected more than 1 value per channel when training, over all ranks")
        mean = all_reduce(wide.sum((0, 2, 3))) / count  # (C,)
        centred = wide - mean[:, None, None]
        # The mean goes first: squares of centred values lose no digits to a large mean.
        variance = all_reduce(centred.square().sum((0, 2, 3))) / count  # (C,)
        # The running variance is the unbiased one, as in torch.
        self.update_running_statistics(mean.detach(), (variance * count / (count - 1)).detach())
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def update_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Move running mean and variance towards those of a batch, each (C,)."""
        self.num_batches_tracked += 1
        share = self.momentum
        # As in torch, no momentum means the average over all batches.
        if share is None:
            share = 1 / self.num_batches_tracked
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def share_batch_norms(module: nn.Module) -> None:
    """Turn every batch norm in `module`, in place, into one over all ranks.

    Parameters and buffers stay the same objects.
    """
    for child in module.modules():
        # Exactly this class: another one may normalize otherwise.
        if type(child) is nn.BatchNorm2d:
            child.__class__ = RankBatchNorm2d
