"""The files of one source that inference labels: overlay, side-by-side and split-screen video, PNGs
of labels and confidence, a clip of a data set, and the record of its key frames."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ..keyframes import Decision
from ..run.savedir import DATASET
from .key_record import KeyRecord
from .key_strip import KeyStrip
from .label_images import LabelWriter
from .pictures import colourise, only, overlay, save_png, side_by_side
from .split_screen import SplitScreen
from .video import VideoWriter


class PictureWriter:
    """A video writer's stand-in for a source of a single picture."""

    def __init__(self, path: Path):
        self.path = path
        self.notes: list[str] = []

    def write(self, image: np.ndarray, time: float | None = None) -> None:
        """image (H, W, 3) uint8."""
        save_png(self.path, image)

    def close(self) -> None:
        """Nothing is open."""


class ClipWriter:
    """A clip as --dataset folder reads it: images/FRAME.png and labels/FRAME.png."""

    def __init__(self, folder: Path, palette):
        self.folder = folder
        self.labels = LabelWriter(folder / "labels", palette=palette)

    def write(self, image: np.ndarray, name: str, labels: np.ndarray) -> None:
        """image (H, W, 3) uint8, labels (H, W) uint8."""
        # The image first: a frame may lack a label, but not a label its frame.
        save_png(self.folder / "images" / f"{name}.png", image)
        self.labels.write(name, labels)


def writer(path: Path, fps: float, still: bool) -> VideoWriter | PictureWriter:
    """What writes pictures to `path`, which has no ending yet."""
    if still:
        return PictureWriter(path.with_name(f"{path.name}.png"))
    return VideoWriter(path.with_name(f"{path.name}.mp4"), fps)


class InferenceOutput:
    """NAME_overlay.mp4, NAME_side_by_side.mp4, NAME_split_screen.mp4, NAME_labels/FRAME.png,
    NAME_confidence/FRAME.png, dataset/NAME/images/FRAME.png and labels/FRAME.png, as `kinds` asks;
    and the labels of a submission.

    Of a single picture NAME_overlay.png and so on. For methods with key frames NAME_keyframes.csv
    too.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        kinds,
        *,
        fps: float,
        palette,
        alpha: float,
        still: bool = False,
        key_record: bool = False,
        key_strip: bool = False,
        shown: Sequence[int] | None = None,
        split: SplitScreen | None = None,
        submission: LabelWriter | None = None,
    ):
        """kinds: some of overlay, side-by-side, labels, confidence, dataset. alpha: strength of the
        overlay. still: the source is a single picture. key_strip: below the overlay. shown: the
        classes that pictures show; None: all. Label PNGs have all. split: draws the comparison
        with another run. submission: writes the labels as a benchmark takes them."""
        self.shown = shown
        self.palette = palette
        self.alpha = alpha
        self.overlays = None
        self.pairs = None
        self.labels = None
        if "overlay" in kinds:
            self.overlays = writer(folder / f"{name}_overlay", fps, still)
        if "side-by-side" in kinds:
            self.pairs = writer(folder / f"{name}_side_by_side", fps, still)
        self.split = split
        self.comparisons = None
        if split:
            self.comparisons = writer(folder / f"{name}_split_screen", fps, still)
        if "labels" in kinds:
            self.labels = LabelWriter(folder / f"{name}_labels", palette=palette)
        self.confidences = folder / f"{name}_confidence" if "confidence" in kinds else None
        self.submission = submission
        self.clip = None
        if "dataset" in kinds:
            self.clip = ClipWriter(folder / DATASET / name, palette)
        self.record = KeyRecord(folder / f"{name}_keyframes.csv") if key_record else None
        self.strip = KeyStrip() if key_strip else None

    def write(
        self,
        image: np.ndarray,
        name: str,
        prediction: np.ndarray,
        time: float | None = None,
        decision: Decision | None = None,
        seconds: float | None = None,
        confidence: np.ndarray | None = None,
    ) -> None:
        """image (H, W, 3) uint8, prediction (H, W) uint8; time: as VideoWriter.write.

        decision: whether it is a key frame, where there are such; seconds: of labelling it.
        confidence: (H, W), 0 to 1, where that is written.
        """
        visible = prediction if self.shown is None else only(prediction, self.shown)
        if self.overlays:
            picture = overlay(image, visible, self.palette, self.alpha)
            if self.strip and decision:
                picture = self.strip.below(picture, decision)
            self.overlays.write(picture, time)
        if self.record and decision:
            self.record.write(name, time, decision, seconds)
        if self.pairs:
            self.pairs.write(side_by_side(image, colourise(visible, self.palette)), time)
        if self.comparisons:
            self.comparisons.write(self.split.draw(image, name, prediction, time), time)
        if self.labels:
            self.labels.write(name, prediction)
        if self.submission:
            self.submission.write(name, prediction)
        if self.confidences:
            save_png(self.confidences / f"{name}.png", np.rint(255 * confidence).astype(np.uint8))
        if self.clip:
            self.clip.write(image, name, prediction)

    def close(self) -> None:
        """Finish all videos and the record, each even if another cannot be."""
        with ExitStack() as stack:
            if self.record:
                stack.callback(self.record.close)
            for video in self._videos():
                stack.callback(video.close)

    def take_notes(self) -> list[str]:
        """What the user should know of the videos, each thing once."""
        notes = []
        for video in self._videos():
            notes += video.notes
            video.notes = []
        return notes

    def _videos(self) -> list[VideoWriter | PictureWriter]:
        videos = (self.overlays, self.pairs, self.comparisons)
        return [video for video in videos if video is not None]

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.close()
