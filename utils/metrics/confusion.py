"""The confusion matrix and its means: mIoU in all its conventions, accuracies, frequency-weighted
IoU."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .label_maps import label_map, same_shape
from .label_warp import IGNORE

CACHED = 1 << 17  # pixels that are counted at once on a CPU
LMA_EPSILON = 1e-15  # in numerator and denominator of LMANet's IoU


class ConfusionMatrix:
    """Counts of (label, prediction) over all pixels whose label is not 255.

    counts (K, K + 1) int64: row = label, column = prediction; the last column collects predictions
    >= K (an "ignore" output), which are misses of their label and nobody's false positives. Sum
    `counts` over ranks (all_reduce) or `merge`. Counting runs where the predictions are; `device`
    is where the sums live.
    """

    def __init__(self, num_classes: int, device: str | torch.device = "cpu"):
        if not 1 <= num_classes <= IGNORE:
            raise ValueError(f"num_classes must be 1 to {IGNORE}, got {num_classes}")
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64, device=device)

    def update(self, labels, predictions) -> None:
        """Add label maps of integers, both of one shape.

        labels in 0..K-1 or 255, predictions from 0 on. ValueError for others.
        """
        labels = label_map(labels, "labels")
        predictions = label_map(predictions, "predictions")
        same_shape(labels, predictions, "labels and predictions")
        if not labels.numel():
            return
        labels = labels.to(predictions.device)
        first, last = labels.aminmax()
        least = predictions.min()
        if first < 0 or last > IGNORE or least < 0:
            raise ValueError(
                f"labels must lie in 0..{IGNORE} and predictions must not be negative, got labels "
                f"{int(first)}..{int(last)} and predictions from {int(least)} on"
            )
        table = self._pairs(labels.flatten(), predictions.flatten())
        unknown = table[self.num_classes : IGNORE].sum(1)
        if unknown.any():
            wrong = [self.num_classes + i for i in unknown.nonzero().flatten().tolist()]
            raise ValueError(
                f"labels must be 0..{self.num_classes - 1} or {IGNORE} (ignored), got {wrong}: "
                "is the number of classes right, and were the labels mapped to training ids?"
            )
        self.counts += table[: self.num_classes].to(self.counts.device)

    def _pairs(self, labels: Tensor, predictions: Tensor) -> Tensor:
        """How often each pair occurs, (256, K + 1); both (N,), judged already."""
        columns = self.num_classes + 1
        table = torch.zeros((IGNORE + 1) * columns, dtype=torch.int64, device=labels.device)
        # On a CPU, pieces that stay in the cache are many times faster than all at once. A
        # histogram that includes the ignored pixels is faster than taking them out first.
        piece = labels.numel()
        if labels.device.type == "cpu":
            piece = CACHED
        for truth, guesses in zip(labels.split(piece), predictions.split(piece), strict=True):
            # Whatever is no class (an "ignore" output) shares the last column.
            pairs = truth.int() * columns + guesses.clamp(max=self.num_classes).int()
            table += torch.bincount(pairs, minlength=len(table))
        return table.view(-1, columns)

    def merge(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Add what another rank or run has counted."""
        if self.num_classes != other.num_classes:
            raise ValueError(f"{self.num_classes} and {other.num_classes} classes cannot be merged")
        self.counts += other.counts.to(self.counts.device)
        return self

    def compute(self) -> dict:
        """Fractions by the names of DEFINITIONS.

        "IoU", "recall" and "label_share" are lists over the classes, nan where there is nothing to
        divide by; a mean over no class is nan as well.
        """
        counts = self.counts.cpu()
        hits = counts.diagonal()
        labelled = counts.sum(1)
        predicted = counts[:, :-1].sum(0)
        union = labelled + predicted - hits
        total = labelled.sum()
        iou = _ratio(hits, union)
        recall = _ratio(hits, labelled)
        dice = _ratio(2 * hits, labelled + predicted)
        weighted = math.nan
        if total:
            weighted = float((labelled * iou.nan_to_num()).sum() / total)
        return {
            "mIoU": _mean(iou),
            "IoU": iou.tolist(),
            "recall": recall.tolist(),
            "label_share": _ratio(labelled, total.expand_as(labelled)).tolist(),
            "pixel_accuracy": float(_ratio(hits.sum(), total)),
            "class_accuracy": _mean(recall),
            "fwIoU": weighted,
            "mDice": _mean(dice),
            "mIoU_lma": _mean((hits.double() + LMA_EPSILON) / (union.double() + LMA_EPSILON)),
            "mIoU_present": _mean(iou[labelled > 0]),
            "mIoU_all": _mean(iou.nan_to_num()),
        }


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole in float64, nan where whole is 0."""
    return torch.where(whole > 0, part.double() / whole, math.nan)


def _mean(values: Tensor) -> float:
    """Of the values that are not nan; nan if there is none."""
    return float(values.nanmean())
