"""mIoU of what a live viewer has on the screen when each frame arrives."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from .confusion import ConfusionMatrix
from .evaluation_metric import EvaluationMetric, ScoredFrame

COUNTS = ("frames", "unanswered", "taken", "age", "seconds")


class LatencyAware(EvaluationMetric):
    """Each frame's labels against the newest prediction that was finished when it arrived."""

    def __init__(self, num_classes: int, rates: Sequence[float], source: str):
        """rates: frames a second, of the videos. source: where latencies come from, in words."""
        self.matrix = ConfusionMatrix(num_classes)
        self.rates = sorted(set(rates))
        self.source = source
        self.counts: dict[str, float] = dict.fromkeys(COUNTS, 0)

    def update(self, frame: ScoredFrame) -> None:
        live = frame.live
        self.counts["frames"] += 1
        self.counts["taken"] += len(live.seconds)
        self.counts["seconds"] += sum(live.seconds)
        if live.prediction is None:
            self.counts["unanswered"] += 1
        else:
            self.counts["age"] += live.age
            self.matrix.update(frame.labels, live.prediction)

    def sums(self) -> dict:
        return {"matrix": self.matrix.counts.clone(), "counts": dict(self.counts)}

    def restore(self, sums: dict) -> None:
        # A shallow copy of a metric shares its matrix: replace it rather than change it.
        self.matrix = copy.copy(self.matrix)
        self.matrix.counts = sums["matrix"].clone()
        self.counts = dict(sums["counts"])

    def merge(self, other: LatencyAware) -> None:
        self.matrix.merge(other.matrix)
        for name in COUNTS:
            self.counts[name] += other.counts[name]

    def compute(self) -> dict[str, Any]:
        counts = self.counts
        answered = counts["frames"] - counts["unanswered"]
        result = {
            "mIoU": self.matrix.compute()["mIoU"],
            "latency_ms": 1000 * counts["seconds"] / max(counts["taken"], 1),
            "latency_from": self.source,
            "frames_per_second": self.rates,
            "taken": counts["taken"] / max(counts["frames"], 1),
            "frames_behind": counts["age"] / max(answered, 1),
            "unanswered": counts["unanswered"],
        }
        return {"latency_aware": result}
