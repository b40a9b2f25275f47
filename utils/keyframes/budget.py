"""Key frames as often as a budget of time allows."""

from __future__ import annotations

from statistics import median

from .context import FIRST, Decision, FrameContext, is_first

KEY = "key_ms"
AVERAGE = "average_ms"


class Budget:
    """A key frame wherever the average time of the last frames, with it, stays in the budget.

    Its cost is expected to be the median of the key frames that were measured. The second frame
    of a video is a key frame too, because what the first one takes says little.
    """

    def __init__(self, milliseconds: float):
        """milliseconds: of labelling a frame, on average. ValueError where they are not positive.

        A budget below the cost of other frames cannot be kept; it leaves no key frames.
        """
        if not milliseconds > 0:
            raise ValueError(f"the budget must be above 0 milliseconds, got {milliseconds}")
        self.milliseconds = milliseconds

    def decide(self, context: FrameContext) -> Decision:
        if is_first(context):
            return FIRST
        expected = expected_key(context)
        if expected is None:
            return Decision(True, "a key frame is measured")
        spent = 1000 * sum(seconds for _, seconds in context.costs)
        average = (spent + expected) / (len(context.costs) + 1)
        key = average <= self.milliseconds
        relation = "within" if key else "above"
        why = f"with a key frame {relation} {self.milliseconds:g} ms"
        return Decision(key, why, {KEY: expected, AVERAGE: average})


def expected_key(context: FrameContext) -> float | None:
    """Milliseconds of a key frame; None before one was measured."""
    known = [seconds for key, seconds in context.costs if key]
    if known:
        return 1000 * median(known)
    # None among the last frames: what was expected before still holds.
    if context.last is None:
        return None
    return context.last.numbers.get(KEY)
