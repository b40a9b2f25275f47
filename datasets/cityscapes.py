"""Cityscapes (Cordts et al., CVPR 2016): 5000 finely labelled frames.

Each labelled frame is the 20th of a snippet of 30 frames at 17 Hz.

    ROOT/leftImg8bit/<split>/<city>/<frame>_leftImg8bit.png            the labelled frames
    ROOT/gtFine/<split>/<city>/<frame>_gtFine_labelIds.png             or _gtFine_labelTrainIds.png
    ROOT/leftImg8bit_sequence/<split>/<city>/<frame>_leftImg8bit.png   all frames of the snippets

A <frame> is city_recording_number: aachen_000000_000019. Some recordings are long and hold several
labelled frames, so there is one video per labelled frame n: the frames n-19 to n+10, named after n.
Without the sequences a video is the labelled frame alone. Without leftImg8bit the labelled frames
are those that gtFine names. Official label ids become train ids when they are read; where a frame
has none, its train ids are taken. Labels of the test split are dummies without a class, and may be
absent.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from .clip_list import listed_videos
from .files import FileVideo
from .labels import LabelSet, Sound, id_table
from .root import data_root

# Cityscapes' official ids of its 19 evaluated classes, in the order of the train ids
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

LABELS = LabelSet.of(
    {
        "road": (128, 64, 128),
        "sidewalk": (244, 35, 232),
        "building": (70, 70, 70),
        "wall": (102, 102, 156),
        "fence": (190, 153, 153),
        "pole": (153, 153, 153),
        "traffic light": (250, 170, 30),
        "traffic sign": (220, 220, 0),
        "vegetation": (107, 142, 35),
        "terrain": (152, 251, 152),
        "sky": (70, 130, 180),
        "person": (220, 20, 60),
        "rider": (255, 0, 0),
        "car": (0, 0, 142),
        "truck": (0, 0, 70),
        "bus": (0, 60, 100),
        "train": (0, 80, 100),
        "motorcycle": (0, 0, 230),
        "bicycle": (119, 11, 32),
    },
    # train id -> official id, which the benchmark server expects; ignore becomes 0, "unlabelled"
    ids=id_table(dict(enumerate(CITYSCAPES_IDS)), default=0),
)

# (256,) uint8: official id -> train id, 255 for the classes that are not evaluated
TRAIN_IDS = id_table({label_id: train_id for train_id, label_id in enumerate(CITYSCAPES_IDS)})

SPLITS = ("train", "val", "test")
# Classes that are not evaluated are ignored: a label may hold no others.
SOUND = Sound(void_labels=True, dummy_splits=("test",))
RATE = 17.0  # frames a second of the snippets
BEFORE = 19  # frames of a snippet before the labelled one
AFTER = 10  # frames of a snippet after it

IMAGE = "_leftImg8bit.png"
# Endings of label files, the preferred one first -> the table of ids as stored to ids as evaluated.
# Some tools count "ignore" as a class and write it as train id 19. Any other id that is no class
# stays and is an error when it is read: such a file holds label ids under the wrong name.
KINDS = {
    "_gtFine_labelIds.png": TRAIN_IDS,
    "_gtFine_labelTrainIds.png": id_table({19: 255}, default=None),
}

# frame -> the file of its label and the table of its ids
LabelFiles = dict[str, tuple[Path, np.ndarray]]


def videos_of(args, split: str) -> list[FileVideo]:
    """The videos of a split, as parsed options describe them."""
    found = videos(data_root(args), split)
    # Lists say what is scored; a training and a check of the data read all.
    if args.clip_list and args.job in ("evaluation", "file list"):
        return listed_videos(found, args.clip_list, split)
    return found


def labels_of(args) -> LabelSet:
    """The classes, as parsed options choose them."""
    return LABELS


def splits_of(args) -> tuple[str, ...]:
    """The splits of which there is anything."""
    root = data_root(args)
    folders = ("leftImg8bit", "gtFine", "leftImg8bit_sequence")
    return tuple(split for split in SPLITS if any((root / f / split).is_dir() for f in folders))


def videos(root: Path, split: str) -> list[FileVideo]:
    """One video per labelled frame, sorted by name. No image is opened.

    ValueError: unknown split, or a file with a name that is not Cityscapes'; FileNotFoundError: not
    Cityscapes, an image without a label or a label without an image. A frame of a snippet that is
    missing is an error when it is read.
    """
    if split not in SPLITS:
        raise ValueError(f"Cityscapes has the splits {', '.join(SPLITS)}, not {split!r}")
    root = Path(root)
    snippets = root / "leftImg8bit_sequence" / split
    labels = label_files(root / "gtFine" / split)
    sequence = files(snippets, IMAGE)
    images = labelled_images(root, split, labels, bool(sequence))
    if not sequence:
        logging.getLogger("streamseg").warning(
            "no %s/<city>/*%s: the videos of %s are its labelled frames alone, without a past",
            snippets,
            IMAGE,
            split,
        )
    result = []
    for name, image in sorted(images.items()):
        frames, position = snippet_files(name, image, snippets, sequence)
        path, table = labels.get(name, (None, None))
        # (T,) the labelled frame is the only one with a label
        label_paths: list[Path | None] = [None] * len(frames)
        label_paths[position] = path
        result.append(
            FileVideo(name, frames, label_paths, RATE, table, num_classes=len(LABELS.names))
        )
    return result


def label_files(folder: Path) -> LabelFiles:
    """The label of each frame, of the preferred kind that it has."""
    labels: LabelFiles = {}
    for ending, table in KINDS.items():
        for name, path in files(folder, ending).items():
            labels.setdefault(name, (path, table))
    return labels


def files(folder: Path, ending: str) -> dict[str, Path]:
    """frame -> its file <folder>/<city>/<frame><ending>; empty where there is no such folder."""
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    cities = [city for city in sorted(folder.iterdir()) if city.is_dir()]
    for city in cities:
        # names alone: to make a Path of each of many thousand files takes long
        for file in os.listdir(city):
            if not file.endswith(ending) or file.startswith("."):
                continue
            name = file.removesuffix(ending)
            if name in found:
                raise ValueError(
                    f"{found[name]} and {city / file} are one frame twice: remove one of them"
                )
            found[name] = city / file
    return found


def labelled_images(
    root: Path, split: str, labels: LabelFiles, has_sequence: bool
) -> dict[str, Path]:
    """frame -> image of every labelled frame.

    They are the images in leftImg8bit, each with its label; without any there, the frames that
    gtFine names, from the sequences. FileNotFoundError: no image, or one of the two is missing.
    """
    folder = root / "leftImg8bit" / split
    images = files(folder, IMAGE)
    if not images and has_sequence:
        snippets = root / "leftImg8bit_sequence" / split
        images = {
            name: snippets / path.parent.name / f"{name}{IMAGE}"
            for name, (path, _) in labels.items()
        }
    if not images:
        raise FileNotFoundError(
            f"no {folder}/<city>/*{IMAGE}: is --data-root the folder that holds leftImg8bit, "
            "gtFine and leftImg8bit_sequence of Cityscapes?"
        )
    without_image = labels.keys() - images
    if without_image:
        label, _ = labels[min(without_image)]
        raise FileNotFoundError(
            f"{folder} lacks {len(without_image)} of the {len(labels)} frames that have a label: "
            f"the image of {label}"
        )
    # the labels of the test split are not public
    if labels or split != "test":
        require_labels(root / "gtFine" / split, images, labels)
    return images


def require_labels(folder: Path, images: dict[str, Path], labels: LabelFiles) -> None:
    """FileNotFoundError where an image has no label."""
    without_label = images.keys() - labels
    if not without_label:
        return
    name = min(without_label)
    city = images[name].parent.name
    expected = " or ".join(f"{city}/{name}{ending}" for ending in KINDS)
    raise FileNotFoundError(
        f"{folder} lacks the labels of {len(without_label)} of {len(images)} frames: {expected}"
    )


def snippet_files(
    name: str, image: Path, snippets: Path, sequence: dict[str, Path]
) -> tuple[list[Path], int]:
    """The frames of the video around the labelled frame `name`, and its position among them."""
    if not sequence:
        return [image], 0
    names = window(name, sequence)
    # a frame that does not exist gets its path all the same, for the error when it is read
    city = snippets / image.parent.name
    frames = [sequence.get(other, city / f"{other}{IMAGE}") for other in names]
    position = names.index(name)
    if name not in sequence:
        frames[position] = image
    return frames, position


def window(name: str, sequence: Collection[str]) -> list[str]:
    """The frames of the video around the labelled frame `name`.

    All 19 before it (fewer where the recording begins), whether they exist or not, and those of the
    10 after it that follow each other in the sequence. ValueError where `name` has no number.
    """
    match = re.fullmatch(r"(.+_)(\d+)", name)
    if not match:
        raise ValueError(
            f"{name}{IMAGE} is no Cityscapes frame: expected a name like "
            f"aachen_000000_000019{IMAGE}"
        )
    recording, digits = match.groups()
    number = int(digits)

    def frame(n: int) -> str:
        return f"{recording}{n:0{len(digits)}d}"

    past = [frame(n) for n in range(max(number - BEFORE, 0), number)]
    future = []
    for n in range(number + 1, number + AFTER + 1):
        # methods look back: a gap in the past is an error, one in the future ends the video
        if frame(n) not in sequence:
            break
        future.append(frame(n))
    return [*past, name, *future]
