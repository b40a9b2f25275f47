"""What people see of an evaluation: comparison strips, label PNGs, videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..run.dist import rank
from .label_images import LabelWriter
from .pictures import as_picture, comparison, legend, save_png, without_ignore
from .video import VideoWriter


class EvaluationOutput:
    """Consumes engine.LabelledFrame: some comparison strips, all label PNGs or videos if asked."""

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
        """frames: how many there are. pictures: how many of them to draw, evenly spread.

        labels: write labels/VIDEO/FRAME.png, with `ids` mapping class -> id written. video_fps:
        write videos/VIDEO.mp4. start: how many frames a stopped run has written.
        """
        self.folder = folder
        self.palette = palette
        self.ids = ids
        self.every = None
        if pictures and frames:
            self.every = -(-frames // pictures)
        self.labels = labels
        self.fps = video_fps
        self.seen = start
        self.writers: dict[str, LabelWriter] = {}
        self.writer: VideoWriter | None = None
        self.video: str | None = None
        if (pictures or video_fps) and rank() == 0:
            save_png(folder / "legend.png", legend(names, palette))

    def __call__(self, labelled) -> None:
        video, _, frame = labelled.name.rpartition("/")
        prediction = without_ignore(labelled.prediction.cpu().numpy(), len(self.palette))
        # Counted over a resumed run too, so that it draws the same frames.
        drawn = self.every is not None and self.seen % self.every == 0
        self.seen += 1
        if self.labels:
            self.label_writer(video).write(frame, prediction)
        if not (drawn or self.fps):
            return
        strip = self.strip(labelled, prediction)
        if drawn:
            save_png(self.folder / "pictures" / video / f"{frame}.png", strip)
        if self.fps:
            self.to_video(video, strip)

    def label_writer(self, video: str) -> LabelWriter:
        if video not in self.writers:
            self.writers[video] = LabelWriter(
                self.folder / "labels" / video, self.ids, self.palette
            )
        return self.writers[video]

    def strip(self, labelled, prediction: np.ndarray) -> np.ndarray:
        """Input, label, prediction, errors, at the size of the prediction."""
        frame = as_picture(labelled.frame)
        if frame.shape[:2] != prediction.shape:
            size = prediction.shape[::-1]  # Pillow takes (W, H)
            frame = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
        return comparison(frame, labelled.labels.cpu().numpy(), prediction, self.palette)

    def to_video(self, video: str, strip: np.ndarray) -> None:
        """Add a frame to the video at hand; the first frame of another one begins its file."""
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
