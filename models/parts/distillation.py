"""Distillation: a network learns what a frozen teacher predicts, and how it relates pixels.

Sources: GSVNet (Lee et al., 2021); ETC (Liu et al., ECCV 2020, section 3.3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SELF_STRIDE = 2  # of the pooling before self affinity, whatever its kernel


def kl_per_element(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Logits (B, K, H, W) of both -> scalar: t * (log t - log p), its mean over all B K H W.

    p, t: softmax of student and teacher at this temperature. Ignored pixels count too. (GSVNet,
    ETC; a mean over pixels would be K times as large.)
    """
    log_p = (student.float() / temperature).log_softmax(1)
    log_t = (teacher.float() / temperature).log_softmax(1)
    return (log_t.exp() * (log_t - log_p)).mean()


def cosine_affinity(x: Tensor, y: Tensor, *, swapped: bool = False) -> Tensor:
    """Maps (B, C, h, w) of two frames -> (B, P, P), P = h w: the cosine of each pair of pixels.

    Rows are pixels of x, columns those of y. swapped: divided by the norms of the pixels at the
    same places in the other frame, as ETC's code computes it.
    """
    x = x.float().flatten(2)  # (B, C, P)
    y = y.float().flatten(2)
    row_norms = (y if swapped else x).norm(dim=1)
    column_norms = (x if swapped else y).norm(dim=1)
    norms = row_norms[:, :, None] * column_norms[:, None]
    # Of a pixel of zeros the products are 0, and so are its gradients.
    norms = torch.where(norms > 0, norms, torch.inf)
    # In half precision cosines would be off by more than what is learnt from them.
    with torch.autocast(x.device.type, enabled=False):
        return x.transpose(1, 2) @ y / norms


def pairwise_frames(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], *, swapped: bool = False
) -> Tensor:
    """Maps (current, other) of both networks, all of one size (h, w) -> scalar.

    The squared difference of their affinities between the frames; channels may differ.
    """
    ours = cosine_affinity(*student, swapped=swapped)
    theirs = cosine_affinity(*teacher, swapped=swapped)
    return F.mse_loss(ours, theirs)


def pairwise_self(student: Tensor, teacher: Tensor, pool: int = 2) -> Tensor:
    """Maps (B, C, h, w) of one frame, C may differ -> scalar: affinities within the frame."""
    ours, theirs = (F.avg_pool2d(x, pool, SELF_STRIDE) for x in (student, teacher))
    return F.mse_loss(cosine_affinity(ours, ours), cosine_affinity(theirs, theirs))
