"""What an evaluation measures: a list of metrics, each handed every labelled frame.

A metric counts sums only. It can be stored between two videos and restored (`sums`, `restore`),
added to another rank's (`merge`), and computes named results; `definitions` says in one line what
each of them is. The engine knows this interface and none of the metrics; a job chooses the list.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ..run.dist import gather
from ..views import resize_labels
from .confusion import ConfusionMatrix
from .evaluation_metric import EvaluationMetric, ScoredFrame
from .key_frames import DistanceIoU, Latency
from .video_consistency import VideoConsistency


def merged_over_ranks(metric: EvaluationMetric) -> EvaluationMetric:
    """A metric with what all ranks have counted, in rank order."""
    # Copies: what this rank goes on counting must not have the others' in it.
    first, *others = gather(metric.sums())
    total = copy.copy(metric)
    total.restore(first)
    for sums in others:
        other = copy.copy(metric)
        other.restore(sums)
        total.merge(other)
    return total


class IoU(EvaluationMetric):
    """The confusion matrix of all frames, and all that follows from it."""

    def __init__(self, num_classes: int):
        self.matrix = ConfusionMatrix(num_classes)

    def update(self, frame: ScoredFrame) -> None:
        self.matrix.update(frame.labels, frame.prediction)

    def sums(self) -> Tensor:
        return self.matrix.counts.clone()

    def restore(self, sums: Tensor) -> None:
        # A shallow copy of a metric shares its matrix: replace it rather than change it.
        self.matrix = copy.copy(self.matrix)
        self.matrix.counts = sums.clone()

    def merge(self, other: IoU) -> None:
        self.matrix.merge(other.matrix)

    def compute(self) -> dict[str, Any]:
        return self.matrix.compute()


class OriginalSizeIoU(IoU):
    """Predictions made at working size, enlarged to the labels' own size by nearest neighbour."""

    def update(self, frame: ScoredFrame) -> None:
        # Nearest neighbour, as LMANet enlarges its predictions for its second table.
        enlarged = resize_labels(frame.prediction, frame.full_labels.shape[-2:])
        self.matrix.update(frame.full_labels, enlarged)

    def compute(self) -> dict[str, Any]:
        results = super().compute()
        return {"original_size": {name: results[name] for name in ("mIoU", "IoU")}}


class GroupIoU(IoU):
    """mIoU over some of the frames, under a name of its own."""

    def __init__(self, name: str, num_classes: int, belongs: Callable[[int, int], bool]):
        """belongs: (video, index) -> whether the frame counts."""
        super().__init__(num_classes)
        self.name = name
        self.belongs = belongs

    def update(self, frame: ScoredFrame) -> None:
        if self.belongs(frame.video, frame.index):
            super().update(frame)

    def compute(self) -> dict[str, Any]:
        return {self.name: super().compute()["mIoU"]}


class Consistency(EvaluationMetric):
    """Video consistency over densely labelled videos."""

    def __init__(self, length: int, mode: str):
        self.metric = VideoConsistency(length, mode)

    def update(self, frame: ScoredFrame) -> None:
        self.metric.update_frame(frame.labels[0], frame.prediction[0])

    def end_video(self) -> None:
        self.metric.end_video()

    def sums(self) -> dict:
        return self.metric.sums()

    def restore(self, sums: dict) -> None:
        self.metric = VideoConsistency(self.metric.length, self.metric.mode)
        self.metric.restore(sums)

    def merge(self, other: Consistency) -> None:
        self.metric.merge(other.metric)

    def compute(self) -> dict[str, Any]:
        return {self.metric.name: self.metric.compute()}


class FrameCount(EvaluationMetric):
    """How many labelled frames were scored."""

    def __init__(self):
        self.frames = 0

    def update(self, frame: ScoredFrame) -> None:
        self.frames += 1

    def sums(self) -> int:
        return self.frames

    def restore(self, sums: int) -> None:
        self.frames = sums

    def merge(self, other: FrameCount) -> None:
        self.frames += other.frames

    def compute(self) -> dict[str, Any]:
        return {"frames": self.frames}

    def definitions(self) -> dict[str, str]:
        return {"frames": "labelled frames that were scored"}


class MeanLoss(EvaluationMetric):
    """The cross entropy per frame, as in training; None where the scores are no logits."""

    def __init__(self, cross_entropy: Callable[[Tensor, Tensor], Tensor] | None):
        """cross_entropy: (scores, labels) -> scalar; None where there is no loss to compute."""
        self.cross_entropy = cross_entropy
        self.total = 0.0
        self.frames = 0

    def update(self, frame: ScoredFrame) -> None:
        self.frames += 1
        if self.cross_entropy:
            self.total += self.cross_entropy(frame.scores, frame.labels).item()

    def sums(self) -> dict:
        return {"total": self.total, "frames": self.frames}

    def restore(self, sums: dict) -> None:
        self.total = sums["total"]
        self.frames = sums["frames"]

    def merge(self, other: MeanLoss) -> None:
        self.total += other.total
        self.frames += other.frames

    def compute(self) -> dict[str, Any]:
        if self.cross_entropy is None:
            return {"loss": None}
        return {"loss": self.total / max(self.frames, 1)}

    def definitions(self) -> dict[str, str]:
        return {"loss": "mean cross entropy per frame, with the class weights of the run"}


def standard_metrics(
    num_classes: int,
    *,
    consistency: bool,
    cross_entropy: Callable[[Tensor, Tensor], Tensor] | None = None,
    original_size: bool = False,
    degraded: Callable[[int, int], bool] | None = None,
    key_frames: bool = False,
    interval: int | None = None,
    further: Sequence[EvaluationMetric] = (),
) -> list[EvaluationMetric]:
    """What every evaluation measures, and `further` metrics.

    consistency: densely labelled videos are scored over time too. original_size: once more enlarged
    to the labels' own size. degraded: (video, index) -> whether a frame is known to be degraded;
    such frames are scored apart from the clean ones too. key_frames: scored by their distance from
    the key frame, and timed. interval: of a fixed schedule.
    """
    metrics: list[EvaluationMetric] = [IoU(num_classes)]
    if original_size:
        metrics.append(OriginalSizeIoU(num_classes))
    if degraded:
        metrics.append(GroupIoU("clean", num_classes, lambda *frame: not degraded(*frame)))
        metrics.append(GroupIoU("degraded", num_classes, degraded))
    if consistency:
        # The right definition first, then the one of published numbers.
        for mode in ("correct", "vspw"):
            metrics += [Consistency(length, mode) for length in (8, 16)]
    if key_frames:
        metrics += [DistanceIoU(num_classes, interval), Latency()]
    return [*metrics, *further, MeanLoss(cross_entropy), FrameCount()]
