"""How often each class occurs in labels, and what such counts say: labels that teach nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from .clip import Video
from .labels import IGNORE

LOOKED_AT = 64  # labels that are read before a training: seconds, and most classes occur in them

Progress = Callable[[Iterable, int], Iterable]


class LabelCounts(NamedTuple):
    """What was counted in some of the labels there are."""

    pixels: np.ndarray  # (256,) int64 by class id, 255 = ignored
    labels: int  # that were read
    existing: int


def no_progress(items: Iterable, total: int) -> Iterable:
    return items


def count_labels(
    videos: Iterable[Video],
    most: int | None = None,
    *,
    part: tuple[int, int] = (0, 1),
    workers: int = 0,
    progress: Progress = no_progress,
) -> LabelCounts:
    """Count the pixels of each class.

    most: labels to read, spread evenly over the data; None: all. part: (rank, ranks), to read a
    share that others complete. workers: threads. progress: wraps the iterable of counts; gets
    their number too. ValueError or OSError names a label that cannot be read.
    """
    existing = [(video, index) for video in videos for index in video.labelled]
    chosen = existing
    if most is not None:
        chosen = spread(existing, most)
    rank, ranks = part
    mine = chosen[rank::ranks]
    pixels = np.zeros(256, np.int64)
    # threads, not processes: Pillow releases the interpreter's lock while it decodes
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for counts in progress(pool.map(count_one, mine), len(mine)):
            pixels += counts
    return LabelCounts(pixels, len(mine), len(existing))


def count_one(labelled: tuple[Video, int]) -> np.ndarray:
    """(256,) pixels of each id in one label."""
    video, index = labelled
    return np.bincount(video.label(index).ravel(), minlength=256)


def spread(items: Sequence, most: int) -> list:
    """At most `most` of the items, from the first to the last at even distances."""
    if len(items) <= most:
        return list(items)
    return [items[i * (len(items) - 1) // (most - 1)] for i in range(most)]


def label_problems(
    counts: np.ndarray,
    names: Sequence[str],
    labels: int,
    existing: int | None = None,
    *,
    absent: bool = True,
) -> list[str]:
    """What teaches nothing, one sentence each: empty where labels are sound.

    counts: (256,) pixels by class id in `labels` labels, of `existing` ones. absent: whether a
    class that does not occur counts where nothing else is odd.
    """
    read = f"{labels} label{'s' * (labels != 1)}"
    if existing and existing != labels:
        read = f"{labels} of {existing} labels (the others were not looked at)"
    total = int(counts.sum())
    ignored = int(counts[IGNORE])
    if not total:
        return []
    if ignored == total:
        return [
            f"all pixels of {read} are {IGNORE} (ignored): nothing can be learnt from them; class "
            f"ids go from 0 to {len(names) - 1}"
        ]
    share = f"{IGNORE} (ignored) fills {percent(ignored / total)} of"
    never = [name for name, count in zip(names, counts, strict=False) if not count]
    # Where there is one class beside 255, a mask that means "yes" by 255 is what was likely drawn.
    present = np.count_nonzero(counts[:IGNORE])
    if never and ignored and present == 1:
        return [
            f"{never_occurs(never)} in {read}; {share} them: are these 0/{IGNORE} masks? Write "
            f"class ids, 0 to {len(names) - 1}"
        ]
    problems = []
    if never and absent:
        problems.append(f"{never_occurs(never)} in {read}")
    if ignored > total / 2:
        problems.append(f"{share} {read}: are these 0/{IGNORE} masks, or few labelled pixels?")
    return problems


def never_occurs(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"class {names[0]} never occurs"
    return f"classes {', '.join(names)} never occur"


def percent(share: float) -> str:
    """Whole percents, of small shares one digit more."""
    digits = 0 if share >= 0.1 else 1
    return f"{100 * share:.{digits}f} %"
