"""Flow networks of SwNet-seq (GSVNet): they see frames at an eighth of their size.

    frame, previous -- shrink --> small frames -- estimate --> map -- / 4 --> displacement

A displacement is in cells of the small frame. Sizes change bilinearly with align_corners=True, as
published.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..backbones.backbone import Normalize
from ..ops.resize import resize_aligned
from ..ops.warp import scale_flow
from .provider import FlowProvider, require_pair

CELL = 8  # pixels of the frame, per side
UNITS = 4  # what these networks give for a displacement of one cell
# Published for 0..255: of R, G, B
MEAN = (73.15 / 255, 82.90 / 255, 72.3 / 255)
STD = (47.67 / 255, 48.49 / 255, 47.73 / 255)


class SmallPicture(nn.Module):
    """frame (B, 3, H, W), RGB in [0, 1] -> (B, 3, H // 8, W // 8), BGR, normalised."""

    def __init__(self):
        super().__init__()
        self.normalize = Normalize(MEAN, STD)

    @staticmethod
    def size(frame_size: tuple[int, int]) -> tuple[int, int]:
        """Of the small picture; (H, W) of the frame."""
        height, width = frame_size
        return max(height // CELL, 1), max(width // CELL, 1)

    def forward(self, frame: Tensor) -> Tensor:
        # Normalised last, where there are fewest pixels: linear steps may change places.
        return self.normalize(resize_aligned(frame, self.size(frame.shape[-2:]))).flip(1)


class SmallFlow(FlowProvider):
    """Base class. A subclass gives `estimate`; its parts are named as published."""

    capturable = True
    smallest = 1  # the smallest side of a small frame that `estimate` takes

    def __init__(self):
        super().__init__()
        self.shrink = SmallPicture()

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.shrink.size(size)

    def identity(self) -> str:
        name = super().identity()
        # Unlike RAFT they compute in half precision where the method does.
        kind = next(self.parameters()).device.type
        if torch.is_autocast_enabled(kind):
            name += f"-{torch.get_autocast_dtype(kind)}".replace("torch.", "")
        return name

    def estimate(self, small: Tensor, previous: Tensor) -> Tensor:
        """Small frames (B, 3, h, w) -> (B, 2, h', w') in quarters of a cell, of any size."""
        raise NotImplementedError(f"{type(self).__name__} has no estimate")

    def displacement(self, small: Tensor, previous: Tensor) -> Tensor:
        """Small frames (B, 3, h, w) -> (B, 2, h, w) in their cells, x first."""
        require_pair(small, previous)
        size = small.shape[-2:]
        taken = [max(side, self.smallest) for side in size]
        flow = self.estimate(resize_aligned(small, taken), resize_aligned(previous, taken))
        # Half precision would be off by a tenth of a cell.
        flow = flow.to(torch.promote_types(flow.dtype, torch.float32))
        # Its values stay what they are when the map is resized (published).
        cells = resize_aligned(flow, size) / UNITS
        if list(size) == taken:
            return cells
        return scale_flow(cells, size[1] / taken[1], size[0] / taken[0])

    def forward(self, frame: Tensor, previous: Tensor) -> Tensor:
        """-> flow (B, 2, H // 8, W // 8) in pixels of the frame."""
        require_pair(frame, previous)
        cells = self.displacement(self.shrink(frame), self.shrink(previous))
        height, width = cells.shape[-2:]
        return scale_flow(cells, frame.shape[-1] / width, frame.shape[-2] / height)
