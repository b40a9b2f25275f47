"""DIS: dense inverse search (Kroeger et al., ECCV 2016), computed by OpenCV on the CPU.

It needs no weights. Patches of grey pictures are matched from coarse to fine, down to a quarter of
the frame's size (medium: half), and the result is enlarged. Frames of half the size cost a third,
but what they give warps clearly worse, so frames are taken as they are.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from torch import Tensor

from .provider import FlowProvider, crop, extend, require_pair

PRESETS = ("ultrafast", "fast", "medium")
# OpenCV takes brightness as 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).
GREY = (0.299, 0.587, 0.114)
# On smaller frames OpenCV changes the preset of its object for all later ones, reads beyond the
# picture (a segmentation fault on 12x300) or refuses.
SHORTEST = 32
LONGEST = 96  # of the longer side

# OpenCV's object has buffers of its own: one a thread. It can be neither copied nor pickled, so it
# lies here and not on a module.
searches = threading.local()


class DIS(FlowProvider):
    """Flow on the frame's own grid; not differentiable."""

    needs_weights = False

    def __init__(self, preset: str = "fast"):
        """preset: "ultrafast", "fast" or "medium"; slower ones are finer."""
        super().__init__()
        if preset not in PRESETS:
            raise ValueError(f"DIS has the presets {', '.join(PRESETS)}, not {preset}")
        self.preset = preset

    def identity(self) -> str:
        return f"DIS-{self.preset}"

    @torch.no_grad()
    def forward(self, frame: Tensor, previous: Tensor) -> Tensor:
        require_pair(frame, previous)
        size = frame.shape[-2:]
        taken = size_taken(*size)
        now, start = extend(grey(frame), taken)
        before, _ = extend(grey(previous), taken)
        flow = search(self.preset, as_bytes(now), as_bytes(before))
        return crop(flow, start, size).to(frame.device)


def size_taken(height: int, width: int) -> tuple[int, int]:
    """The size that a frame is extended to where it is tiny."""
    height = max(height, SHORTEST)
    width = max(width, SHORTEST)
    if max(height, width) < LONGEST:
        width = LONGEST
    return height, width


def grey(frames: Tensor) -> Tensor:
    """frames (B, 3, H, W) in [0, 1] -> (B, 1, H, W), brightness in 0..255."""
    red, green, blue = frames.float().split(1, 1)
    # Channel by channel: frames are channels last, where a product with three weights is slow.
    brightness = red * (255 * GREY[0])
    brightness.add_(green, alpha=255 * GREY[1]).add_(blue, alpha=255 * GREY[2])
    return brightness.clamp_(0, 255)


def as_bytes(brightness: Tensor) -> np.ndarray:
    """(B, 1, H, W) -> (B, H, W) uint8, rounded, on the CPU."""
    return brightness[:, 0].round().to("cpu", torch.uint8).numpy()


def search(preset: str, frames: np.ndarray, previous: np.ndarray) -> Tensor:
    """Grey frames (B, H, W) uint8 -> flow (B, 2, H, W) in pixels, x first."""
    found = vars(searches)
    if preset not in found:
        found[preset] = new_search(preset)
    pairs = zip(frames, previous, strict=True)
    flows = [torch.from_numpy(found[preset].calc(now, before, None)) for now, before in pairs]
    # OpenCV's arrays are channels last; one is not copied.
    stacked = flows[0][None] if len(flows) == 1 else torch.stack(flows)
    return stacked.permute(0, 3, 1, 2)


def new_search(preset: str):
    try:
        import cv2
    except ImportError as error:
        raise RuntimeError(
            "--flow dis needs OpenCV: pip install opencv-python-headless (or choose another --flow)"
        ) from error
    # Its own thread pool does not survive the fork of loader workers.
    cv2.setNumThreads(0)
    number = getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}")
    return cv2.DISOpticalFlow_create(number)
