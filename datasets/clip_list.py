"""Lists of clips to score: a labelled frame a line; # begins a comment.

A line may also be that of other tools' lists: paths of an image and of its label, with a tab
between them.
"""

from __future__ import annotations

import re
from pathlib import Path

from .clip import Video

FOLDER = Path(__file__).parent / "clip_lists"  # those that come with the tool
ALL = "all"  # the whole split, clip by clip
ENDING = re.compile(r"(_leftImg8bit|_gtFine_\w+)?(\.png)?$")


def read_clip_list(name: str) -> list[str]:
    """The frames of a built-in list, or of a file. FileNotFoundError / ValueError name it."""
    path = FOLDER / f"{name}.txt"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        ours = ", ".join(sorted(found.stem for found in FOLDER.glob("*.txt")))
        raise FileNotFoundError(
            f"--clip-list {name}: no such file, and no list that comes with the tool ({ours})"
        )
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    # Names of images, or of images in folders, name the same frames.
    images = (Path(line.partition("\t")[0].strip()).name for line in lines if line)
    frames = [ENDING.sub("", image) for image in images]
    if not frames:
        raise ValueError(f"--clip-list {name} names no frame: write one a line")
    return frames


def listed_videos(videos: list[Video], name: str, split: str) -> list[Video]:
    """The videos of a split that a list names. ValueError where it names others."""
    if name == ALL:
        return videos
    wanted = set(read_clip_list(name))
    missing = wanted - {video.name for video in videos}
    if missing:
        raise ValueError(
            f"--clip-list {name}: {len(missing)} of its {len(wanted)} clips are not in the {split} "
            f"split: {min(missing)}"
        )
    return [video for video in videos if video.name in wanted]
