"""Cityscapes (Cordts et al., CVPR 2016): 5000 finely labelled frames, each the 20th of a snippet of 30 at 17 Hz.

    ROOT/leftImg8bit/<split>/<city>/<frame>_leftImg8bit.png             the labelled frames
    ROOT/gtFine/<split>/<city>/<frame>_gtFine_labelIds.png              or <frame>_gtFine_labelTrainIds.png
    ROOT/leftImg8bit_sequence/<split>/<city>/<frame>_leftImg8bit.png    all frames of the snippets

A <frame> is city_recording_number: aachen_000000_000019. Some recordings are long and hold several labelled frames,
so there is one video per labelled frame n: the frames n-19 to n+10, named after n. Without the sequences a video is
the labelled frame alone; without leftImg8bit the labelled frames are those that gtFine names. Official label ids
become train ids as they are read; where a frame has none, its train ids are taken. Labels of the test split are
dummies without a class, and may be absent.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from .files import FileVideo
from .labels import LabelSet, id_table

# Cityscapes' official ids of its 19 evaluated classes, in train id order
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def cityscapes_label_ids() -> np.ndarray:
    """(256,) uint8: train id -> official label id, as the benchmark server takes them; ignore becomes 0, unlabelled."""
    return id_table(dict(enumerate(CITYSCAPES_IDS)), default=0)


def cityscapes_train_ids() -> np.ndarray:
    """(256,) uint8: official label id -> train id, 255 for the classes that are not evaluated."""
    return id_table({label_id: train_id for train_id, label_id in enumerate(CITYSCAPES_IDS)})


CITYSCAPES = LabelSet(
    (
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ),
    (
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ),
    cityscapes_label_ids(),
)

LABELS = CITYSCAPES

SPLITS = ("train", "val", "test")
RATE = 17.0
BEFORE, AFTER = 19, 10  # frames of a snippet before and after the labelled one

IMAGE = "_leftImg8bit.png"
# Endings of labels, the preferred one first, with their ids as stored -> as evaluated. Tools that count "ignore" as
# a class write it as train id 19; any other id that is no class is an error, for it tells that these are label ids.
KINDS = {
    "_gtFine_labelIds.png": cityscapes_train_ids(),
    "_gtFine_labelTrainIds.png": id_table({19: 255}, default=None),
}


def videos(root: Path, split: str) -> list[FileVideo]:
    """One video per labelled frame, by name. No image is opened.

    ValueError: unknown split, or a file with a name that is not Cityscapes'; FileNotFoundError: not Cityscapes, an
    image without a label or a label without an image. A frame of a snippet that is missing fails when it is read.
    """
    if split not in SPLITS:
        raise ValueError(f"Cityscapes has the splits {', '.join(SPLITS)}, not {split!r}")
    root = Path(root)
    kinds = [(files(root / "gtFine" / split, ending), table) for ending, table in KINDS.items()]
    labels = {
        name: (path, table) for paths, table in reversed(kinds) for name, path in paths.items()
    }
    sequence = files(folder := root / "leftImg8bit_sequence" / split, IMAGE)
    images = labelled_images(root, split, labels, bool(sequence))
    if not sequence:
        logging.getLogger("streamseg").warning(
            "no %s/<city>/*%s: the videos of %s are its labelled frames alone, without a past",
            folder,
            IMAGE,
            split,
        )
    result = []
    for name, image in sorted(images.items()):
        names = window(name, sequence) if sequence else [name]
        neighbours = folder / image.parent.name
        frames = [
            sequence.get(other) or (image if other == name else neighbours / f"{other}{IMAGE}")
            for other in names
        ]
        path, table = labels.get(name, (None, None))
        result.append(
            FileVideo(
                name,
                frames,
                [path if other == name else None for other in names],
                RATE,
                table,
                num_classes=len(LABELS.names),
            )
        )
    return result


def files(folder: Path, ending: str) -> dict[str, Path]:
    """frame -> its file <folder>/<city>/<frame><ending>; empty where there is no such folder."""
    found: dict[str, Path] = {}
    for city in sorted(folder.iterdir()) if folder.is_dir() else ():
        for file in os.listdir(city) if city.is_dir() else ():
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
    root: Path, split: str, labels: dict[str, tuple], sequence: bool
) -> dict[str, Path]:
    """frame -> image of every labelled frame: those in leftImg8bit, each with its label, or else those of gtFine."""
    folder, truth = root / "leftImg8bit" / split, root / "gtFine" / split
    images = files(folder, IMAGE)
    if not images and sequence:
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
    if alone := labels.keys() - images:
        raise FileNotFoundError(
            f"{folder} lacks {len(alone)} of the {len(labels)} frames that have a label: the image "
            f"of {labels[min(alone)][0]}"
        )
    if (labels or split != "test") and (alone := images.keys() - labels):
        first = f"{images[min(alone)].parent.name}/{min(alone)}"
        raise FileNotFoundError(
            f"{truth} lacks the labels of {len(alone)} of {len(images)} frames: "
            + " or ".join(first + kind for kind in KINDS)
        )
    return images


def window(name: str, sequence: Collection[str]) -> list[str]:
    """The frames of the video around `name`: all 19 before it (fewer where the recording begins), missing or not,
    and those of the 10 after it that follow each other in the sequence."""
    if not (match := re.fullmatch(r"(.+_)(\d+)", name)):
        raise ValueError(
            f"{name}{IMAGE} is no Cityscapes frame: expected a name like aachen_000000_000019{IMAGE}"
        )
    recording, number, digits = match[1], int(match[2]), len(match[2])
    past = [f"{recording}{n:0{digits}d}" for n in range(max(number - BEFORE, 0), number)]
    future = []
    for n in range(number + 1, number + AFTER + 1):
        if (following := f"{recording}{n:0{digits}d}") not in sequence:
            break
        future.append(following)
    return [*past, name, *future]
