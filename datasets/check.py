"""Walks a data set: what is missing or odd in it, and which of its files an evaluation reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .clip import Video
from .labels import IGNORE

UNREADABLE = (OSError, ValueError)


@dataclass
class Findings:
    """Of the frames of a split that were looked at."""

    frames: int = 0
    labels: int = 0
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)  # (H, W) -> frames
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))  # by class
    problems: list[str] = field(default_factory=list)

    def text(self, split: str, names: tuple[str, ...]) -> str:
        """One line for people."""
        sizes = ", ".join(
            f"{h}x{w}" for h, w in sorted(self.sizes, key=self.sizes.get, reverse=True)[:4]
        )
        never = [name for name, count in zip(names, self.pixels, strict=False) if not count]
        missing = f"; never labelled: {', '.join(never)}" if self.labels and never else ""
        return (
            f"{split}: {self.frames} frames, {self.labels} labels, HxW {sizes or 'unknown'}{missing}; "
            f"{len(self.problems) or 'no'} problem{'s' * (len(self.problems) != 1)}"
        )


def check(
    videos: Iterable[Video],
    workers: int,
    progress: Callable[[Iterable, int], Iterable] = lambda items, total: items,
) -> Findings:
    """Read every frame and label of some videos. progress: wraps what comes of them, and their number."""
    videos, found = list(videos), Findings()
    frames = [(video, index) for video in videos for index in range(len(video))]
    labelled = [set(video.labelled) for video in videos]
    has_label = [
        index in known
        for video, known in zip(videos, labelled, strict=True)
        for index in range(len(video))
    ]
    first_size: dict[str, tuple[int, int]] = {}
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        seen = pool.map(look, frames, has_label)
        for (video, index), (size, counts, problems) in zip(
            frames, progress(seen, len(frames)), strict=True
        ):
            found.frames += 1
            found.problems += problems
            if size:
                found.sizes[size] = found.sizes.get(size, 0) + 1
                if (usual := first_size.setdefault(video.name, size)) != size:
                    found.problems.append(
                        f"{video.name}/{video.frame_name(index)} is {size[0]}x{size[1]} (HxW), the "
                        f"frames before it are {usual[0]}x{usual[1]}"
                    )
            if counts is not None:
                found.labels += 1
                found.pixels += counts
    return found


def look(
    frame: tuple[Video, int], has_label: bool
) -> tuple[tuple[int, int] | None, np.ndarray | None, list[str]]:
    """Size and class counts of one frame, as far as it can be read, and what is wrong with it."""
    (video, index), size, counts, problems = frame, None, None, []
    try:
        size = video.frame(index).shape[:2]
    except UNREADABLE as error:
        problems.append(str(error))
    if has_label:
        try:
            label = video.label(index)
            counts = np.bincount(label.ravel(), minlength=256)
            if (label == IGNORE).all():
                problems.append(
                    f"the label of {video.name}/{video.frame_name(index)} ignores every pixel"
                )
        except UNREADABLE as error:
            if str(error) not in problems:
                problems.append(str(error))
    return size, counts, problems


def needed_files(
    videos: Iterable[Video], startup: Callable[[int], tuple[int, ...]], stepping: bool
) -> Iterator[Path]:
    """The files that scoring these videos reads, each once. ValueError where there are no files.

    startup: which offsets a read uses after so many frames; stepping: all frames are read, from the first.
    """
    for video in videos:
        if not hasattr(video, "frames"):
            raise ValueError(
                f"the frames of {video.name} are no files: nothing needs to be fetched"
            )
        known = set(video.labelled)
        wanted = (
            range(len(video))
            if stepping
            else sorted({index + offset for index in known for offset in (*startup(index), 0)})
        )
        for index in wanted:
            yield video.frames[index]
            if index in known:
                yield video.labels[index]
