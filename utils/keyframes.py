"""When to spend a whole network on a frame: the policies that choose the key frames of a video.

The engine asks the policy before each frame and hands its answer to the method: `step(frame, state, key=...)`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Decision(NamedTuple):
    """What a policy answers."""

    key: bool
    why: str  # a few words for logs and reports: "first frame"


class Policy(Protocol):
    """Chooses the key frames of a batch of videos, which share one schedule."""

    def decide(self, frame: Tensor, age: int | None) -> Decision:
        """frame (B, 3, H, W) RGB in [0, 1], the one about to be labelled; age: how many frames were labelled since
        the last key frame (0: this one comes right after it), None where there is no key frame yet.
        """


class FixedInterval:
    """Every `interval`-th frame is a key frame, the first of a video included: 0, interval, 2 * interval, ..."""

    def __init__(self, interval: int):
        """ValueError where the interval is below 1; 1 makes every frame a key frame."""
        if interval < 1:
            raise ValueError(f"the key frame interval must be at least 1, got {interval}")
        self.interval = interval

    def decide(self, frame: Tensor, age: int | None) -> Decision:
        if age is None or age < 0:
            return Decision(True, "first frame")
        if age + 1 >= self.interval:
            return Decision(True, f"interval of {self.interval}")
        return Decision(False, f"{age + 2} of {self.interval}")
