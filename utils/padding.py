"""Frames of any size for networks that want certain sizes, in training (at test time:
utils/views.py)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .views import pad_edges

IGNORE = 255


def pad_batch(
    size_rule, frames: Tensor, labels: Tensor, flows: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """frames (B, T, 3, H, W), labels (B, T, H, W), flows (B, T-1, 2, H, W) -> the same at a size
    that works.

    At the right and bottom: frames repeat their edge, labels are 255, flows 0.
    """
    height, width = frames.shape[-2:]
    below = size_rule.fit(height) - height
    right = size_rule.fit(width) - width
    if not (below or right):
        return frames, labels, flows
    border = (0, right, 0, below)
    flows = None if flows is None else F.pad(flows, border)
    return pad_edges(frames, size_rule), F.pad(labels, border, value=IGNORE), flows
