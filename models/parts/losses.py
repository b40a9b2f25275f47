"""Named losses on logits and labels.

Means are taken over the clips of all ranks: with N ranks a loss is N * (local sum) / (sum of the
denominators), so that averaging gradients over ranks, as DistributedDataParallel does, gives the
gradient one rank would compute on the whole batch.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

IGNORE = 255


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    *,
    mean: str = "valid",
    ohem: tuple[float, int] | None = None,
) -> Tensor:
    """Pixel-wise cross entropy: logits (B, K, H, W), labels (B, H, W) with 255 ignored -> scalar.

    weight: (K,) per class. mean: "valid" divides by the (weighted) number of labelled pixels
    (LMANet, ETC, SwNet); "all" divides by all pixels, ignored ones included (TMANet, MRCFA). ohem:
    (threshold, kept): only pixels that are hard (see `hard_pixels`) count. ValueError for an
    unknown mean.
    """
    if mean not in ("valid", "all"):
        raise ValueError(f"the mean of a loss is 'valid' or 'all', got {mean!r}")
    if ohem is not None:
        labels = torch.where(hard_pixels(logits.detach(), labels, *ohem), labels, IGNORE)
    logits = logits.float()
    if weight is not None:
        weight = weight.to(logits)
    total = F.cross_entropy(logits, labels, weight, ignore_index=IGNORE, reduction="sum")
    valid = labels[labels != IGNORE]
    if mean == "all":
        denominator = total.new_tensor(float(labels.numel()))
    elif weight is None:
        denominator = total.new_tensor(float(valid.numel()))
    else:
        denominator = weight[valid].sum()
    ranks = sum_over_ranks(denominator)
    # A batch without one labelled pixel teaches nothing: 0, not 0 / 0.
    return total * ranks / denominator.clamp(min=torch.finfo(torch.float32).tiny)


def sum_over_ranks(denominator: Tensor) -> int:
    """Add up `denominator` over all ranks in place; how many ranks there are.

    Only while training: in validation ranks see different numbers of clips, and each keeps its own
    mean.
    """
    if not (torch.is_grad_enabled() and dist.is_available() and dist.is_initialized()):
        return 1
    dist.all_reduce(denominator)
    return dist.get_world_size()


def hard_pixels(logits: Tensor, labels: Tensor, threshold: float, kept: int) -> Tensor:
    """Online hard example mining: where (B, H, W) the probability of the true class is low.

    A pixel is hard if its probability is <= threshold, which rises to the `kept`-th smallest
    probability when fewer pixels would remain; with `kept` or fewer labelled pixels all are hard.
    """
    valid = labels != IGNORE
    probability = logits.float().softmax(1).gather(1, labels.where(valid, 0)[:, None])[:, 0]
    candidates = probability[valid]
    if kept >= candidates.numel():
        return valid
    if kept > 0:
        threshold = max(threshold, candidates.kthvalue(kept).values.item())
    return valid & (probability <= threshold)
