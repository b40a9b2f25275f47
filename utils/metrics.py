"""What a prediction is worth: the confusion matrix and its means; the video metrics are in video_metrics.py.

    ConfusionMatrix(num_classes).update(labels, predictions)
    VideoConsistency(length, mode).update(labels, predictions)                    per video
    TemporalConsistency(num_classes, mode).update(prediction, next_prediction, flow)

each with `compute() -> dict` of fractions and `merge(other)`. DEFINITIONS says in one line what each number is.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor

from .label_warp import IGNORE
from .video_metrics import TemporalConsistency, VideoConsistency, label_map, same_shape

__all__ = ["DEFINITIONS", "IGNORE", "ConfusionMatrix", "TemporalConsistency", "VideoConsistency"]

LMA_EPSILON = 1e-15     # in numerator and denominator of LMANet's IoU

_VC = ("Video consistency: mean over all windows of {n} frames of all videos of |G and P| / |G|; G = pixels whose "
       "label is known and the same in the whole window, P = those predicted as that label in the whole window. "
       "video_mean: mean over videos; constant_videos: those whose prediction never changes and is not right "
       "everywhere (degenerate); skipped_videos: those too short for a window.")
_VC_VSPW = ("VC{n} as the official VSPW script computes it: videos of more than 16 frames only, the last window of "
            "each left out, 255 a label like any other, P = pixels whose prediction is constant, right or wrong, so "
            "that a constant prediction scores 1. Only for comparison with published numbers.")

DEFINITIONS = {
    "mIoU": "Mean of IoU over the classes that occur in labels or predictions (union > 0); equal to torchmetrics and "
            "cityscapesscripts. This and all below are fractions of 1.",
    "IoU": "Per class, over all pixels together: true positives / (true positives + false positives + misses). Pixels "
           "labelled 255 count nowhere; an 'ignore' output is only a miss. None where the union is 0.",
    "recall": "Per class: share of its labelled pixels that are predicted as it.",
    "label_share": "Per class: its share of all labelled pixels.",
    "pixel_accuracy": "Share of all labelled pixels that are predicted right.",
    "class_accuracy": "Mean of recall over the classes that occur in the labels.",
    "fwIoU": "Frequency-weighted IoU: mean of IoU, each class weighted by its share of the labelled pixels.",
    "mDice": "Mean of Dice, 2 true positives / (labelled + predicted pixels), over the classes with union > 0.",
    "mIoU_lma": "mIoU as LMANet computes it: mean over all classes of (TP + 1e-15) / (TP + FP + FN + 1e-15); a class "
                "in neither labels nor predictions counts 1.",
    "mIoU_present": "mIoU as the VSPW script and MRCFA's printed 'mIoU' compute it: mean over the classes that occur "
                    "in the labels; a class that is only predicted is left out.",
    "mIoU_all": "mIoU as SwNet-seq and ETC's TC compute it: mean over all classes; one in neither labels nor "
                "predictions counts 0.",
    "original_size": "mIoU and IoU of predictions made at working size and enlarged to the labels' own size by nearest "
                     "neighbour (--use-orig-res), as LMANet's second table.",
    "clean": "mIoU over the frames that no severe failure of the sensor hits (synthetic world).",
    "degraded": "mIoU over the frames that a dropout hits: dark, noisy or blurred, wholly or in part (synthetic "
                "world).",
    **{f"VC{n}": _VC.format(n=n) for n in (8, 16)},
    **{f"VC{n}_vspw": _VC_VSPW.format(n=n) for n in (8, 16)},
    "TC": "Temporal consistency, strict: mean IoU (classes with union > 0) of each prediction and the next one warped "
          "onto it by optical flow, nearest neighbour, over pixels whose match is in the frame and not occluded "
          "(occlusion was known for masked_pairs of the pairs). TC_all: absent classes count 0; no_warp: the same "
          "without warping; valid_fraction: share of the pixels that counted; constant_pairs: those predicted as one "
          "class everywhere (degenerate).",
    "TC_nearest": "Temporal consistency, nearest neighbour, no mask: matches outside the frame are clamped to its "
                  "border; mean IoU over classes with union > 0.",
    "TC_etc": "Temporal consistency as ETC (ECCV 2020) computes it: ids warped bilinearly as numbers and truncated, "
              "no mask, counts over all pairs, mean over all classes (absent ones count 0). Published values used "
              "FlowNet2: their arithmetic is reproduced here, not the values.",
}


class ConfusionMatrix:
    """Counts of (label, prediction) over all pixels whose label is not 255.

    counts (K, K + 1) int64: row = label, column = prediction; the last column collects predictions >= K (an "ignore"
    output), which are misses of their label and nobody's false positives. Sum `counts` over ranks (all_reduce) or
    `merge`. Counting runs where the predictions are; `device` is where the sums live.
    """

    def __init__(self, num_classes: int, device: str | torch.device = "cpu"):
        if not 1 <= num_classes <= IGNORE:
            raise ValueError(f"num_classes must be 1 to {IGNORE}, got {num_classes}")
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64, device=device)

    def update(self, labels, predictions) -> None:
        """Add label maps of one shape, any shape: labels in 0..K-1 or 255, predictions from 0 on, integers."""
        labels, predictions = label_map(labels, "labels"), label_map(predictions, "predictions")
        same_shape(labels, predictions, "labels and predictions")
        if not labels.numel():
            return
        labels = labels.to(predictions.device)
        (first, last), least = labels.aminmax(), predictions.aminmax().min
        if first < 0 or last > IGNORE or least < 0:
            raise ValueError(f"labels must lie in 0..{IGNORE} and predictions must not be negative, got labels "
                             f"{int(first)}..{int(last)} and predictions from {int(least)} on")
        table = self._pairs(labels.flatten(), predictions.flatten())
        unknown = table[self.num_classes:IGNORE].sum(1)
        if unknown.any():
            wrong = [self.num_classes + i for i in unknown.nonzero().flatten().tolist()]
            raise ValueError(f"labels must be 0..{self.num_classes - 1} or {IGNORE} (ignored), got {wrong}: "
                             "is the number of classes right, and were the labels mapped to training ids?")
        self.counts += table[:self.num_classes].to(self.counts.device)

    def _pairs(self, labels: Tensor, predictions: Tensor) -> Tensor:
        """How often each pair occurs, (256, K + 1); both (N,), judged already."""
        columns = self.num_classes + 1
        table = torch.zeros((IGNORE + 1) * columns, dtype=torch.int64, device=labels.device)
        # On a CPU, pieces that stay in the cache are many times faster than all at once. A histogram that includes the
        # ignored pixels is faster than taking them out first.
        piece = 1 << 17 if labels.device.type == "cpu" else labels.numel()
        for some, guesses in zip(labels.split(piece), predictions.split(piece), strict=True):
            pairs = some.int() * columns + guesses.clamp(max=self.num_classes).int()
            table += torch.bincount(pairs, minlength=len(table))
        return table.view(-1, columns)

    def merge(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Add what another rank or run has counted."""
        if self.num_classes != other.num_classes:
            raise ValueError(f"{self.num_classes} and {other.num_classes} classes cannot be merged")
        self.counts += other.counts.to(self.counts.device)
        return self

    def compute(self) -> dict:
        """Fractions by the names of DEFINITIONS; "IoU", "recall", "label_share" are lists over the classes, nan where
        there is nothing to divide by; a mean over no class is nan as well."""
        counts = self.counts.cpu()
        hits, labelled, predicted = counts.diagonal(), counts.sum(1), counts[:, :-1].sum(0)
        union = labelled + predicted - hits
        total = labelled.sum()
        iou, recall, dice = _ratio(hits, union), _ratio(hits, labelled), _ratio(2 * hits, labelled + predicted)
        return {
            "mIoU": _mean(iou),
            "IoU": iou.tolist(),
            "recall": recall.tolist(),
            "label_share": _ratio(labelled, total.expand_as(labelled)).tolist(),
            "pixel_accuracy": float(_ratio(hits.sum(), total)),
            "class_accuracy": _mean(recall),
            "fwIoU": float((labelled * iou.nan_to_num()).sum() / total) if total else math.nan,
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
