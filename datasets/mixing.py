"""What a training learns from: the data set itself, and what --extra-data adds to it.

Every part's labels are read in the classes of the data set: by a map where one is given, by their
names otherwise.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from .class_map import LabelMap, MappedVideo, find_map
from .clip import Video
from .labels import IGNORE, LabelSet, id_table, plain

SPLIT = "train"  # of further data


class Part(NamedTuple):
    """Videos of one place, labelled in the classes that are trained."""

    name: str  # for messages
    videos: list[Video]
    weight: float | None = None  # clips of it for each clip of the first part; None: all of them
    left_out: tuple[tuple[int, str], ...] = ()  # (id, name) of its own classes that become 255

    @property
    def clips(self) -> int:
        return sum(len(video.labelled) for video in self.videos)

    def drawn(self, clips_of_first: int) -> int:
        """How many of its clips an epoch has."""
        if self.weight is None:
            return self.clips
        return max(round(self.weight * clips_of_first), 1)


def extra_part(args: Namespace, extra, labels: LabelSet) -> Part:
    """Further data as one of the words of --extra-data names it (options.mixing.ExtraData).

    labels: the classes that are trained. FileNotFoundError: no such folder. ValueError: classes
    that are none of these, or data without a label.
    """
    if not Path(extra.root).is_dir():
        raise FileNotFoundError(
            f"--extra-data {extra}: {extra.root} is not a folder: give the folder of its data"
        )
    own_args = Namespace(**{**vars(args), "dataset": extra.dataset, "data_root": extra.root})
    module = import_module(extra.module)
    mapped = mapped_onto(extra, module.labels_of(own_args), labels)
    videos = [video for video in module.videos_of(own_args, SPLIT) if len(video.labelled)]
    if not videos:
        raise ValueError(f"--extra-data {extra}: no frame of its {SPLIT} split has a label")
    read = [MappedVideo(video, mapped.table) for video in videos]
    return Part(str(extra), read, extra.weight, mapped.left_out)


def mapped_onto(extra, own: LabelSet, labels: LabelSet) -> LabelMap:
    """How labels of further data become those that are trained."""
    try:
        if extra.class_map:
            places = find_map(extra.class_map).table(own.names, labels.names)
        else:
            places = same_names(own.names, labels.names)
    except ValueError as error:
        raise ValueError(f"--extra-data {extra}: {error}") from error
    table = id_table(dict(enumerate(places)))
    left_out = tuple((k, own.names[k]) for k, place in enumerate(places) if place == IGNORE)
    return LabelMap(labels, table, left_out)


def same_names(own: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...]:
    """The place of each name among the wanted ones. ValueError: one that is none of them."""
    places = {plain(name): place for place, name in enumerate(wanted)}
    unknown = [name for name in own if plain(name) not in places]
    if unknown:
        raise ValueError(
            f"its classes {', '.join(unknown)} are none of {', '.join(wanted)}: name a class map "
            "behind its weight"
        )
    return tuple(places[plain(name)] for name in own)
