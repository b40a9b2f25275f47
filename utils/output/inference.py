"""The files of one source that inference labels: overlay and side-by-side video, label PNGs."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from .pictures import colourise, overlay, side_by_side
from .video import LabelWriter, VideoWriter


class InferenceOutput:
    """NAME_overlay.mp4, NAME_side_by_side.mp4, NAME_labels/FRAME.png, as `kinds` asks."""

    def __init__(self, folder: Path, name: str, kinds, *, fps: float, palette, alpha: float):
        """kinds: some of overlay, side-by-side, labels. alpha: strength of the overlay."""
        self.palette = palette
        self.alpha = alpha
        self.overlays = None
        self.pairs = None
        self.labels = None
        if "overlay" in kinds:
            self.overlays = VideoWriter(folder / f"{name}_overlay.mp4", fps)
        if "side-by-side" in kinds:
            self.pairs = VideoWriter(folder / f"{name}_side_by_side.mp4", fps)
        if "labels" in kinds:
            self.labels = LabelWriter(folder / f"{name}_labels")

    def write(
        self, image: np.ndarray, name: str, prediction: np.ndarray, time: float | None = None
    ) -> None:
        """image (H, W, 3) uint8, prediction (H, W) uint8; time: as VideoWriter.write."""
        if self.overlays:
            self.overlays.write(overlay(image, prediction, self.palette, self.alpha), time)
        if self.pairs:
            self.pairs.write(side_by_side(image, colourise(prediction, self.palette)), time)
        if self.labels:
            self.labels.write(name, prediction)

    def close(self) -> None:
        """Finish both videos, the second even if the first cannot be."""
        with ExitStack() as stack:
            for writer in self._videos():
                stack.callback(writer.close)

    def take_notes(self) -> list[str]:
        """What the user should know of the videos, each thing once."""
        notes = []
        for writer in self._videos():
            notes += writer.notes
            writer.notes = []
        return notes

    def _videos(self) -> list[VideoWriter]:
        return [writer for writer in (self.overlays, self.pairs) if writer is not None]

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.close()
