"""Whether a folder of label images, FOLDER/VIDEO/FRAME.png, is complete, as benchmarks ask."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def check_label_tree(folder: Path, expected: Iterable[str]) -> str:
    """expected: VIDEO/FRAME of every frame -> how many there are, in words.

    ValueError where an image is missing, or one belongs to no frame.
    """
    expected = set(expected)
    found = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.png")}
    missing = sorted(expected - found)
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of {len(expected)} label images, first {missing[0]}.png"
        )
    strange = sorted(found - expected)
    if strange:
        raise ValueError(
            f"{folder} holds {len(strange)} label images of no frame that was labelled, first "
            f"{strange[0]}.png: remove what another run has left"
        )
    videos = {name.rpartition("/")[0] for name in expected}
    return f"{len(expected)} label images of {len(videos)} videos"
