"""Tiny data sets in the layouts of the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.cityscapes import LABELS, TRAIN_IDS
from disk import write


def make_camvid(root: Path, size: tuple[int, int] = (24, 32), frames: int = 4) -> Path:
    """The 480x360 layout, random images of `size` (H, W), ids 0-11."""
    rng = np.random.default_rng(0)
    # a second apart at 30 Hz, as the published ones
    names = [f"0001TP_{30 * (i + 1):06d}.png" for i in range(frames)]
    for split in ("train", "val", "test"):
        for name in names:
            write(root / split / name, rng.integers(0, 255, (*size, 3)).astype(np.uint8))
        for name in names:
            write(root / f"{split}annot" / name, rng.integers(0, 12, size).astype(np.uint8))
    return root


def make_folder(root: Path, size: tuple[int, int] = (24, 32), frames: int = 4) -> Path:
    """Own clips of three classes: ROOT/SPLIT/CLIP/images, labels."""
    rng = np.random.default_rng(1)
    root.mkdir(parents=True)
    (root / "classes.txt").write_text("ground\nwall 10 20 30\nthing\n")
    for split in ("train", "val"):
        clip = root / split / "clip"
        for i in range(frames):
            image = rng.integers(0, 255, (*size, 3))
            label = rng.integers(0, 3, size)
            write(clip / "images" / f"{i}.png", image.astype(np.uint8))
            write(clip / "labels" / f"{i}.png", label.astype(np.uint8))
    return root


def make_vspw(
    root: Path, size: tuple[int, int] = (64, 96), frames: int = 12, *, listed: bool = True
) -> Path:
    """Two training videos and one for validation, labels of 16 x 16 blocks that move.

    listed: with lists, the last line of one without its end, and videos below `data`.
    """
    rng = np.random.default_rng(3)
    splits = {"train": ("12_abc", "7_def"), "val": ("9_xyz",)}
    for split, names in splits.items():
        if listed:
            end = "" if split == "train" else "\n"
            root.mkdir(parents=True, exist_ok=True)
            (root / f"{split}.txt").write_text("\n".join(names) + end)
        for name in names:
            blocks = rng.choice([0, 1, 7, 124, 255], (size[0] // 16, size[1] // 16))
            raw = blocks.astype(np.uint8).repeat(16, 0).repeat(16, 1)
            folder = root / "data" / name if listed else root / name
            for index in range(frames):
                label = np.roll(raw, 2 * index, 1)
                noise = rng.integers(-20, 21, (*size, 3))
                image = (label[..., None] + noise).clip(0, 255).astype(np.uint8)
                write(folder / "origin" / f"{3 * index + 5:08d}.jpg", image)
                write(folder / "mask" / f"{3 * index + 5:08d}.png", label)
    return root


def make_cityscapes(
    root: Path,
    size: tuple[int, int] = (64, 128),
    numbers=range(30),
    *,
    labelled: int = 19,
    splits=("train", "val"),
    cities=("aachen", "bochum"),
) -> Path:
    """One snippet per split and city: frames `numbers` of recording 000000, one of them labelled.

    Labels are blocks of 16 x 16 pixels with random official ids, 0-33. Frames show the colours of
    the labels' classes, each under its own noise. numbers=(): without the sequences.
    """
    rng = np.random.default_rng(2)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(LABELS.palette)] = LABELS.palette
    for split in splits:
        for city in cities:
            blocks = (-(-size[0] // 16), -(-size[1] // 16))  # rounded up
            label = rng.integers(0, 34, blocks, np.uint8)
            label = label.repeat(16, 0).repeat(16, 1)[: size[0], : size[1]]  # (H, W)
            for number in sorted({*numbers, labelled}):
                noise = rng.integers(-20, 21, (*size, 3))
                image = (colours[TRAIN_IDS[label]] + noise).clip(0, 255).astype(np.uint8)
                name = f"{split}/{city}/{city}_000000_{number:06d}"
                if number in numbers:
                    write(root / "leftImg8bit_sequence" / f"{name}_leftImg8bit.png", image)
                if number == labelled:
                    write(root / "leftImg8bit" / f"{name}_leftImg8bit.png", image)
                    write(root / "gtFine" / f"{name}_gtFine_labelIds.png", label)
    return root
