"""DIS: dense inverse search (Kroeger et al., ECCV 2016), computed by OpenCV on the CPU.

It needs no weights. Patches of grey pictures are matched from coarse to fine.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .provider import FlowProvider

PRESETS = ("ultrafast", "fast", "medium")
# OpenCV takes brightness as 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).
GREY = (0.299, 0.587, 0.114)
SMALLEST = 12  # pixels: on smaller frames the coarsest level has no patch


class DIS(FlowProvider):
    """Flow on the frame's own grid; not differentiable."""

    needs_weights = False

    def __init__(self, preset: str = "fast"):
        """preset: "ultrafast", "fast" or "medium"; slower ones are finer."""
        super().__init__()
        self.preset = preset

    @cached_property
    def search(self):
        import cv2

        return cv2.DISOpticalFlow_create(
            getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{self.preset.upper()}")
        )

    @torch.no_grad()
    def forward(self, frame: Tensor, previous: Tensor) -> Tensor:
        if min(frame.shape[-2:]) < SMALLEST:
            return frame.new_zeros(frame.shape[0], 2, *frame.shape[-2:])
        pairs = zip(grey(frame), grey(previous), strict=True)
        flows = np.stack([self.search.calc(now, before, None) for now, before in pairs])
        return torch.from_numpy(flows).to(frame.device).permute(0, 3, 1, 2)


def grey(frames: Tensor) -> np.ndarray:
    """frames (B, 3, H, W) in [0, 1] -> (B, H, W) uint8."""
    weights = frames.new_tensor(GREY).view(1, 3, 1, 1)
    brightness = (frames * weights).sum(1).mul(255).round().clamp(0, 255)
    return brightness.to("cpu", torch.uint8).numpy()
