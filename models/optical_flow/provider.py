"""The contract of optical flow: where the content of a frame was in the frame before it.

    provider(frame, previous) -> flow        previous(p + flow(p)) shows what frame(p) shows

Flow is in pixels of the frame, channel 0 to the right, channel 1 down. Its grid lies over the whole
frame and may be coarser: models.ops.warp.resize_flow brings it to another grid. Frames of any size
are taken.
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WEIGHTS_DIGITS = 12  # hexadecimal ones that tell sets of weights apart


class FlowProvider(nn.Module):
    """Base class of flow networks and of what computes flow without one."""

    # whether its weights come from a file: without one, nothing it computes means anything
    needs_weights = True
    # whether a CUDA graph can hold it: nothing of it runs on the CPU
    capturable = False
    # cache.FlowCache: flow that it has on disk is not computed; None: all is computed
    cache = None

    def __call__(self, frame: Tensor, previous: Tensor) -> Tensor:
        compute = super().__call__
        if self.cache is None:
            return compute(frame, previous)
        return self.cache(self, compute, frame, previous)

    def forward(self, frame: Tensor, previous: Tensor) -> Tensor:
        """Frames (B, 3, H, W), RGB in [0, 1] -> flow (B, 2, h, w) in pixels of the frame."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the flow of frames of this size."""
        return size

    def identity(self) -> str:
        """What decides its flow beside the frames, as a name of a folder."""
        return f"{type(self).__name__}-{self.weights_fingerprint()}"

    def weights_fingerprint(self) -> str:
        """Of all weights and buffers: two sets that differ have two."""
        found = hashlib.sha256()
        for name, value in self.state_dict().items():
            found.update(name.encode())
            # reshape: numbers of batches have no dimension, and no bytes to look at
            found.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy())
        return found.hexdigest()[:WEIGHTS_DIGITS]

    def key_maps(self) -> list:
        """Published checkpoints that this network reads (models.keymaps.KeyMap)."""
        return []


def require_pair(frame: Tensor, previous: Tensor) -> None:
    """ValueError unless these are two frames of one size."""
    if frame.ndim != 4 or frame.shape[1] != 3 or frame.shape != previous.shape:
        raise ValueError(
            "optical flow needs two frames (B, 3, H, W) of one size, got "
            f"{tuple(frame.shape)} and {tuple(previous.shape)}"
        )


def extend(frame: Tensor, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """Repeat the border of (B, 3, H, W) on all sides -> (B, 3, *size), place of its first pixel."""
    down = size[0] - frame.shape[-2]
    across = size[1] - frame.shape[-1]
    top = down // 2
    left = across // 2
    if not down and not across:
        return frame, (0, 0)
    sides = (left, across - left, top, down - top)
    return F.pad(frame, sides, mode="replicate"), (top, left)


def crop(flow: Tensor, start: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The part of (B, 2, H, W) that `extend` was given."""
    top, left = start
    return flow[..., top : top + size[0], left : left + size[1]]
