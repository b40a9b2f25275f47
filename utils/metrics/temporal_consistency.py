"""Temporal consistency (TC): is the next prediction, warped back by optical flow, the prediction of
this frame?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .label_maps import label_map, one_of, same_shape
from .label_warp import (
    IGNORE,
    flow_disagreement,
    intersection_and_union,
    warp_ids_etc,
    warp_nearest,
)

ETC_EPSILON = 1e-10  # in every denominator of ETC's metric


class TemporalConsistency:
    """TC: each prediction against the next one, warped onto its grid (ETC, ECCV 2020).

    mode "strict": nearest neighbour; a pixel counts if its match lies in the frame and is not
    occluded. mode "nearest": nearest neighbour; coordinates clamped to the frame, every pixel
    counts. mode "etc": the published arithmetic bit for bit: ids warped as numbers, bilinear,
    truncated. Ids from num_classes on (an "ignore" output) are a further class outside every mean;
    in mode "etc" the histogram's closed right edge counts the id num_classes as the last class.
    """

    MODES = ("strict", "nearest", "etc")

    def __init__(self, num_classes: int, mode: str = "strict"):
        if not 1 <= num_classes <= IGNORE:
            raise ValueError(f"num_classes must be 1 to {IGNORE}, got {num_classes}")
        one_of(self.MODES, mode)
        self.num_classes = num_classes
        self.mode = mode
        # warped, not warped; intersection, union, target; class
        self.counts = torch.zeros(2, 3, num_classes, dtype=torch.int64)
        # pairs, pairs whose occlusion was given, pairs of one class, pixels, pixels that counted
        self.totals = torch.zeros(5, dtype=torch.int64)

    @property
    def name(self) -> str:
        """Its name in a report, and in metrics.DEFINITIONS."""
        return "TC" + ("" if self.mode == "strict" else f"_{self.mode}")

    def update(
        self, prediction, next_prediction, flow, *, occluded=None, backward_flow=None
    ) -> None:
        """Add one pair: predictions (H, W) integers, flow (2, H, W) in pixels on the grid of
        `prediction`, x first, pointing into `next_prediction`. Mode "strict" also takes `occluded`
        (H, W), true where a pixel has no match, or `backward_flow` (2, H, W) on the grid of the
        next frame, from which it finds occlusions itself.
        """
        prediction = label_map(prediction, "prediction", 2)
        following = label_map(next_prediction, "next_prediction", 2)
        same_shape(prediction, following, "prediction and next_prediction")
        if any(x.min() < 0 or x.max() > 255 for x in (prediction, following)):
            raise ValueError("class ids of a prediction must lie in 0..255")
        following = following.to(prediction.device)
        flow = _flow(flow, prediction, "flow")
        masked = occluded is not None or backward_flow is not None
        if masked and self.mode != "strict":
            raise ValueError(
                f"mode {self.mode} has no occlusion mask: use mode strict, or leave the mask out"
            )
        if self.mode == "etc":
            warped = warp_ids_etc(following, flow)
            counted = [
                intersection_and_union(prediction, target, self.num_classes)
                for target in (warped, following)
            ]
            valid = prediction.numel()
        else:
            warped, counts = warp_nearest(following, flow)
            if masked:
                counts = counts & ~_occlusion(flow, prediction, occluded, backward_flow)
            if self.mode == "nearest":
                counts = None
            counted = [self._count(prediction, target, counts) for target in (warped, following)]
            valid = prediction.numel() if counts is None else int(counts.sum())
        self.counts += torch.stack([torch.stack(counts) for counts in counted]).cpu()
        # A frozen map is punished where things move, but one class everywhere is consistent under
        # any flow.
        constant = all(bool((x == prediction[0, 0]).all()) for x in (prediction, following))
        self.totals += torch.tensor([1, masked, constant, prediction.numel(), valid])

    def _count(
        self, output: Tensor, target: Tensor, counts: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels per class of intersection, union and target, where `counts`; None: everywhere.

        An id from K on is no class, but a miss of the other's class.
        """
        k = self.num_classes
        pairs = output.long().clamp(max=k) * (k + 1) + target.clamp(max=k)
        left_out = (k + 1) ** 2
        if counts is not None:
            pairs = torch.where(counts, pairs, left_out)
        table = torch.bincount(pairs.flatten(), minlength=left_out + 1)[:left_out]
        table = table.unflatten(0, (k + 1, k + 1))
        both = table.diagonal()[:k]
        outputs = table.sum(1)[:k]
        targets = table.sum(0)[:k]
        return both, outputs + targets - both, targets

    def compute(self) -> dict:
        """{"TC": over all classes in mode "etc", else over those present; "TC_all", "TC_present",
        "IoU" per class (nan where absent), "class_accuracy", "pixel_accuracy", "no_warp",
        "valid_fraction", "pairs", "masked_pairs", "constant_pairs"}."""
        epsilon = ETC_EPSILON if self.mode == "etc" else 0.0
        (intersection, union, target), still = self.counts.double()
        iou = intersection / (union + epsilon)
        means = _class_means(iou, union)
        no_warp = _class_means(still[0] / (still[1] + epsilon), still[1])
        chosen = "all" if self.mode == "etc" else "present"
        accuracy = _class_means(intersection / (target + epsilon), target)
        pairs, masked, constant, pixels, valid = self.totals.tolist()
        return {
            "TC": means[chosen],
            "TC_all": means["all"],
            "TC_present": means["present"],
            "IoU": torch.where(union > 0, iou, math.nan).tolist(),
            "class_accuracy": accuracy[chosen],
            "pixel_accuracy": float(intersection.sum() / (target.sum() + epsilon)),
            "no_warp": no_warp[chosen],
            "valid_fraction": valid / pixels if pixels else math.nan,
            "pairs": pairs,
            "masked_pairs": masked,
            "constant_pairs": constant,
        }

    def merge(self, other: TemporalConsistency) -> TemporalConsistency:
        """Add what another rank or run has seen."""
        if (self.num_classes, self.mode) != (other.num_classes, other.mode):
            raise ValueError(
                f"{self.name} of {self.num_classes} classes cannot be merged with "
                f"{other.name} of {other.num_classes}"
            )
        self.counts += other.counts
        self.totals += other.totals
        return self


