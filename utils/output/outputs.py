"""What people see of a run: pictures and videos of an evaluation, overlay videos and label files of
an inference."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ..run.dist import rank
from .pictures import as_picture, colourise, comparison, legend, overlay, save_png, side_by_side
from .video import LabelWriter, VideoWriter


class EvaluationOutput:
    """Consumes engine.LabelledFrame: some comparison strips, all label PNGs or videos if asked for."""

    def __init__(
        self,
        folder: Path,
        names,
        palette,
        *,
        frames: int,
        pictures: int = 8,
        labels: bool = False,
        video_fps: float | None = None,
        ids: np.ndarray | None = None,
        start: int = 0,
    ):
        """frames: how many there are; pictures: how many of them to draw, evenly spread; labels:
        write labels/VIDEO/FRAME.png, with `ids` mapping class -> id written; video_fps: write
        videos/VIDEO.mp4; start: how many frames a stopped run has written."""
        self.folder = folder
        self.palette = palette
        self.ids = ids
        self.every = -(-frames // pictures) if pictures and frames else None
        self.labels = labels
        self.fps = video_fps
        self.seen = start
        self.writers = {}
        self.writer = None
        self.video = None
        if (pictures or video_fps) and rank() == 0:
            save_png(folder / "legend.png", legend(names, palette))

    def __call__(self, labelled) -> None:
        video, _, frame = labelled.name.rpartition("/")
        prediction = labelled.prediction.cpu().numpy()
        drawn = self.every is not None and self.seen % self.every == 0
        self.seen += 1
        if self.labels:
            if video not in self.writers:
                self.writers[video] = LabelWriter(self.folder / "labels" / video, self.ids)
            self.writers[video].write(frame, prediction)
        if drawn or self.fps:
            strip = self.strip(labelled, prediction)
            if drawn:
                save_png(self.folder / "pictures" / video / f"{frame}.png", strip)
            if self.fps:
                self.to_video(video, strip)

    def strip(self, labelled, prediction: np.ndarray) -> np.ndarray:
        """Input, label, prediction, errors, at the size of the prediction."""
        frame = as_picture(labelled.frame)
        if frame.shape[:2] != prediction.shape:
            from PIL import Image

            frame = np.asarray(
                Image.fromarray(frame).resize(prediction.shape[::-1], Image.Resampling.BILINEAR)
            )
        return comparison(frame, labelled.labels.cpu().numpy(), prediction, self.palette)

    def to_video(self, video: str, strip: np.ndarray) -> None:
        if video != self.video:
            self.close()
            self.video = video
            self.writer = VideoWriter(self.folder / "videos" / f"{video}.mp4", self.fps)
        self.writer.write(strip)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.close()


class InferenceOutput:
    """One source's files: NAME_overlay.mp4, NAME_side_by_side.mp4, NAME_labels/FRAME.png, as
    `kinds` asks."""

    def __init__(self, folder: Path, name: str, kinds, fps: float, palette, alpha: float):
        self.palette = palette
        self.alpha = alpha
        self.overlays = (
            VideoWriter(folder / f"{name}_overlay.mp4", fps) if "overlay" in kinds else None
        )
        self.pairs = (
            VideoWriter(folder / f"{name}_side_by_side.mp4", fps)
            if "side-by-side" in kinds
            else None
        )
        self.labels = LabelWriter(folder / f"{name}_labels") if "labels" in kinds else None

    def write(self, image: np.ndarray, name: str, prediction: np.ndarray) -> None:
        """image (H, W, 3) uint8, prediction (H, W) uint8."""
        if self.overlays:
            self.overlays.write(overlay(image, prediction, self.palette, self.alpha))
        if self.pairs:
            self.pairs.write(side_by_side(image, colourise(prediction, self.palette)))
        if self.labels:
            self.labels.write(name, prediction)

    def close(self) -> None:
        """Finish both videos, the second even if the first cannot be."""
        with ExitStack() as stack:
            for writer in (self.overlays, self.pairs):
                if writer is not None:
                    stack.callback(writer.close)

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.close()
