"""What all policies share: the first frame, scene cuts, the longest distance."""

from __future__ import annotations

from .context import FIRST, Decision, FrameContext, Policy, is_first
from .cuts import SceneCuts

CUT = "cut"


class Schedule:
    """A policy with scene cuts and a longest distance in front of it."""

    def __init__(self, policy: Policy, cuts: SceneCuts | None = None, longest: int | None = None):
        """cuts: a scene cut forces a key frame. longest: frames between two key frames, at most."""
        self.policy = policy
        self.cuts = cuts
        self.longest = longest

    def decide(self, context: FrameContext) -> Decision:
        if is_first(context):
            return FIRST
        numbers = {}
        if self.cuts:
            numbers[CUT] = self.cuts.measure(context)
            if numbers[CUT] > self.cuts.threshold:
                return Decision(True, "scene cut", numbers, cut=True)
        answer = self.policy.decide(context)
        numbers |= answer.numbers
        if self.longest is not None and context.age >= self.longest and not answer.key:
            return Decision(True, f"longest distance of {self.longest}", numbers)
        return answer._replace(numbers=numbers)
