"""Key frames by photometric error: where flow does not explain a frame, labels cannot follow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .context import FIRST, Decision, FrameContext, flow_of, is_first

NAME = "error"
DIFFERENT = 0.1  # of brightness: above noise and compression, below most edges of objects


class UnexplainedPixels:
    """A key frame where too many pixels since the last one are not explained by flow.

    Unexplained is a pixel whose brightness, in the frame before and where flow points, is
    another, or that came from outside of the frame. Shares of pixels, not mean errors: a mean
    also rises with texture and noise, which labels do not suffer from. Shares are added up from
    frame to frame, because a wrong label is carried on until the next key frame.
    """

    def __init__(self, threshold: float):
        """threshold: a share of the pixels, added up: 0.1 for a tenth."""
        self.threshold = threshold

    def decide(self, context: FrameContext) -> Decision:
        if is_first(context):
            return FIRST
        flow = flow_of(context, "error")
        size = context.frame.shape[-2:]
        share = float(unexplained(context.small, context.small_before, flow, size))
        total = context.so_far(NAME) + share
        key = total > self.threshold
        relation = "above" if key else "within"
        return Decision(key, f"error {relation} {self.threshold:g}", {NAME: total})


def unexplained(now: Tensor, before: Tensor, flow: Tensor, frame_size: tuple[int, int]) -> Tensor:
    """Grey copies (B, h, w), flow (B, 2, h', w') in pixels of the frame -> a share, scalar."""
    grid = sampling_grid(flow.float(), now.shape[-2:], frame_size)
    inside = (grid.abs() <= 1).all(-1)  # (B, h, w)
    warped = F.grid_sample(before[:, None].float(), grid, align_corners=True)[:, 0]
    difference = now.float() - warped
    # The camera's exposure changes all pixels alike. The median of what is inside, not of zeros.
    outside = ~inside
    exposure = difference.masked_fill(outside, torch.nan).flatten(1).nanmedian(1).values
    wrong = (difference - exposure.nan_to_num()[:, None, None]).abs() > DIFFERENT
    return (wrong | outside).float().mean()


def sampling_grid(flow: Tensor, size: tuple[int, int], frame_size: tuple[int, int]) -> Tensor:
    """flow (B, 2, h', w') in pixels of the frame -> places (B, *size, 2) in [-1, 1].

    Relative to the frame both grids are the same, so flow is scaled by the frame's own sides.
    """
    height, width = size
    flow = F.interpolate(flow, (height, width), mode="bilinear", align_corners=False)
    # In cells of the small grid, whose last one lies at 1.
    across = flow[:, 0] * (width / frame_size[1]) * (2 / max(width - 1, 1))
    down = flow[:, 1] * (height / frame_size[0]) * (2 / max(height - 1, 1))
    x = torch.linspace(-1, 1, width, device=flow.device) + across
    y = torch.linspace(-1, 1, height, device=flow.device)[:, None] + down
    return torch.stack([x, y], dim=-1)
