"""Frames and their labels as a data set that `--dataset folder` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..files import write_text
from .label_images import LabelWriter
from .pictures import save_png

FOLDER = "dataset"  # in the savedir


def write_classes(savedir: Path, names: Sequence[str], palette) -> None:
    """SAVEDIR/dataset/classes.txt: one class a line, with its colour."""
    colours = (" ".join(map(str, map(int, colour))) for colour in palette)
    lines = [f'"{name}" {colour}' for name, colour in zip(names, colours, strict=True)]
    folder = savedir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "classes.txt", "\n".join(lines) + "\n")


class ClipWriter:
    """SAVEDIR/dataset/CLIP/images/FRAME.png and labels/FRAME.png."""

    def __init__(self, savedir: Path, clip: str, palette):
        self.images = savedir / FOLDER / clip / "images"
        self.labels = LabelWriter(savedir / FOLDER / clip / "labels", palette=palette)
        self.images.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, image: np.ndarray, labels: np.ndarray) -> None:
        """image (H, W, 3), labels (H, W), uint8. A label never lacks its frame."""
        save_png(self.images / f"{name}.png", image)
        self.labels.write(name, labels)
