"""Clips of frames in folders of your own, with or without labels.

    ROOT/[<split>/]<clip>/images/<frame>.png or .jpg        or the frames in <clip> itself
    ROOT/[<split>/]<clip>/labels/<frame>.png                grey or palette: class ids, 255 = ignore
    ROOT/classes.txt                                        one class a line, by id: name [r g b]

Splits are folders named train, val and test. A ROOT without them is one set that serves as every
split. Clips and frames are sorted naturally: frame2 before frame10. A clip may have labels for some
frames, or for none.
"""

from __future__ import annotations

import logging
from pathlib import Path

from .class_list import read_classes
from .files import FileVideo, list_images, natural_key
from .labels import IGNORE, LabelSet, Sound
from .near_layouts import (
    advice_on_names,
    near_split,
    require_clip_folders,
    require_images,
    require_known_folders,
    require_labels_apart,
)
from .root import data_root

SPLITS = ("train", "val", "test")
ALL = "all"  # what a ROOT without splits is
# the list of classes is one's own: each should occur
SOUND = Sound(absent_classes=False)
CLASSES = "classes.txt"


def videos_of(args, split: str) -> list[FileVideo]:
    """The videos of a split, as parsed options describe them."""
    return videos(data_root(args), split)


def labels_of(args) -> LabelSet:
    """The classes, as parsed options choose them."""
    return label_set(data_root(args))


def splits_of(args) -> tuple[str, ...]:
    """The splits that there are, as far as can be seen under their own or a near name."""
    root = data_root(args)
    found = [name for name in SPLITS if (root / name).is_dir() or near_split(root, name)]
    return tuple(found) or (ALL,)


def videos(root: Path, split: str) -> list[FileVideo]:
    """One video per clip folder, naturally sorted.

    FileNotFoundError: no such split, or no frames; ValueError: a label without a frame, or a layout
    that is nearly right (near_layouts.py).
    """
    root = Path(root)
    base = split_folder(root, split)
    require_clip_folders(base, SPLITS)
    folders = [path for path in base.glob("*") if path.is_dir() and not path.name.startswith(".")]
    if not folders:
        raise FileNotFoundError(
            f"no clips in {base}: expected <clip>/images/*.png or <clip>/*.png below it"
        )
    num_classes = IGNORE  # without a list of classes every id is one
    known = classes(root)
    if known:
        num_classes = len(known.names)
    return [read_clip(clip, num_classes) for clip in sorted(folders, key=natural_key)]


def split_folder(root: Path, split: str) -> Path:
    """The folder that holds the clips of a split."""
    splits = [name for name in SPLITS if (root / name).is_dir()]
    near = near_split(root, split)
    if near:
        raise FileNotFoundError(f"{root} has no split {split!r}: rename {near} to {split}")
    if not splits and split == ALL:
        return root
    if not splits:
        logging.getLogger("streamseg").warning(
            "%s has no folders train, val, test: all its clips are %s", root, split
        )
        return root
    if split not in splits:
        raise FileNotFoundError(f"{root} has no split {split!r}, only {', '.join(splits)}")
    return root / split


def read_clip(clip: Path, num_classes: int) -> FileVideo:
    """The video of one clip folder. No image is opened."""
    folder = clip
    if (clip / "images").is_dir():
        folder = clip / "images"
    frames = list_images(folder)
    require_known_folders(clip)
    if not frames:
        raise FileNotFoundError(
            f"no frames in {folder}: expected *.png or *.jpg; remove the folder if it is no clip"
        )
    labels = {}
    if (clip / "labels").is_dir():
        labels = list_images(clip / "labels")
        if not labels:
            require_images(clip / "labels")
    else:
        require_labels_apart(folder, frames)
    alone = [path for stem, path in labels.items() if stem not in frames]
    if alone:
        raise ValueError(
            f"the label {alone[0]} has no frame {alone[0].stem} in {folder} "
            f"({len(alone)} such labels){advice_on_names(alone[0].stem, frames)}"
        )
    label_paths = [labels.get(stem) for stem in frames]
    return FileVideo(clip.name, list(frames.values()), label_paths, num_classes=num_classes)


def label_set(root: Path) -> LabelSet:
    """The classes of ROOT/classes.txt; FileNotFoundError where there is no such file."""
    known = classes(root)
    if not known:
        raise FileNotFoundError(
            f"{Path(root) / CLASSES} does not exist: list the classes there by id, one a "
            "line: name [r g b]"
        )
    return known


def classes(root: Path) -> LabelSet | None:
    """Names and colours of ROOT/classes.txt, None where there is no such file.

    ValueError names a wrong line (class_list.py).
    """
    path = Path(root) / CLASSES
    if not path.exists():
        return None
    return read_classes(path)
