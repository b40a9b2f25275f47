"""VSPW (Miao et al., CVPR 2021): 3536 videos of everyday scenes at 15 Hz, every frame labelled.

    ROOT/[data/]<video>/origin/<frame>.jpg      frames
    ROOT/[data/]<video>/mask/<frame>.png        labels: 0 = others, 1 to 124 = classes, 255 = void
    ROOT/{train,val,test}.txt                   one <video> a line

ROOT may also be the folder above, with all of this in VSPW_480p. Others and void are both ignored.
Labels of the test split are not published: where a video has no folder `mask`, it has none. Where
there are no lists at all, all videos serve as every split.
"""

from __future__ import annotations

import logging
from pathlib import Path

from .files import FileVideo, list_images
from .labels import LabelSet, Sound, id_table
from .root import data_root
from .vspw_classes import LABELS

SPLITS = ("train", "val", "test")
ALL = "all"  # what a ROOT without lists is
INNER = "VSPW_480p"
RATE = 15.0  # frames a second
# raw id -> class: from 1 on; what is no id of VSPW stays above all classes, and is an error
TABLE = id_table({0: 255, 255: 255} | {raw: raw - 1 for raw in range(1, 255)})
SOUND = Sound()


def videos_of(args, split: str) -> list[FileVideo]:
    """The videos of a split, as parsed options describe them."""
    return videos(data_root(args), split)


def labels_of(args) -> LabelSet:
    """The classes, as parsed options choose them."""
    return LABELS


def splits_of(args) -> tuple[str, ...]:
    """The splits that have a list, or all videos as one."""
    root = inner_root(data_root(args))
    return tuple(split for split in SPLITS if list_file(root, split).is_file()) or (ALL,)


def videos(root: Path, split: str) -> list[FileVideo]:
    """One video per line of the split's list, in its order. No image is opened.

    FileNotFoundError: no such list, or a video or label that is not there.
    """
    root = inner_root(Path(root))
    folder = root / "data" if (root / "data").is_dir() else root
    return [read_video(folder / name) for name in video_names(root, folder, split)]


def inner_root(root: Path) -> Path:
    """The folder of the lists: ROOT, or VSPW_480p in it."""
    return root / INNER if (root / INNER).is_dir() else root


def list_file(root: Path, split: str) -> Path:
    return root / f"{split}.txt"


def video_names(root: Path, folder: Path, split: str) -> list[str]:
    """The names of a split's videos: those of its list, else of all folders with frames."""
    path = list_file(root, split)
    # A list may end with or without an end of line.
    if path.is_file():
        names = [line.strip() for line in path.read_text().splitlines()]
        return [name for name in names if name]
    lists = [name for name in SPLITS if list_file(root, name).is_file()]
    if lists:
        raise FileNotFoundError(
            f"{path} does not exist: {root} has lists of {', '.join(lists)} only"
        )
    names = sorted(item.parent.name for item in folder.glob("*/origin") if item.is_dir())
    if not names:
        raise FileNotFoundError(
            f"no videos in {folder}: expected <video>/origin/*.jpg and <video>/mask/*.png below "
            f"it, and {path} with a <video> a line"
        )
    if split != ALL:
        logging.getLogger("streamseg").warning(
            "%s has no lists train.txt, val.txt, test.txt: all its videos are %s", root, split
        )
    return names


def read_video(folder: Path) -> FileVideo:
    """The video in one folder."""
    if not (folder / "origin").is_dir():
        raise FileNotFoundError(f"{folder / 'origin'} does not exist, but the split lists it")
    frames = list_images(folder / "origin")
    if not frames:
        raise FileNotFoundError(f"no frames in {folder / 'origin'}: expected *.jpg")
    labels: list[Path | None] = [None] * len(frames)
    if (folder / "mask").is_dir():
        labels = [label_of(folder, stem) for stem in frames]
    return FileVideo(
        folder.name, list(frames.values()), labels, RATE, TABLE, num_classes=len(LABELS.names)
    )


def label_of(folder: Path, stem: str) -> Path:
    """The label of a frame. FileNotFoundError where there is none."""
    path = folder / "mask" / f"{stem}.png"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, but its frame does")
    return path
