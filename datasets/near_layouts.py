"""Advice for folder trees that are nearly those of folder.py: what to move or rename."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .files import SUFFIXES

FRAME_FOLDERS = ("images", "image", "img", "imgs", "frames", "rgb", "jpegimages", "img_dir")
LABEL_FOLDERS = ("labels", "label", "masks", "mask", "annotations", "annotation", "gt", "ann_dir")
LABEL_FOLDERS += ("segmentationclass", "labelids", "groundtruth", "ground_truth")
LABEL_ENDINGS = ("_L", "_label", "_labels", "_mask", "_gt", "_seg", "_labelIds", "-label", "-mask")
SPLIT_NAMES = {
    "train": ("training", "train_set"),
    "val": ("valid", "validation", "dev"),
    "test": ("testing", "eval"),
}
# Names that no clip should have: they are, or are taken for, something else of a tree.
NO_CLIPS = ("classes.txt", *LABEL_FOLDERS, *SPLIT_NAMES, *sum(SPLIT_NAMES.values(), ()))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    inside = sorted(folder.iterdir())
    return [path for path in inside if path.is_dir() and not path.name.startswith(".")]


def named(folder: Path, names: Iterable[str]) -> Path | None:
    """The first folder in `folder` with one of the names, in capitals or not."""
    return next((path for path in subfolders(folder) if path.name.lower() in names), None)


def holds_images(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())


def near_split(root: Path, split: str) -> Path | None:
    """A folder that is likely the split under another name."""
    if (root / split).is_dir() or split not in SPLIT_NAMES:
        return None
    return named(root, (split, *SPLIT_NAMES[split]))


def require_clip_folders(base: Path, splits: tuple[str, ...]) -> None:
    """ValueError where frames and labels of a split lie side by side instead of in clips."""
    frames = named(base, FRAME_FOLDERS)
    labels = named(base, LABEL_FOLDERS)
    if labels and not frames and holds_images(base):
        raise ValueError(
            f"{base} holds frames itself, and {labels}: put them into a clip folder "
            f"({base / 'clip1'}/images and labels)"
        )
    if not frames or not labels:
        return
    inside = [name for name in splits if (frames / name).is_dir() or (labels / name).is_dir()]
    if inside:
        split = inside[0]
        raise ValueError(
            f"{frames / split} and {labels / split}: the split comes first here, then the clip; "
            f"move them to {base / split / 'clip1'}/images and labels"
        )
    # a clip may be called labels, but not one that lies beside images and has none of its own
    if named(labels, FRAME_FOLDERS):
        return
    raise ValueError(
        f"{frames} and {labels} lie side by side: put them into a clip folder "
        f"({base / 'clip1'}/images and labels)"
    )


def require_known_folders(clip: Path) -> None:
    """ValueError where a clip has its frames or its labels under another name than ours."""
    known = {path.name for path in subfolders(clip)}
    for ours, others in (("images", FRAME_FOLDERS), ("labels", LABEL_FOLDERS)):
        if ours in known:
            continue
        other = named(clip, others)
        if other and holds_images(other):
            raise ValueError(f"the {ours} of a clip lie in {clip / ours}: rename {other}")


def require_labels_apart(folder: Path, stems: Iterable[str]) -> None:
    """ValueError where half of the images are labels of the others, by their names."""
    stems = set(stems)
    for ending in LABEL_ENDINGS:
        labels = [stem for stem in stems if stem.endswith(ending)]
        pairs = [stem for stem in labels if stem.removesuffix(ending) in stems]
        if pairs and 2 * len(pairs) >= len(stems) - len(pairs):
            label = min(pairs)
            raise ValueError(
                f"{folder} holds {label.removesuffix(ending)} and {label}: put labels into "
                f"{folder.parent / 'labels' if folder.name == 'images' else folder / 'labels'}, "
                f"under the names of their frames (without {ending})"
            )


def advice_on_names(label: str, frames: Iterable[str]) -> str:
    """What keeps the name of a label from being that of a frame: an ending that one of them has."""
    for frame in frames:
        if label != frame and label.startswith(frame) and not label[len(frame)].isalnum():
            return f"; name labels as their frames, without {label[len(frame) :]}"
    return ""


def require_images(folder: Path) -> None:
    """ValueError where a folder of labels holds files, but no image."""
    files = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if files:
        raise ValueError(
            f"{folder} holds no labels that can be read ({files[0]}): expected <frame>.png with a "
            "class id for each pixel"
        )
