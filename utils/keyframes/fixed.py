"""Key frames at equal distances."""

from __future__ import annotations

from .context import FIRST, Decision, FrameContext, is_first


class FixedInterval:
    """`interval` frames between two key frames; 0 makes every frame a key frame.

    The published "frame interval" of SwNet-seq; GSVNet's l is one more.
    """

    def __init__(self, interval: int):
        """ValueError where the interval is negative."""
        if interval < 0:
            raise ValueError(f"the key frame interval must be at least 0, got {interval}")
        self.interval = interval

    def decide(self, context: FrameContext) -> Decision:
        if is_first(context):
            return FIRST
        if context.age >= self.interval:
            return Decision(True, f"interval of {self.interval}")
        return Decision(False, f"{context.age + 1} of {self.interval}")
