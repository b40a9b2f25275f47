"""Reads all of a data set and reports what is missing or odd; lists what an evaluation reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .clip import Video
from .label_statistics import Progress, label_problems, no_progress
from .labels import IGNORE, Sound

READ_ERRORS = (OSError, ValueError)
SIZES_SHOWN = 4  # the most frequent ones

WITHOUT_SPLITS = "all"  # the only split of a data set that has none
TRAINED_ON = ("train", "all")  # splits in which every class should occur

Size = tuple[int, int]


class FrameReport(NamedTuple):
    """What was found out about one frame."""

    size: Size | None  # (H, W), None where the frame cannot be read
    counts: np.ndarray | None  # (256,) pixels by class id, None without a readable label
    problems: list[str]


@dataclass
class Findings:
    """What was found in the frames of a split."""

    frames: int = 0
    labels: int = 0
    sizes: dict[Size, int] = field(default_factory=dict)  # (H, W) -> frames
    # (256,) by class id
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    problems: list[str] = field(default_factory=list)

    def add(self, report: FrameReport) -> None:
        """Count one frame."""
        self.frames += 1
        self.problems += report.problems
        if report.size:
            self.sizes[report.size] = self.sizes.get(report.size, 0) + 1
        if report.counts is not None:
            self.labels += 1
            self.pixels += report.counts

    def text(self, split: str, names: tuple[str, ...]) -> str:
        """One line for people."""
        frequent = sorted(self.sizes, key=self.sizes.get, reverse=True)[:SIZES_SHOWN]
        sizes = ", ".join(f"{height}x{width}" for height, width in frequent) or "unknown"
        # names may be fewer than the 256 possible ids
        never = [name for name, count in zip(names, self.pixels, strict=False) if not count]
        missing = ""
        if self.labels and never:
            missing = f"; never labelled: {', '.join(never)}"
        count = len(self.problems)
        plural = "s" * (count != 1)
        return (
            f"{split}: {self.frames} frames, {self.labels} labels, HxW {sizes}{missing}; "
            f"{count or 'no'} problem{plural}"
        )


def splits_to_check(args, known: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The splits that exist, and those of the known ones that do not.

    A data set that shows none of them counts as all of them: reading it says what is missing.
    """
    module = import_module(args.dataset_module)
    if not hasattr(module, "splits_of"):
        return list(known), []
    existing = list(module.splits_of(args))
    if not existing:
        return list(known[:1]), []
    # a set without splits is no split, and one with splits is never read as one
    missing = [name for name in known if name not in existing and name != WITHOUT_SPLITS]
    if existing == [WITHOUT_SPLITS]:
        missing = []
    return existing, missing


def sound_of(args) -> Sound:
    """What is no fault in the data set that parsed options choose."""
    return getattr(import_module(args.dataset_module), "SOUND", Sound())


def told_by_labels(
    found: Findings, split: str, names: Sequence[str], sound: Sound
) -> tuple[list[str], list[str]]:
    """Problems and mere warnings that the labels of a whole split give reason for."""
    if split in sound.dummy_splits:
        return [], []
    # A part that is not trained on may well lack a class.
    trained_on = split in TRAINED_ON
    told = label_problems(found.pixels, names, found.labels, absent=trained_on)
    certain = told
    if sound.absent_classes:
        certain = label_problems(found.pixels, names, found.labels, absent=False)
    if sound.void_labels and found.pixels[:IGNORE].any():
        certain = []
    return certain, [sentence for sentence in told if sentence not in certain]


def frames_once(videos: Iterable[Video]) -> Iterator[tuple[Video, int, bool]]:
    """(video, index, whether it has a label) of each frame, once where videos share files."""
    videos = list(videos)
    labelled = set()
    for video in videos:
        labelled |= {file_of(video, index) for index in video.labelled}
    seen = set()
    for video in videos:
        own = set(video.labelled)
        for index in range(len(video)):
            file = file_of(video, index)
            if file in seen or (file in labelled and index not in own):
                continue
            seen.add(file)
            yield video, index, index in own


def file_of(video: Video, index: int) -> Path | tuple[int, int]:
    """What tells a frame from others: its file, where it has one."""
    if hasattr(video, "frames"):
        return video.frames[index]
    return id(video), index


def check(
    videos: Iterable[Video],
    workers: int,
    progress: Progress = no_progress,
    *,
    void_labels: bool = False,
) -> Findings:
    """Read every frame and label of some videos, each file once.

    workers: number of threads. progress: wraps the iterable of reports; gets their number too.
    void_labels: whether a label may ignore every pixel.
    """
    frames = []
    has_label = []
    for video, index, labelled in frames_once(videos):
        frames.append((video, index))
        has_label.append(labelled)
    found = Findings()
    first_size: dict[str, Size] = {}
    # threads, not processes: Pillow releases the interpreter's lock while it decodes
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        reports = progress(
            pool.map(partial(look, void_labels=void_labels), frames, has_label), len(frames)
        )
        for (video, index), report in zip(frames, reports, strict=True):
            found.add(report)
            if not report.size:
                continue
            height, width = report.size
            usual = first_size.setdefault(video.name, report.size)
            if report.size != usual:
                found.problems.append(
                    f"{video.name}/{video.frame_name(index)} is {height}x{width} (HxW), the "
                    f"frames before it are {usual[0]}x{usual[1]}"
                )
    return found


def look(frame: tuple[Video, int], has_label: bool, *, void_labels: bool = False) -> FrameReport:
    """Read one frame (a video and an index) and its label, as far as possible."""
    video, index = frame
    size = None
    counts = None
    problems = []
    try:
        size = video.frame(index).shape[:2]
    except READ_ERRORS as error:
        problems.append(str(error))
    if not has_label:
        return FrameReport(size, counts, problems)
    try:
        label = video.label(index)
        counts = np.bincount(label.ravel(), minlength=256)
        if not void_labels and (label == IGNORE).all():
            problems.append(
                f"the label of {video.name}/{video.frame_name(index)} ignores every pixel"
            )
    except READ_ERRORS as error:
        # reading the label looks at the frame's size: a damaged frame would be reported twice
        if str(error) not in problems:
            problems.append(str(error))
    return FrameReport(size, counts, problems)


def needed_files(
    videos: Iterable[Video], startup: Callable[[int], tuple[int, ...]], stepping: bool
) -> Iterator[Path]:
    """The files that scoring these videos reads, each once. ValueError where there are no files.

    startup: number of past frames -> the offsets that a method uses then. stepping: all frames are
    read, from the first.
    """
    for video in videos:
        if not hasattr(video, "frames"):
            raise ValueError(
                f"the frames of {video.name} are no files: nothing needs to be fetched"
            )
        labelled = set(video.labelled)
        wanted = range(len(video))
        if not stepping:
            # clips overlap: a frame may be in the past of several labelled ones
            read = {index + offset for index in labelled for offset in (*startup(index), 0)}
            wanted = sorted(read)
        for index in wanted:
            yield video.frames[index]
            if index in labelled:
                yield video.labels[index]
