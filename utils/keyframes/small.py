"""Small grey copies of frames: what policies look at, because it costs little."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

LONG_SIDE = 128  # pixels of a copy
# Brightness as 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).
GREY = (0.299, 0.587, 0.114)


def grey_copy(frame: Tensor) -> Tensor:
    """frame (B, 3, H, W) in [0, 1] -> (B, h, w) in [0, 1], at most LONG_SIDE wide and high."""
    height, width = frame.shape[-2:]
    scale = min(LONG_SIDE / max(height, width), 1.0)
    # Averaging all pixels would take most of the time: every n-th is enough of a large frame.
    step = max(round(1 / (2 * scale)), 1)
    red, green, blue = frame[..., ::step, ::step].unbind(1)
    grey = GREY[0] * red + GREY[1] * green + GREY[2] * blue
    size = (max(round(scale * height), 1), max(round(scale * width), 1))
    return F.interpolate(grey[:, None], size, mode="area")[:, 0]
