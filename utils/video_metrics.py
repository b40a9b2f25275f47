"""Metrics of label videos: video consistency (VC) and temporal consistency (TC).

    VideoConsistency        does the prediction stay the same where the ground truth does (no motion is looked at)
    TemporalConsistency     is the prediction of the next frame, warped back by optical flow, the prediction of this one

Both add up sums only, so pieces of a data set can be merged in any order. Import them from utils.metrics.
"""
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .label_warp import IGNORE, flow_disagreement, intersection_and_union, warp_ids_etc, warp_nearest

ETC_EPSILON = 1e-10     # in every denominator of ETC's metric


def label_map(x, what: str, dimensions: int | None = None) -> Tensor:
    """An array or tensor of integers as a tensor; ValueError if it is none or has not so many dimensions."""
    if not isinstance(x, Tensor):
        x = np.asarray(x)
        if x.dtype.kind in "iub":
            x = torch.from_numpy(np.require(x, requirements=["C", "W"]))
    if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex():
        raise ValueError(f"{what} must be class ids of an integer type, got {x.dtype}: take the argmax first")
    if x.dtype not in (torch.uint8, torch.int16, torch.int32, torch.int64):
        x = x.long()                        # too narrow for ids up to 255, or unsigned types with few operations
    if dimensions is not None and x.ndim != dimensions:
        shape = {2: "(H, W)", 3: "(T, H, W)"}[dimensions]
        raise ValueError(f"{what} must have the shape {shape}, got {tuple(x.shape)}")
    return x


def _one_of(modes: tuple[str, ...], mode: str) -> None:
    if mode not in modes:
        raise ValueError(f"mode must be one of {', '.join(modes)}, got {mode!r}")


def same_shape(x: Tensor, y: Tensor, names: str) -> None:
    if x.shape != y.shape:
        raise ValueError(f"{names} must have one shape, got {tuple(x.shape)} and {tuple(y.shape)}")


class _OpenVideo:
    """The video that VideoConsistency is looking at: per pixel, how long label and prediction have been good."""

    def __init__(self, length: int, correct: bool):
        self.length, self.correct = length, correct
        self.frames = 0
        self.scores: list[float] = []
        self.changed = self.wrong = False       # did the prediction ever change, was a known pixel ever wrong

    def push(self, label: Tensor, prediction: Tensor) -> None:
        """Both (H, W). A window ends at this frame: G and P are the pixels whose runs of good frames span it."""
        if not self.frames:
            self.label, self.prediction = label, prediction
            self.held = self.good = torch.zeros(label.shape, dtype=torch.int32, device=label.device)
        same_shape(label, self.label, "the frames of a video")
        self.held = torch.where(label == self.label, self.held, 0) + 1
        steady, right = prediction == self.prediction, prediction == label
        if self.correct:
            self.held = torch.where(label == IGNORE, 0, self.held)
            self.good = torch.where(right, self.good + 1, 0)
        else:
            self.good = torch.where(steady, self.good, 0) + 1
        self.changed |= not bool(steady.all())
        self.wrong |= not bool((right | (label == IGNORE)).all())
        self.label, self.prediction = label.clone(), prediction.clone()     # the caller may reuse its buffers
        self.frames += 1
        if self.frames >= self.length:
            constant = self.held >= self.length
            both, total = torch.stack([constant & (self.good >= self.length), constant]).sum((1, 2)).tolist()
            self.scores.append(both / total if total else math.nan)


