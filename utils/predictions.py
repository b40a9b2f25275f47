"""From a picture to the network's input, and from its scores to labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .views import resize_scores


def frame_tensor(image: np.ndarray, device: torch.device) -> Tensor:
    """image (H, W, 3) uint8 -> (1, 3, H, W) in [0, 1], channels last."""
    # PyTorch warns of memory that may not be written, which pictures from files are.
    image = np.require(image, requirements="W")
    return torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float().div_(255)


def label_map(scores: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """scores (1, K, h, w) -> the best class of each pixel, (H, W) uint8 on the CPU."""
    return labels_at(scores, size, align_corners)[0].to("cpu", torch.uint8)


def labels_at(scores: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """scores (B, K, h, w) -> the best class of each pixel, (B, H, W) int64."""
    return best_class(resize_scores(scores, size, align_corners))


def best_class(scores: Tensor) -> Tensor:
    """scores (B, K, H, W) -> (B, H, W) int64.

    As argmax(1), which on a CPU takes up to seven times as long.
    """
    return scores.max(1).indices


def best_probability(scores: Tensor, probabilities: bool) -> Tensor:
    """scores (B, K, H, W) -> the probability of the best class, (B, H, W) float32.

    probabilities: whether the scores are such; else they are logits. Logits are resized before
    their softmax is taken: so the class that is best here is the one that is predicted.
    """
    best = scores.float().amax(1)
    if probabilities:
        return best
    return (best - scores.float().logsumexp(1)).exp_()
