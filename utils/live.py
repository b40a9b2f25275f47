"""What a viewer has on the screen while a network labels a video live: always somewhat old."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from .metrics.evaluation_metric import LiveFrame
from .predictions import labels_at
from .stepper import Stepper
from .timeline import Timeline


class Arrivals(NamedTuple):
    """How fast frames come, and how long each takes."""

    rate: Callable[[int], float]  # video -> frames a second
    latency: float | None  # seconds; None: as measured


class Known(NamedTuple):
    """A frame that may still be taken, as the evaluation has labelled it."""

    frame: Tensor  # (1, 3, H, W)
    prediction: Tensor  # (1, H', W')
    seconds: float
    after: Stepper | None  # how a network with memory goes on from it


class Live:
    """A viewer beside an evaluation that labels every frame.

    Its predictions serve here as long as the network has seen the same frames: it has no memory,
    or no frame was left out so far. From the first gap on a network with memory goes on apart, with
    the frames that it takes.
    """

    def __init__(self, main: Stepper, arrivals: Arrivals):
        """main: the stepper of the evaluation."""
        self.main = main
        self.arrivals = arrivals
        self.measures = arrivals.latency is None
        main.waits = self.measures
        self.warm = False

    def begin(self, video: int) -> None:
        """The next frame is the first of a video."""
        self.timeline = Timeline(1 / self.arrivals.rate(video))
        self.known: dict[int, Known] = {}
        self.last = -1  # the frame that was taken last
        self.after_last: Stepper | None = None
        self.apart: Stepper | None = None

    def __call__(self, frame: Tensor, prediction: Tensor) -> LiveFrame:
        """frame (1, 3, H, W), which `main` has just labelled as `prediction` (1, H', W')."""
        index = self.timeline.newest + 1
        after = None if self.main.forgets else self.main.fork()
        self.known.pop(index - 2, None)
        self.known[index] = Known(frame, prediction, self.seconds_of(frame), after)
        self.spent: list[float] = []
        shown = self.timeline.arrive(self.take)
        return LiveFrame(
            prediction=shown.prediction if shown else None,
            age=index - shown.index if shown else None,
            seconds=tuple(self.spent),
        )

    def seconds_of(self, frame: Tensor) -> float:
        """What `main` took for this frame."""
        if self.warm or not self.measures:
            return self.main.seconds
        # The first time libraries choose their kernels.
        self.warm = True
        again = self.main.fork()
        again.reset()
        again(frame)
        return again.seconds

    def take(self, index: int) -> tuple[Tensor, float]:
        """The network labels this frame -> its prediction, seconds."""
        known = self.known[index]
        if index > self.last + 1 and self.apart is None:
            self.apart = self.after_last
        prediction = known.prediction
        seconds = known.seconds
        if self.apart is not None:
            scores = self.apart(known.frame)
            size = tuple(prediction.shape[-2:])
            prediction = labels_at(scores, size, self.main.model.backbone.align_corners)
            seconds = self.apart.seconds
        self.last = index
        self.after_last = known.after
        if not self.measures:
            seconds = self.arrivals.latency
        self.spent.append(seconds)
        return prediction, seconds
