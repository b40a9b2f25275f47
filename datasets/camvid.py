"""CamVid (Brostow et al., 2008): four drives, labelled once a second, and one part at 15 Hz (val).

The 480x360 layout of SegNet, 367 / 101 / 233 labels; ids 0-10, void 11:

    ROOT/{train,val,test}/<frame>.jpg or .png
    ROOT/{train,val,test}annot/<frame>.png

The 960x720 layout of TMANet, 367 / 101 / 232 labels with all frames in between; ids 1-11, void 0:

    ROOT/images/<frame>.png                 the labelled frames
    ROOT/labels/<frame>_L.png
    ROOT/annotations/{train,val,test}.txt   one <frame> a line
    ROOT/images_sequence/<frame>.png        all frames (or ROOT/image_sequence)

A <frame> is named drive_number: 0001TP_006690, 0006R0_f00930, 0016E5_07959, Seq05VD_f00030. The
videos were taken at 30 Hz, and numbers count frames at that rate. There is one video per drive.
Offsets count in the step of the split in the small layout (30, val 2) and in single frames in the
large one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from pathlib import Path

from .files import FileVideo, list_images
from .labels import IGNORE, LabelSet, id_table
from .root import data_root
from .text import read_lines

LABELS = LabelSet.of(
    {
        "sky": (128, 128, 128),
        "building": (128, 0, 0),
        "pole": (192, 192, 128),
        "road": (128, 64, 128),
        "pavement": (0, 0, 192),
        "tree": (128, 128, 0),
        "signsymbol": (192, 128, 128),
        "fence": (64, 64, 128),
        "car": (64, 0, 128),
        "pedestrian": (64, 64, 0),
        "bicyclist": (0, 128, 192),
    }
)

# TMANet counts void as a class, number 0
CAMVID12 = LabelSet(("void", *LABELS.names), ((0, 0, 0), *LABELS.palette))

STEPS = {"train": 30, "val": 2, "test": 30}  # between labelled frames, in frames at 30 Hz
RATE = 30.0  # frames a second of the videos
SEQUENCES = ("images_sequence", "image_sequence")  # both names are in use for the large layout

# Ids as stored -> as evaluated, by (layout, number of classes). Ids that a table does not name stay
# as they are: an id above the classes is an error when the label is read.
TABLES = {
    ("small", 11): id_table({11: IGNORE}, default=None),
    ("small", 12): id_table({k: (k + 1) % 12 for k in range(12)}, default=None),
    ("large", 11): id_table({0: IGNORE} | {k: k - 1 for k in range(1, 12)}, default=None),
    ("large", 12): id_table({}, default=None),
}


def videos_of(args, split: str) -> list[FileVideo]:
    """The videos of a split, as parsed options describe them."""
    return videos(data_root(args), split, len(labels_of(args).names))


def labels_of(args) -> LabelSet:
    """The classes: 11, or with --void-class 12."""
    return CAMVID12 if args.void_class else LABELS


def splits_of(args) -> tuple[str, ...]:
    """The splits of which there is anything."""
    root = data_root(args)
    found = []
    for split in STEPS:
        places = (root / split, root / f"{split}annot", root / "annotations" / f"{split}.txt")
        if any(place.exists() for place in places):
            found.append(split)
    return tuple(found)


def videos(root: Path, split: str, num_classes: int = 11) -> list[FileVideo]:
    """One video per drive of the split, sorted by name. No image is opened.

    ValueError: unknown split or number of classes; FileNotFoundError: not CamVid, or a frame or a
    label is missing.
    """
    if split not in STEPS:
        raise ValueError(f"CamVid has the splits {', '.join(STEPS)}, not {split!r}")
    if num_classes not in (11, 12):
        raise ValueError(f"CamVid has 11 classes, or 12 with void as a class, not {num_classes}")
    root = Path(root)
    if (root / f"{split}annot").is_dir():
        return small_layout(root, split, num_classes)
    if (root / "annotations" / f"{split}.txt").is_file():
        return large_layout(root, split, num_classes)
    raise FileNotFoundError(
        f"no CamVid split {split} below {root}: expected {split}/*.png and {split}annot/*.png, or "
        f"images/*.png, labels/*_L.png and annotations/{split}.txt; is --data-root right?"
    )


def small_layout(root: Path, split: str, num_classes: int) -> list[FileVideo]:
    """480x360: there are only labelled frames. A gap in their numbers is counted, not an error."""
    frame_folder = root / split
    label_folder = root / f"{split}annot"
    labels = list_images(label_folder)
    if not labels:
        raise FileNotFoundError(f"no labels in {label_folder}: expected <frame>.png")
    frames = {}
    if frame_folder.is_dir():
        frames = list_images(frame_folder)
    require_none(frame_folder, labels.keys() - frames, len(labels))
    require_none(label_folder, frames.keys() - labels, len(labels))
    result = []
    for drive, names in by_drive(labels):
        video = FileVideo(
            drive,
            [frames[name] for name in names],
            [labels[name] for name in names],
            fps=RATE / STEPS[split],
            remap=TABLES["small", num_classes],
            num_classes=num_classes,
            gaps=count_gaps(names, STEPS[split]),
        )
        result.append(video)
    return result


def require_none(folder: Path, missing: set[str], total: int) -> None:
    """FileNotFoundError where a folder lacks some frames."""
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of {total} frames: {min(missing)}.png"
        )


def count_gaps(names: Sequence[str], step: int) -> int:
    """At how many places consecutive frames are further apart than `step`."""
    # At a gap the frame before a labelled one is simply the labelled frame before it, further away
    # in time. A smaller distance is a jitter of the published list, not a gap.
    return sum(number(after) - number(before) > step for before, after in pairwise(names))


def large_layout(root: Path, split: str, num_classes: int) -> list[FileVideo]:
    """960x720: every frame between the first and the last that exists or is labelled.

    A frame in between that does not exist is an error only when it is read.
    """
    list_file = root / "annotations" / f"{split}.txt"
    listed = [text for _, text in read_lines(list_file)]
    if not listed:
        raise FileNotFoundError(f"{list_file} is empty: expected one frame name a line")
    sequence = sequence_folder(root)
    existing = {}
    if sequence.is_dir():
        existing = dict(by_drive(list_images(sequence)))
    result = []
    for drive, names in by_drive(listed):
        stems = all_frames(names, existing.get(drive, ()))
        frames, labels = large_paths(root, sequence, stems, set(names))
        # the listed files only: the sequence may lack frames
        needed = [path for path in (*frames, *labels) if path and path.parent != sequence]
        missing = next((path for path in needed if not path.exists()), None)
        if missing:
            raise FileNotFoundError(
                f"{missing} does not exist, but annotations/{split}.txt lists it"
            )
        table = TABLES["large", num_classes]
        video = FileVideo(drive, frames, labels, RATE, table, num_classes=num_classes)
        result.append(video)
    return result


def sequence_folder(root: Path) -> Path:
    """The folder of all frames, whether it exists or not."""
    for name in SEQUENCES:
        if (root / name).is_dir():
            return root / name
    return root / SEQUENCES[0]


def all_frames(labelled: Sequence[str], existing: Sequence[str]) -> list[str]:
    """The names of all frames of a drive, from its first number to its last."""
    numbers = [number(name) for name in (*labelled, *existing)]
    return [renumber(labelled[0], n) for n in range(min(numbers), max(numbers) + 1)]


def large_paths(
    root: Path, sequence: Path, stems: Sequence[str], labelled: set[str]
) -> tuple[list[Path], list[Path | None]]:
    """The files of the frames, and of their labels where they have one."""
    frames: list[Path] = []
    labels: list[Path | None] = []
    for stem in stems:
        if stem in labelled:
            frames.append(root / "images" / f"{stem}.png")
            labels.append(root / "labels" / f"{stem}_L.png")
        else:
            frames.append(sequence / f"{stem}.png")
            labels.append(None)
    return frames, labels


def by_drive(names: Iterable[str]) -> list[tuple[str, list[str]]]:
    """(drive, its frames in the order of their numbers) for each drive, sorted by drive."""
    ordered = sorted(names, key=lambda name: (drive_of(name), number(name)))
    return [(drive, list(group)) for drive, group in groupby(ordered, key=drive_of)]


def drive_of(name: str) -> str:
    """0006R0 of 0006R0_f00930."""
    return name.split("_")[0]


def number(name: str) -> int:
    """The frame number: 930 of 0006R0_f00930. ValueError where the name has none."""
    match = re.fullmatch(r".+_f?(\d+)", name)
    if not match:
        raise ValueError(
            f"{name} is no CamVid frame: expected a name like 0016E5_07959 or 0006R0_f00930"
        )
    return int(match[1])


def renumber(name: str, frame: int) -> str:
    """The name of another frame of the same drive, with as many digits."""
    digits = re.search(r"\d+$", name)[0]
    return name.removesuffix(digits) + f"{frame:0{len(digits)}d}"
