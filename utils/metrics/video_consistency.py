"""Video consistency (VC): does the prediction stay the same where the ground truth does?

No motion is looked at.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .label_maps import label_map, one_of, same_shape
from .label_warp import IGNORE


class _OpenVideo:
    """The video that VideoConsistency is looking at, of which the last frame is kept.

    For every pixel it counts over how many frames, up to the last one, the label has been the same
    (`held`) and the prediction good (`good`): the label, or, unless it must be correct, the same.
    """

    def __init__(self, length: int, correct: bool):
        self.length = length
        self.correct = correct
        self.frames = 0
        self.scores: list[float] = []
        self.changed = False  # whether the prediction ever did
        self.wrong = False  # whether a pixel with a known label ever was

    def push(self, label: Tensor, prediction: Tensor) -> None:
        """Add a frame, both (H, W); a window ends at it."""
        if not self.frames:
            self.begin(label, prediction)
        same_shape(label, self.label, "the frames of a video")
        self.count(label, prediction)
        # The caller may reuse its buffers.
        self.label = label.clone()
        self.prediction = prediction.clone()
        self.frames += 1
        if self.frames >= self.length:
            self.scores.append(self.window())

    def begin(self, label: Tensor, prediction: Tensor) -> None:
        self.label = label
        self.prediction = prediction
        self.held = torch.zeros(label.shape, dtype=torch.int32, device=label.device)
        self.good = self.held

    def count(self, label: Tensor, prediction: Tensor) -> None:
        unknown = label == IGNORE
        steady = prediction == self.prediction
        right = prediction == label
        self.held = torch.where(label == self.label, self.held, 0) + 1
        if self.correct:
            self.held = torch.where(unknown, 0, self.held)
            self.good = torch.where(right, self.good + 1, 0)
        else:
            self.good = torch.where(steady, self.good, 0) + 1
        self.changed |= not bool(steady.all())
        self.wrong |= not bool((right | unknown).all())

    def window(self) -> float:
        """|G and P| / |G| of the last frames: pixels whose counts span the window."""
        constant = self.held >= self.length
        both = constant & (self.good >= self.length)
        # One transfer from a GPU, not two
        found, total = torch.stack([both, constant]).sum((1, 2)).tolist()
        return found / total if total else math.nan


class VideoConsistency:
    """VC_n over whole videos (VSPW, CVPR 2021).

    mode "correct": windows 0..T-n, pixels labelled 255 left out, the prediction must be the label.
    mode "vspw": the official script: windows 0..T-n-1, videos of at most 16 frames skipped, 255 is
    a label like any other, the prediction need only be constant.
    """

    MODES = ("correct", "vspw")
    SHORTEST = 17  # frames of a video that the official script looks at, whatever the window

    def __init__(self, length: int, mode: str = "correct"):
        if length < 1:
            raise ValueError(f"the window must be at least one frame long, got {length}")
        one_of(self.MODES, mode)
        self.length = length
        self.mode = mode
        # Per video, one per window; nan where no pixel has a constant label
        self.scores: list[list[float]] = []
        self.skipped = 0  # videos too short for a window
        self.constant = 0
        self._video: _OpenVideo | None = None

    @property
    def name(self) -> str:
        """Its name in a report, and in metrics.DEFINITIONS."""
        return f"VC{self.length}" + ("" if self.mode == "correct" else f"_{self.mode}")

    def update(self, labels, predictions) -> None:
        """Add one whole video: labels and predictions (T, H, W), integers, oldest frame first."""
        self._refuse_open()
        labels = label_map(labels, "labels", 3)
        predictions = label_map(predictions, "predictions", 3)
        same_shape(labels, predictions, "labels and predictions")
        for label, prediction in zip(labels, predictions, strict=True):
            self.update_frame(label, prediction)
        self.end_video()

    def update_frame(self, label, prediction) -> None:
        """Add the next frame of the video at hand, (H, W) integers; then `end_video`.

        Memory does not grow with the length of the video.
        """
        label = label_map(label, "label", 2)
        prediction = label_map(prediction, "prediction", 2)
        same_shape(label, prediction, "label and prediction")
        self._video = self._video or _OpenVideo(self.length, self.mode == "correct")
        self._video.push(label, prediction.to(label.device))

    def end_video(self) -> None:
        """The next frame belongs to another video."""
        video = self._video
        self._video = None
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
        return {
            "scores": [list(video) for video in self.scores],
            "skipped": self.skipped,
            "constant": self.constant,
        }

    def restore(self, sums: dict) -> None:
        """The reverse of `sums`."""
        self._refuse_open()
        self.scores = sums["scores"]
        self.skipped = sums["skipped"]
        self.constant = sums["constant"]

    def _refuse_open(self) -> None:
        if self._video is not None:
            raise RuntimeError(f"{self.name} is in the middle of a video: call end_video() first")

    def compute(self) -> dict:
        """{"VC<n>", "video_mean", "windows", "videos", "skipped_videos", "constant_videos"}.

        VC<n> is the mean over all windows, nan if there is none; windows without a pixel of
        constant label do not count.
        """
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
