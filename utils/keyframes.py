"""Which frames of a video are key frames: policies that the stepper asks before each frame.

A policy sees a FrameContext and answers with a Decision: key or not, and why. The answer is
recorded per frame and handed to the method as `step(..., key=)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from torch import Tensor


@dataclass(frozen=True)
class FrameContext:
    """What a policy may look at before a frame is labelled.

    frame: (B, 3, H, W) RGB in [0, 1], the one to be labelled next.
    age: frames labelled since the last key frame (0: it came right before); None without one.
    previous: (B, 3, H, W), the frame before; None at the start of a video.
    provider: (frame, previous) -> flow (B, 2, H, W) on the frame's grid; None where there is none.
    elapsed: seconds since the frame before came; None at the start of a video.
    cost: seconds that labelling this video took so far.
    """

    frame: Tensor
    age: int | None = None
    previous: Tensor | None = None
    provider: Callable[[Tensor, Tensor], Tensor] | None = None
    elapsed: float | None = None
    cost: float = 0.0

    @cached_property
    def flow(self) -> Tensor | None:
        """Optical flow (B, 2, H, W) from the frame into the one before; computed when asked for."""
        if self.provider is None or self.previous is None:
            return None
        return self.provider(self.frame, self.previous)


class Decision(NamedTuple):
    """What a policy answers."""

    key: bool
    why: str  # a few words for logs and reports: "first frame"


class Policy(Protocol):
    """Chooses the key frames of a batch of videos, which share one schedule."""

    def decide(self, context: FrameContext) -> Decision: ...


class FixedInterval:
    """Every `interval`-th frame is a key frame, the first included: 0, interval, 2 * interval."""

    def __init__(self, interval: int):
        """ValueError where the interval is below 1; 1 makes every frame a key frame."""
        if interval < 1:
            raise ValueError(f"the key frame interval must be at least 1, got {interval}")
        self.interval = interval

    def decide(self, context: FrameContext) -> Decision:
        if context.age is None or context.age < 0:
            return Decision(True, "first frame")
        if context.age + 1 >= self.interval:
            return Decision(True, f"interval of {self.interval}")
        return Decision(False, f"{context.age + 2} of {self.interval}")
