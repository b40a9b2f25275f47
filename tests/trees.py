"""Tiny data sets in the layouts of the real ones."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def make_camvid(root: Path, size: tuple[int, int] = (24, 32), frames: int = 4) -> Path:
    """The 480x360 layout, random images of `size` (H, W), ids 0-11."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for folder, make in ((split, lambda: rng.integers(0, 255, (*size, 3))),
                             (f"{split}annot", lambda: rng.integers(0, 12, size))):
            (root / folder).mkdir(parents=True)
            for i in range(frames):
                Image.fromarray(make().astype(np.uint8)).save(root / folder / f"0001TP_{30 * (i + 1):06d}.png")
    return root


def make_folder(root: Path, size: tuple[int, int] = (24, 32), frames: int = 4) -> Path:
    """Own clips of three classes: ROOT/SPLIT/CLIP/images, labels."""
    rng = np.random.default_rng(1)
    root.mkdir(parents=True)
    (root / "classes.txt").write_text("ground\nwall 10 20 30\nthing\n")
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (root / split / "clip" / part).mkdir(parents=True)
        for i in range(frames):
            image, label = rng.integers(0, 255, (*size, 3)), rng.integers(0, 3, size)
            Image.fromarray(image.astype(np.uint8)).save(root / split / "clip" / "images" / f"{i}.png")
            Image.fromarray(label.astype(np.uint8)).save(root / split / "clip" / "labels" / f"{i}.png")
    return root