def _class_means(values: Tensor, areas: Tensor) -> dict[str, float]:
    """Means of per-class values over the classes of some area, and over all (absent ones count 0);
    nan if none is."""
    present = values[areas > 0]
    if not len(present):
        return {"all": math.nan, "present": math.nan}
    return {"all": float(present.sum()) / len(values), "present": float(present.mean())}


def _flow(flow, prediction: Tensor, what: str) -> Tensor:
    """Flow as a float32 tensor (2, H, W) beside `prediction`."""
    flow = torch.as_tensor(flow).to(prediction.device, torch.float32)
    if flow.shape != (2, *prediction.shape):
        raise ValueError(
            f"{what} must have the shape {(2, *prediction.shape)} (x first, the prediction's "
            f"size), got {tuple(flow.shape)}"
        )
    if not flow.isfinite().all():
        raise ValueError(
            f"{what} holds values that are not finite: replace them, and mark these pixels in "
            f"`occluded`"
        )
    return flow


def _occlusion(flow: Tensor, prediction: Tensor, occluded, backward_flow) -> Tensor:
    """The given mask and what forward and backward flow disagree on, (H, W) bool."""
    mask = torch.zeros_like(prediction, dtype=torch.bool)
    if occluded is not None:
        occluded = torch.as_tensor(occluded).to(prediction.device)
        same_shape(occluded, prediction, "occluded and prediction")
        mask |= occluded.bool()
    if backward_flow is not None:
        mask |= flow_disagreement(flow, _flow(backward_flow, prediction, "backward_flow"))
    return mask
