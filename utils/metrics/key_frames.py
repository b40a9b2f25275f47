"""Methods with key frames: how good a frame is by its distance from the key frame, and what it
costs."""

from __future__ import annotations

import math
from typing import Any

import torch

from .confusion import ConfusionMatrix
from .evaluation_metric import EvaluationMetric, ScoredFrame

KINDS = {True: "key", False: "non_key"}


class DistanceIoU(EvaluationMetric):
    """A confusion matrix for each distance from the key frame, and the published means of them."""

    def __init__(self, num_classes: int, interval: int | None = None):
        """interval: non-key frames after each key frame; None where distances are not fixed."""
        self.num_classes = num_classes
        self.interval = interval
        self.matrices: dict[int, ConfusionMatrix] = {}
        self.frames: dict[int, int] = {}

    def update(self, frame: ScoredFrame) -> None:
        found = dict(frame.at_distance)
        if frame.distance is not None:
            found[frame.distance] = frame.prediction
        for distance, prediction in found.items():
            self.matrix(distance).update(frame.labels, prediction)
            self.frames[distance] = self.frames.get(distance, 0) + 1

    def matrix(self, distance: int) -> ConfusionMatrix:
        if distance not in self.matrices:
            # It may be added to later, where there is no inference mode.
            with torch.inference_mode(False):
                self.matrices[distance] = ConfusionMatrix(self.num_classes)
        return self.matrices[distance]

    def sums(self) -> dict:
        counts = {distance: matrix.counts.clone() for distance, matrix in self.matrices.items()}
        return {"counts": counts, "frames": dict(self.frames)}

    def restore(self, sums: dict) -> None:
        # New dicts: a shallow copy of a metric shares the old ones.
        self.matrices = {}
        for distance, counts in sums["counts"].items():
            self.matrix(distance).counts = counts.clone()
        self.frames = dict(sums["frames"])

    def merge(self, other: DistanceIoU) -> None:
        for distance, matrix in other.matrices.items():
            self.matrix(distance).merge(matrix)
            self.frames[distance] = self.frames.get(distance, 0) + other.frames[distance]

    def pooled(self) -> ConfusionMatrix:
        """All distances together."""
        total = ConfusionMatrix(self.num_classes)
        for matrix in self.matrices.values():
            total.merge(matrix)
        return total

    def compute(self) -> dict[str, Any]:
        known = sorted(self.matrices)
        values = {distance: self.matrices[distance].compute()["mIoU"] for distance in known}
        results: dict[str, Any] = {
            "mIoU": {str(distance): values[distance] for distance in known},
            "frames": {str(distance): self.frames[distance] for distance in known},
        }
        if self.interval is not None:
            results |= self.published(list(values.values()))
        return {"key_distance": results}

    def published(self, values: list[float]) -> dict[str, float]:
        """The means of a fixed schedule, under their conventions."""
        average = self.pooled().compute()
        # Before a key frame has been so long ago there is nothing to count.
        last = self.matrices.get(self.interval, ConfusionMatrix(self.num_classes)).compute()
        return {
            "average": average["mIoU"],
            "last": last["mIoU"],
            "minimum": min(values, default=math.nan),
            "average_all": average["mIoU_all"],
            "last_all": last["mIoU_all"],
        }


class Latency(EvaluationMetric):
    """Mean milliseconds of key frames and of others.

    The first of each kind does not count where there are more: libraries choose their kernels.
    """

    def __init__(self):
        self.met: set[bool] = set()  # kinds that came in this process
        self.frames = dict.fromkeys(KINDS.values(), 0)
        self.timed = dict.fromkeys(KINDS.values(), 0)
        self.seconds = dict.fromkeys(KINDS.values(), 0.0)
        self.first = dict.fromkeys(KINDS.values(), 0.0)

    def update(self, frame: ScoredFrame) -> None:
        for key, seconds in frame.costs:
            kind = KINDS[key]
            self.frames[kind] += 1
            if key in self.met:
                self.timed[kind] += 1
                self.seconds[kind] += seconds
            else:
                self.first[kind] = seconds
            self.met.add(key)

    def sums(self) -> dict:
        names = ("frames", "timed", "seconds", "first")
        return {name: dict(getattr(self, name)) for name in names}

    def restore(self, sums: dict) -> None:
        for name, values in sums.items():
            setattr(self, name, dict(values))

    def merge(self, other: Latency) -> None:
        for kind in KINDS.values():
            self.frames[kind] += other.frames[kind]
            self.timed[kind] += other.timed[kind]
            self.seconds[kind] += other.seconds[kind]
            self.first[kind] = self.first[kind] or other.first[kind]

    def mean(self, kind: str) -> float:
        """Milliseconds; nan where there is no such frame."""
        if self.timed[kind]:
            return 1000 * self.seconds[kind] / self.timed[kind]
        return 1000 * self.first[kind] if self.frames[kind] else math.nan

    def compute(self) -> dict[str, Any]:
        means = {kind: self.mean(kind) for kind in KINDS.values()}
        total = sum(self.frames.values())
        spent = sum(means[kind] * n for kind, n in self.frames.items() if n)
        return {
            "latency": {
                "key_ms": means["key"],
                "non_key_ms": means["non_key"],
                "average_ms": spent / total if total else math.nan,
                "key_frames": self.frames["key"],
                "non_key_frames": self.frames["non_key"],
            }
        }

    def definitions(self) -> dict[str, str]:
        return {
            "latency": "mean milliseconds of labelling a frame, by kind, the first of each left out"
        }
