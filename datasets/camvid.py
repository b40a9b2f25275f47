"""CamVid (Brostow et al., 2008): four drives, labelled once a second, and one stretch at 15 Hz (val).

The 480x360 layout of SegNet, 367 / 101 / 233 labels; ids 0-10, void 11:

    ROOT/{train,val,test}/<frame>.jpg or .png
    ROOT/{train,val,test}annot/<frame>.png

The 960x720 layout of TMANet, 367 / 101 / 232 labels with all frames in between; ids 1-11, void 0:

    ROOT/images/<frame>.png                 the labelled frames
    ROOT/labels/<frame>_L.png
    ROOT/annotations/{train,val,test}.txt   one <frame> a line
    ROOT/images_sequence/<frame>.png        all frames (or ROOT/image_sequence)

A <frame> is named drive_number: 0001TP_006690, 0006R0_f00930, 0016E5_07959, Seq05VD_f00030; the videos were taken
at 30 Hz and numbers count in that. One video per drive; offsets count in the step of the split in the small layout
(30, val 2) and in single frames in the large one.
"""

from __future__ import annotations

import re
from itertools import groupby, pairwise
from pathlib import Path

from .files import FileVideo, list_images
from .labels import LabelSet, id_table

CAMVID = LabelSet(
    (
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "signsymbol",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (0, 0, 192),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)

CAMVID12 = LabelSet(
    ("void", *CAMVID.names), ((0, 0, 0), *CAMVID.palette)
)  # TMANet's: void is class 0

LABELS = CAMVID

STEPS = {"train": 30, "val": 2, "test": 30}  # of the labelled frames, at 30 Hz
RATE = 30.0

# Ids as stored -> as evaluated, by (layout, number of classes): 11 classes, or TMANet's 12 with void as class 0
TABLES = {
    ("small", 11): id_table({11: 255}, default=None),
    ("small", 12): id_table({k: (k + 1) % 12 for k in range(12)}, default=None),
    ("large", 11): id_table({0: 255} | {k: k - 1 for k in range(1, 12)}, default=None),
    ("large", 12): id_table({}, default=None),
}


def videos(root: Path, split: str, num_classes: int = 11) -> list[FileVideo]:
    """One video per drive of the split, by name. ValueError: unknown split; FileNotFoundError: not CamVid."""
    if split not in STEPS:
        raise ValueError(f"CamVid has the splits {', '.join(STEPS)}, not {split!r}")
    if num_classes not in (11, 12):
        raise ValueError(f"CamVid has 11 classes, or 12 with void as a class, not {num_classes}")
    root = Path(root)
    if (root / f"{split}annot").is_dir():
        return small(root, split, num_classes)
    if (root / "annotations" / f"{split}.txt").is_file():
        return large(root, split, num_classes)
    raise FileNotFoundError(
        f"no CamVid split {split} below {root}: expected {split}/*.png and {split}annot/*.png, or "
        f"images/*.png, labels/*_L.png and annotations/{split}.txt; is --data-root right?"
    )


def small(root: Path, split: str, num_classes: int) -> list[FileVideo]:
    """480x360: the labelled frames are all there is. A gap in their numbers is bridged by the frame before it."""
    labels = list_images(root / f"{split}annot")
    frames = list_images(root / split) if (root / split).is_dir() else {}
    if not labels:
        raise FileNotFoundError(f"no labels in {root / f'{split}annot'}: expected <frame>.png")
    for folder, missing in (
        (root / split, labels.keys() - frames),
        (root / f"{split}annot", frames.keys() - labels),
    ):
        if missing:
            raise FileNotFoundError(
                f"{folder} lacks {len(missing)} of {len(labels)} frames: {min(missing)}.png"
            )
    step = STEPS[split]
    return [
        FileVideo(
            drive,
            [frames[name] for name in names],
            [labels[name] for name in names],
            RATE / step,
            TABLES["small", num_classes],
            num_classes=num_classes,
            gaps=sum(number(b) - number(a) > step for a, b in pairwise(names)),
        )
        for drive, names in by_drive(labels)
    ]


def large(root: Path, split: str, num_classes: int) -> list[FileVideo]:
    """960x720: every frame between the first and the last that exists; one that is missing fails when it is read."""
    listed = (root / "annotations" / f"{split}.txt").read_text().split()
    if not listed:
        raise FileNotFoundError(
            f"{root / 'annotations' / f'{split}.txt'} is empty: expected one frame name a line"
        )
    sequence = next(
        (root / name for name in ("images_sequence", "image_sequence") if (root / name).is_dir()),
        root / "images_sequence",
    )
    existing = dict(by_drive(list_images(sequence))) if sequence.is_dir() else {}
    result = []
    for drive, names in by_drive(listed):
        numbers = [number(name) for name in (*names, *existing.get(drive, ()))]
        stems = [renumber(names[0], n) for n in range(min(numbers), max(numbers) + 1)]
        wanted = set(names)
        frames = [
            (root / "images" if stem in wanted else sequence) / f"{stem}.png" for stem in stems
        ]
        labels = [root / "labels" / f"{stem}_L.png" if stem in wanted else None for stem in stems]
        missing = next(
            (p for p in (*frames, *labels) if p and p.parent != sequence and not p.exists()), None
        )
        if missing:
            raise FileNotFoundError(
                f"{missing} does not exist, but annotations/{split}.txt lists it"
            )
        result.append(
            FileVideo(
                drive, frames, labels, RATE, TABLES["large", num_classes], num_classes=num_classes
            )
        )
    return result


def by_drive(names) -> list[tuple[str, list[str]]]:
    """(drive, its frames in order of their number) for each drive, by name."""
    ordered = sorted(names, key=lambda name: (drive_of(name), number(name)))
    return [(drive, list(group)) for drive, group in groupby(ordered, key=drive_of)]


def drive_of(name: str) -> str:
    return name.split("_")[0]


def number(name: str) -> int:
    """The frame number: 930 of 0006R0_f00930."""
    if not (match := re.fullmatch(r".+_f?(\d+)", name)):
        raise ValueError(
            f"{name} is no CamVid frame: expected a name like 0016E5_07959 or 0006R0_f00930"
        )
    return int(match[1])


def renumber(name: str, frame: int) -> str:
    """The name of another frame of the same drive."""
    digits = re.search(r"\d+$", name)[0]
    return name[: -len(digits)] + f"{frame:0{len(digits)}d}"
