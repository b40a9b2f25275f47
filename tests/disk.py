"""Small images, labels and videos of them, written to the disk."""

from pathlib import Path

import numpy as np
from PIL import Image

from datasets.files import FileVideo

SIZE = (24, 32)


def write(path: Path, array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)
    return path


def picture(seed: int, size=SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def ids(seed: int, size=SIZE, high=3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, size, dtype=np.uint8)


def drive(root: Path, name: str, length: int, labelled) -> FileVideo:
    frames = [write(root / name / f"{i:03d}.png", picture(i)) for i in range(length)]
    labels = [
        write(root / name / "labels" / f"{i:03d}.png", ids(i)) if i in labelled else None
        for i in range(length)
    ]
    return FileVideo(name, frames, labels, num_classes=3)