class VideoConsistency:
    """VC_n over whole videos (VSPW, CVPR 2021).

    mode "correct": windows 0..T-n, pixels labelled 255 left out, the prediction must be the label.
    mode "vspw": the official script: windows 0..T-n-1, videos of at most 16 frames skipped, 255 is a label like any
    other, the prediction need only be constant.
    """

    MODES = ("correct", "vspw")
    SHORTEST = 17       # frames of a video that the official script looks at, whatever the window

    def __init__(self, length: int, mode: str = "correct"):
        if length < 1:
            raise ValueError(f"the window must be at least one frame long, got {length}")
        _one_of(self.MODES, mode)
        self.length, self.mode = length, mode
        self.scores: list[list[float]] = []     # per video, one per window; nan where no pixel has a constant label
        self.skipped = 0                        # videos too short for a window
        self.constant = 0
        self._video: _OpenVideo | None = None

    @property
    def name(self) -> str:
        """Its name in a report, and in metrics.DEFINITIONS."""
        return f"VC{self.length}" + ("" if self.mode == "correct" else f"_{self.mode}")

    def update(self, labels, predictions) -> None:
        """Add one whole video: labels and predictions (T, H, W), integers, oldest frame first."""
        self._refuse_open()
        labels, predictions = label_map(labels, "labels", 3), label_map(predictions, "predictions", 3)
        same_shape(labels, predictions, "labels and predictions")
        for label, prediction in zip(labels, predictions, strict=True):
            self.update_frame(label, prediction)
        self.end_video()

    def update_frame(self, label, prediction) -> None:
        """Add the next frame of the video at hand, (H, W) integers; then `end_video`. Memory does not grow with T."""
        label, prediction = label_map(label, "label", 2), label_map(prediction, "prediction", 2)
        same_shape(label, prediction, "label and prediction")
        self._video = self._video or _OpenVideo(self.length, self.mode == "correct")
        self._video.push(label, prediction.to(label.device))

    def end_video(self) -> None:
        """The next frame belongs to another video."""
        video, self._video = self._video, None
        if video is None:
            return
        scores = video.scores
        if self.mode == "vspw":
            scores = scores[:-1] if video.frames >= self.SHORTEST else []
        if scores:
            self.scores.append(scores)
        else:
            self.skipped += 1
        self.constant += video.frames > 1 and video.wrong and not video.changed

    def sums(self) -> dict:
        """All that is counted so far, as plain values; between two videos."""
        self._refuse_open()
        return {"scores": [list(video) for video in self.scores], "skipped": self.skipped, "constant": self.constant}

    def restore(self, sums: dict) -> None:
        """The reverse of `sums`."""
        self._refuse_open()
        self.scores, self.skipped, self.constant = sums["scores"], sums["skipped"], sums["constant"]

    def _refuse_open(self) -> None:
        if self._video is not None:
            raise RuntimeError(f"{self.name} is in the middle of a video: call end_video() first")

    def compute(self) -> dict:
        """{"VC<n>": mean over all windows (nan if there is none), "video_mean", "windows", "videos", "skipped_videos",
        "constant_videos"}; windows without a pixel of constant label do not count."""
        self._refuse_open()
        videos = [[score for score in video if not math.isnan(score)] for video in self.scores]
        windows = [score for video in videos for score in video]
        return {
            f"VC{self.length}": _mean(windows),
            "video_mean": _mean([_mean(video) for video in videos if video]),
            "windows": len(windows),
            "videos": len(self.scores) + self.skipped,
            "skipped_videos": self.skipped,
            "constant_videos": self.constant,
        }

    def merge(self, other: VideoConsistency) -> VideoConsistency:
        """Add what another rank or run has seen; no video may be in both."""
        if (self.length, self.mode) != (other.length, other.mode):
            raise ValueError(f"{self.name} cannot be merged with {other.name}")
        self._refuse_open()
        other._refuse_open()
        self.scores.extend(list(video) for video in other.scores)
        self.skipped += other.skipped
        self.constant += other.constant
        return self


def _mean(values: list[float]) -> float:
    """Exact summation: the order of videos does not matter."""
    return math.fsum(values) / len(values) if values else math.nan


