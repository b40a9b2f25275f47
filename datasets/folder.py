"""Clips of frames in folders of your own, with or without labels.

    ROOT/[<split>/]<clip>/images/<frame>.png or .jpg        or the frames in <clip> itself
    ROOT/[<split>/]<clip>/labels/<frame>.png                grey or palette: class ids, 255 = ignore
    ROOT/classes.txt                                        one class a line, by id: name [r g b]

Splits are folders named train, val and test; a ROOT without them is one set that serves as every split. Clips and
frames are sorted naturally: frame2 before frame10. A clip may have labels for some frames, or for none.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from .files import FileVideo, list_images, natural_key
from .labels import Colour, LabelSet, default_palette

SPLITS = ("train", "val", "test")


def videos(root: Path, split: str) -> list[FileVideo]:
    """One video per clip folder. FileNotFoundError: no such split, or no frames; ValueError: a label without frame."""
    root = Path(root)
    splits = [name for name in SPLITS if (root / name).is_dir()]
    if splits and split not in splits:
        raise FileNotFoundError(f"{root} has no split {split!r}, only {', '.join(splits)}")
    base = root / split if splits else root
    if not splits:
        logging.getLogger("streamseg").warning(
            "%s has no folders train, val, test: all its clips are %s", root, split
        )
    clips = sorted(
        (path for path in base.glob("*") if path.is_dir() and path.name[0] != "."), key=natural_key
    )
    if not clips:
        raise FileNotFoundError(
            f"no clips in {base}: expected <clip>/images/*.png or <clip>/*.png below it"
        )
    known = classes(root)
    return [read_clip(clip, len(known.names) if known else 255) for clip in clips]


def read_clip(clip: Path, num_classes: int) -> FileVideo:
    """The video of one clip folder."""
    folder = clip / "images" if (clip / "images").is_dir() else clip
    frames = list_images(folder)
    if not frames:
        raise FileNotFoundError(
            f"no frames in {folder}: expected *.png or *.jpg; remove the folder if it is no clip"
        )
    labels = list_images(clip / "labels") if (clip / "labels").is_dir() else {}
    if alone := [path for stem, path in labels.items() if stem not in frames]:
        raise ValueError(
            f"the label {alone[0]} has no frame {alone[0].stem} in {folder} ({len(alone)} such labels)"
        )
    return FileVideo(
        clip.name,
        list(frames.values()),
        [labels.get(stem) for stem in frames],
        num_classes=num_classes,
    )


def label_set(root: Path) -> LabelSet:
    """The classes of ROOT/classes.txt; FileNotFoundError where there is no such file."""
    if not (known := classes(root)):
        raise FileNotFoundError(
            f"{Path(root) / 'classes.txt'} does not exist: list the classes there by id, one a "
            "line: name [r g b]"
        )
    return known


def classes(root: Path) -> LabelSet | None:
    """Names and colours of ROOT/classes.txt, None where there is no such file; ValueError names a wrong line."""
    path = Path(root) / "classes.txt"
    if not path.exists():
        return None
    lines = [
        (number, line.strip())
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.strip()
    ]
    if not 1 <= len(lines) <= 255:
        raise ValueError(f"{path} lists {len(lines)} classes, expected 1 to 255")
    names, palette = [], list(default_palette(len(lines)))
    for number, line in lines:
        name, colour = parse(line)
        if not name or name in names or colour and max(colour) > 255:
            raise ValueError(
                f"{path}, line {number}: {line!r} has no name, one that was there before or an impossible "
                "colour; expected name [r g b]"
            )
        palette[len(names)] = colour or palette[len(names)]
        names.append(name)
    return LabelSet(tuple(names), tuple(palette))


def parse(line: str) -> tuple[str | None, Colour | None]:
    """traffic light 250 170 30 -> the name and the colour."""
    match = re.fullmatch(r"(?:(.*\S)\s+)?(\d+)\s+(\d+)\s+(\d+)", line)
    return (match[1], tuple(map(int, match.groups()[1:]))) if match else (line, None)
