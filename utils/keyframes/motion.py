"""Key frames by motion: what has moved far was propagated through many small errors."""

from __future__ import annotations

import math

import torch

from .context import FIRST, Decision, FrameContext, flow_of, is_first

NAME = "motion"


class Motion:
    """A key frame where the motion since the last one, added up frame by frame, is too large.

    Motion of a frame: the mean length of its flow, as a share of the frame's diagonal, so that
    one threshold serves all sizes.
    """

    def __init__(self, threshold: float):
        """threshold: 0.02 is a fiftieth of the diagonal."""
        self.threshold = threshold

    def decide(self, context: FrameContext) -> Decision:
        if is_first(context):
            return FIRST
        diagonal = math.hypot(*context.frame.shape[-2:])
        flow = flow_of(context, "motion").float()
        # Ten times as fast as norm(dim=1).
        moved = float(torch.hypot(flow[:, 0], flow[:, 1]).mean()) / diagonal
        total = context.so_far(NAME) + moved
        key = total > self.threshold
        relation = "above" if key else "within"
        return Decision(key, f"motion {relation} {self.threshold:g}", {NAME: total})
