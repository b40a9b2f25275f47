"""Frames that arrive at a fixed rate, and a network that is busy while it labels one: simulated.

A network that is free takes the newest frame; those that came while it was busy are never labelled.
Source: streaming accuracy (Li et al., "Towards Streaming Perception", ECCV 2020, section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

TOLERANCE = 1e-9  # seconds: a sum of times may miss the arrival that it meets


class Taken(NamedTuple):
    """A frame that the network took."""

    index: int
    prediction: Any
    end: float  # when it is done, in seconds since the first frame arrived


# (index of the frame) -> its prediction, and the seconds that it takes. It is asked for the frame
# that has just arrived or the one before it; indices rise.
Take = Callable[[int], tuple[Any, float]]


class Timeline:
    """One video; time is counted, nothing waits."""

    def __init__(self, interval: float):
        """interval: seconds between two frames."""
        self.interval = interval
        self.newest = -1  # index of the frame that arrived last
        self.running: Taken | None = None
        self.finished: Taken | None = None

    def arrive(self, take: Take) -> Taken | None:
        """The next frame comes -> the newest finished one at that moment, if there is any."""
        now = (self.newest + 1) * self.interval
        # What ends earlier makes room for the frame before this one.
        self.finish_until(now - TOLERANCE, take)
        self.newest += 1
        if self.running is None:
            self.start(now, take)
        # What ends at this moment counts, and makes room for this frame.
        self.finish_until(now + TOLERANCE, take)
        return self.finished

    def finish_until(self, time: float, take: Take) -> None:
        """All that ends by then, one after the other."""
        while self.running and self.running.end <= time:
            self.finished = self.running
            self.running = None
            if self.finished.index < self.newest:
                self.start(self.finished.end, take)

    def start(self, now: float, take: Take) -> None:
        """The free network takes the newest frame."""
        prediction, seconds = take(self.newest)
        self.running = Taken(self.newest, prediction, now + seconds)
