"""TC as a metric of an evaluation: each prediction against the next one along optical flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
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
# (video, index) -> whether frames of the video are missing before the frame `index`
GapBefore = Callable[[int, int], bool]


class Videos:
    """How many videos there were, and in how many of them the prediction never changed."""

    def __init__(self, videos: int = 0, constant: int = 0):
        self.videos = videos
        self.constant = constant
        self.frames = 0  # of the video at hand
        self.first: Tensor | None = None  # its first prediction, as long as all are the same

    @property
    def counts(self) -> tuple[int, int]:
        """Videos of two frames and more, and those of them that are constant."""
        pairs = self.frames > 1  # in the video at hand
        return self.videos + pairs, self.constant + (pairs and self.first is not None)

    def add(self, prediction: Tensor) -> None:
        """The next prediction of the video at hand."""
        if self.frames == 0:
            self.first = prediction
        elif self.first is not None and not torch.equal(self.first, prediction):
            self.first = None
        self.frames += 1

    def end(self) -> None:
        """The next prediction is the first of another video."""
        self.videos, self.constant = self.counts
        self.frames = 0
        self.first = None

    def merge(self, other: Videos) -> None:
        """Add what another rank has seen, which ends the video at hand."""
        self.end()
        videos, constant = other.counts
        self.videos += videos
        self.constant += constant


class Temporal(EvaluationMetric):
    """Temporal consistency over densely labelled videos."""

    def __init__(
        self,
        num_classes: int,
        mode: str,
        motion: PairMotion,
        source: str,
        gap_before: GapBefore = lambda video, index: False,
    ):
        """source: where the flow comes from, in words; it is part of the result."""
        self.metric = TemporalConsistency(num_classes, mode)
        self.motion = motion
        self.source = source
        self.gap_before = gap_before
        self.before: ScoredFrame | None = None
        self.videos = Videos()

    def update(self, frame: ScoredFrame) -> None:
        before = self.before
        self.videos.add(frame.prediction)
        follows = before is not None and frame.index == before.index + 1
        if follows and not self.gap_before(frame.video, frame.index):
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
        self.videos.end()

    def sums(self) -> dict:
        return {
            "counts": self.metric.counts.clone(),
            "totals": self.metric.totals.clone(),
            "videos": self.videos.counts,
        }

    def restore(self, sums: dict) -> None:
        # A new one: a shallow copy of this metric shares the old one.
        self.metric = TemporalConsistency(self.metric.num_classes, self.metric.mode)
        self.metric.counts = sums["counts"].clone()
        self.metric.totals = sums["totals"].clone()
        self.videos = Videos(*sums["videos"])

    def merge(self, other: Temporal) -> None:
        self.metric.merge(other.metric)
        self.videos.merge(other.videos)

    def compute(self) -> dict[str, Any]:
        videos, constant = self.videos.counts
        counted = {"videos": videos, "constant_videos": constant, "flow": self.source}
        return {self.metric.name: self.metric.compute() | counted}
