"""A training step whose loss or gradients are not finite is detected before it changes a weight."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def take_step(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    loss: Tensor,
    terms: dict[str, float],
) -> str | None:
    """Take one step of the optimizer -> None; where a number is not finite, take none.

    Then the answer says which: "loss is" or "gradients are". terms: the named losses, the same on
    every rank, so that all ranks decide alike. With half precision the scaler checks the gradients.
    """
    if not all(map(math.isfinite, terms.values())):
        return "loss is"
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    # An enabled scaler leaves steps out by itself until its scale fits.
    if not scaler.is_enabled() and not _gradients_are_finite(optimizer):
        return "gradients are"
    scaler.step(optimizer)
    scaler.update()
    return None


def _gradients_are_finite(optimizer: torch.optim.Optimizer) -> bool:
    """Whether all gradients are finite; they are the same on every rank, so the answer is too."""
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    gradients = [p.grad for p in parameters if p.grad is not None]
    # The maximum norm is finite only if every entry is.
    return bool(nn.utils.get_total_norm(gradients, math.inf).isfinite())


@torch.no_grad()
def restore(network: nn.Module, buffers: Iterable[Tensor]) -> None:
    """Undo what a forward pass did to the network's buffers (batch statistics)."""
    for buffer, before in zip(network.buffers(), buffers, strict=True):
        buffer.copy_(before)
