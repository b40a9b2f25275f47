"""Distillation: a network learns what a frozen teacher predicts."""

from __future__ import annotations

from torch import Tensor


def kl_per_element(student: Tensor, teacher: Tensor) -> Tensor:
    """Logits (B, K, H, W) of both -> scalar: t * (log t - log p), its mean over all B K H W.

    p, t: softmax of student and teacher. Ignored pixels count too. (GSVNet; a mean over pixels
    would be K times as large.)
    """
    log_p = student.float().log_softmax(1)
    log_t = teacher.float().log_softmax(1)
    return (log_t.exp() * (log_t - log_p)).mean()
