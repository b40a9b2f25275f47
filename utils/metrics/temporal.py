"""TC as a metric of an evaluation: each prediction against the next one along optical flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from .evaluation_metric import EvaluationMetric, ScoredFrame
from .temporal_consistency import TemporalConsistency


class Motion(NamedTuple):
    """Optical flow of a frame into the next one, and what tells occlusion."""

    flow: Tensor  # (2, H, W)
    backward: Tensor | None = None  # (2, H, W) of the next frame into this one
    occluded: Tensor | None = None  # (H, W) bool, where it is known exactly


# (video, index, (H, W)) -> motion of the frame before `index` into it
PairMotion = Callable[[int, int, tuple[int, int]], Motion]


class Temporal(EvaluationMetric):
    """Temporal consistency over densely labelled videos."""

    def __init__(self, num_classes: int, mode: str, motion: PairMotion, source: str):
        """source: where the flow comes from, in words; it is part of the result."""
        self.metric = TemporalConsistency(num_classes, mode)
        self.motion = motion
        self.source = source
        self.before: ScoredFrame | None = None

    def update(self, frame: ScoredFrame) -> None:
        before = self.before
        if before is not None and frame.index == before.index + 1:
            self.add(before.prediction[0], frame)
        self.before = frame

    def add(self, before: Tensor, frame: ScoredFrame) -> None:
        """Count a pair of predictions, the first of them (H, W)."""
        prediction = frame.prediction[0]
        found = self.motion(frame.video, frame.index, tuple(prediction.shape))
        mask = {}
        # The other modes have no mask.
        if self.metric.mode == "strict":
            mask = {"backward_flow": found.backward, "occluded": found.occluded}
        self.metric.update(before, prediction, found.flow, **mask)

    def end_video(self) -> None:
        self.before = None

    def sums(self) -> dict:
        return {"counts": self.metric.counts.clone(), "totals": self.metric.totals.clone()}

    def restore(self, sums: dict) -> None:
        # A new one: a shallow copy of this metric shares the old one.
        self.metric = TemporalConsistency(self.metric.num_classes, self.metric.mode)
        self.metric.counts = sums["counts"].clone()
        self.metric.totals = sums["totals"].clone()

    def merge(self, other: Temporal) -> None:
        self.metric.merge(other.metric)

    def compute(self) -> dict[str, Any]:
        found = self.metric.compute()
        # The per-class table is that of the labels.
        found.pop("IoU")
        return {self.metric.name: found | {"flow": self.source}}
