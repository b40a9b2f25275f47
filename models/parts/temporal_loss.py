"""The temporal loss of ETC (Liu et al., ECCV 2020): a pixel keeps its scores along its motion.

frame I --+-- difference --> mask
frame J --|-- warp ---+
          |
scores of J -- warp --+-- difference to the scores of I, masked and squared --> loss
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.warp import warp

# How colour differences over the channels become a mask: published is the absolute value of their
# sum, in which opposite errors of two colours cancel.
MASKS = ("absolute", "sum", "none")


def motion_mask(frame: Tensor, warped: Tensor, kind: str = "absolute") -> Tensor:
    """Normalised frames (B, 3, H, W), the second along the motion -> (B, 1, H, W) in (0, 1].

    exp(-difference) is small where the flow is wrong or something is hidden. ValueError: no kind.
    """
    difference = frame - warped
    if kind == "absolute":
        return (-difference.abs().sum(1, keepdim=True)).exp()
    if kind == "sum":
        return (-difference.sum(1, keepdim=True).abs()).exp()
    if kind == "none":
        return torch.ones_like(difference[:, :1])
    raise ValueError(f"a motion mask is one of {', '.join(MASKS)}, got {kind!r}")


def motion_loss(scores: Tensor, other_scores: Tensor, flow: Tensor, mask: Tensor) -> Tensor:
    """Scores of two frames (B, K, H, W), flow (B, 2, H, W) into the other -> scalar.

    mask (B, 1, H, W). The mean over all B K H W of the squared, masked difference; gradients reach
    both frames, the other one through the warp.
    """
    warped = warp(other_scores.float(), flow.float(), padding="border")
    return (mask * scores.float() - mask * warped).square().mean()
