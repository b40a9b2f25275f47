"""Batch norm over the clips of all ranks, where torch's SyncBatchNorm does not serve: it knows GPUs only."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class RankBatchNorm2d(nn.BatchNorm2d):
    """While training, mean and variance are those of all ranks' inputs (B, C, H, W); gradients flow through both."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        count = wide.new_tensor(x.numel() / x.shape[1])
        dist.all_reduce(count)
        if count == 1:
            raise ValueError("Expected more than 1 value per channel when training, over all ranks")
        mean = all_reduce(wide.sum((0, 2, 3))) / count
        centred = wide - mean[:, None, None]
        variance = all_reduce(centred.square().sum((0, 2, 3))) / count
        self.follow(mean.detach(), (variance * count / (count - 1)).detach())
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics."""
        self.num_batches_tracked += 1
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def share_batch_norms(module: nn.Module) -> None:
    """Turn every batch norm of a module into one over all ranks, where it is: parameters and buffers stay the same."""
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = RankBatchNorm2d