class TemporalConsistency:
    """TC: each prediction against the next one, warped onto its grid (ETC, ECCV 2020).

    mode "strict": nearest neighbour; a pixel counts if its match lies in the frame and is not occluded.
    mode "nearest": nearest neighbour; coordinates clamped to the frame, every pixel counts.
    mode "etc": the published arithmetic bit for bit: ids warped as numbers, bilinear, truncated.
    Ids from num_classes on (an "ignore" output) are a further class outside every mean; in mode "etc" the histogram's
    closed right edge counts the id num_classes as the last class.
    """

    MODES = ("strict", "nearest", "etc")

    def __init__(self, num_classes: int, mode: str = "strict"):
        if not 1 <= num_classes <= IGNORE:
            raise ValueError(f"num_classes must be 1 to {IGNORE}, got {num_classes}")
        _one_of(self.MODES, mode)
        self.num_classes, self.mode = num_classes, mode
        # warped, not warped; intersection, union, target; class
        self.counts = torch.zeros(2, 3, num_classes, dtype=torch.int64)
        # pairs, pairs whose occlusion was given, pairs of one class, pixels, pixels that counted
        self.totals = torch.zeros(5, dtype=torch.int64)

    @property
    def name(self) -> str:
        """Its name in a report, and in metrics.DEFINITIONS."""
        return "TC" + ("" if self.mode == "strict" else f"_{self.mode}")

    def update(self, prediction, next_prediction, flow, *, occluded=None, backward_flow=None) -> None:
        """Add one pair: predictions (H, W) integers, flow (2, H, W) in pixels on the grid of `prediction`, x first,
        pointing into `next_prediction`. Mode "strict" also takes `occluded` (H, W), true where a pixel has no match,
        or `backward_flow` (2, H, W) on the grid of the next frame, from which it finds occlusions itself.
        """
        prediction, following = label_map(prediction, "prediction", 2), label_map(next_prediction, "next_prediction", 2)
        same_shape(prediction, following, "prediction and next_prediction")
        if any(x.min() < 0 or x.max() > 255 for x in (prediction, following)):
            raise ValueError("class ids of a prediction must lie in 0..255")
        following, flow = following.to(prediction.device), _flow(flow, prediction, "flow")
        masked = occluded is not None or backward_flow is not None
        if masked and self.mode != "strict":
            raise ValueError(f"mode {self.mode} has no occlusion mask: use mode strict, or leave the mask out")
        if self.mode == "etc":
            warped = warp_ids_etc(following, flow)
            counted = [intersection_and_union(prediction, target, self.num_classes) for target in (warped, following)]
            valid = prediction.numel()
        else:
            warped, inside = warp_nearest(following, flow)
            if self.mode == "nearest":
                inside = torch.ones_like(inside)
            elif masked:
                inside = inside & ~_occlusion(flow, prediction, occluded, backward_flow)
            counted = [self._count(prediction[inside], target[inside]) for target in (warped, following)]
            valid = int(inside.sum())
        self.counts += torch.stack([torch.stack(counts) for counts in counted]).cpu()
        # A frozen map is punished where things move, but one class everywhere is consistent under any flow.
        constant = all(bool((x == prediction[0, 0]).all()) for x in (prediction, following))
        self.totals += torch.tensor([1, masked, constant, prediction.numel(), valid])

    def _count(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """intersection_and_union with nothing ignored: an id from K on is no class, but a miss of the other's class."""
        both, outputs, targets = (torch.bincount(x.long(), minlength=self.num_classes)[:self.num_classes]
                                  for x in (output[output == target], output, target))
        return both, outputs + targets - both, targets

    def compute(self) -> dict:
        """{"TC": over all classes in mode "etc", else over those present; "TC_all", "TC_present", "IoU" per class (nan
        where absent), "class_accuracy", "pixel_accuracy", "no_warp", "valid_fraction", "pairs", "masked_pairs",
        "constant_pairs"}."""
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
            raise ValueError(f"{self.name} of {self.num_classes} classes cannot be merged with "
                             f"{other.name} of {other.num_classes}")
        self.counts += other.counts
        self.totals += other.totals
        return self


def _class_means(values: Tensor, areas: Tensor) -> dict[str, float]:
    """Means of per-class values over the classes of some area, and over all (absent ones count 0); nan if none is."""
    present = values[areas > 0]
    if not len(present):
        return {"all": math.nan, "present": math.nan}
    return {"all": float(present.sum()) / len(values), "present": float(present.mean())}


def _flow(flow, prediction: Tensor, what: str) -> Tensor:
    """Flow as a float32 tensor (2, H, W) beside `prediction`."""
    flow = torch.as_tensor(flow).to(prediction.device, torch.float32)
    if flow.shape != (2, *prediction.shape):
        raise ValueError(f"{what} must have the shape {(2, *prediction.shape)} (x first, the prediction's "
                         f"size), got {tuple(flow.shape)}")
    if not flow.isfinite().all():
        raise ValueError(f"{what} holds values that are not finite: replace them, and mark these pixels in `occluded`")
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
