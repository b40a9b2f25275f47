"""A step of training whose loss or gradients are not finite: noticed before it changes anything."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def take_step(optimizer, scaler, loss: Tensor, terms: dict[str, float]) -> str | None:
    """One step of the optimizer, unless the loss or its gradients are not finite; then which of them.

    terms: the named losses as every rank sees them, so that all ranks decide alike; gradients are shared anyway. Of
    those in half precision the scaler judges: it leaves steps out by itself until its scale fits.
    """
    if not all(map(math.isfinite, terms.values())):
        return "loss is"
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    gradients = [
        p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    if not scaler.is_enabled() and not nn.utils.get_total_norm(gradients, math.inf).isfinite():
        return "gradients are"
    scaler.step(optimizer)
    scaler.update()
    return None


@torch.no_grad()
def restore(network: nn.Module, buffers: Iterable[Tensor]) -> None:
    """Give the network back the buffers it had: a forward pass moves batch statistics."""
    for buffer, before in zip(network.buffers(), buffers, strict=True):
        buffer.copy_(before)
