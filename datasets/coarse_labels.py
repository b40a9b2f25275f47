"""--coarse-labels: labels in fewer classes for frames that a network labels.

    ROOT/<clip>/images/<frame>.png or .jpg
    ROOT/<clip>/labels/<frame>.png
    ROOT/classes.txt, or beside ROOT where that is a split

The tree is one of --dataset folder (folder.py). Clips have the names of the sources.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .class_map import find_map
from .files import FileVideo
from .folder import ALL, CLASSES, label_set, videos
from .labels import LabelSet, id_table
from .source.names import source_name


class CoarseLabels:
    """The coarse labels of frames by the names of clip and frame.

    table: (256,) uint8, class -> coarse class, 255 where the map says nothing about a class.
    """

    def __init__(self, root: str, class_map: str, labels: LabelSet):
        """labels: the classes of the network. FileNotFoundError, ValueError: no such tree, or a map
        that does not fit the classes."""
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"--coarse-labels {root} is not a folder: give one of clips with labels"
            )
        self.classes = coarse_classes(self.root)
        found = find_map(class_map, "--coarse-map")
        try:
            places = found.table(labels.names, self.classes.names)
        except ValueError as error:
            raise ValueError(f"--coarse-map: {error}") from error
        self.table = id_table(dict(enumerate(places)))
        # A source has a name that is safe in file names, and so is the clip's made.
        self.clips = {source_name(str(self.root / v.name)): v for v in videos(self.root, ALL)}
        self.indices: dict[str, dict[str, int]] = {}

    def of(self, clip: str, frame: str, size: tuple[int, int]) -> np.ndarray | None:
        """The coarse label (H, W) of a frame, None where it has none.

        ValueError: a label that cannot be read, or is not of the frame's size (H, W).
        """
        video = self.clips.get(clip)
        if video is None:
            return None
        index = self.labelled(clip, video).get(frame)
        if index is None:
            return None
        label = video.label(index)
        if label.shape != size:
            raise ValueError(
                f"the coarse label {video.labels[index]} is {label.shape[0]}x{label.shape[1]} "
                f"(HxW), but the frame {frame} of {clip} is {size[0]}x{size[1]}: give both one size"
            )
        return label

    def labelled(self, clip: str, video: FileVideo) -> dict[str, int]:
        """Name of a frame with a label -> its index."""
        if clip not in self.indices:
            self.indices[clip] = {video.frame_name(i): i for i in video.labelled}
        return self.indices[clip]


def coarse_classes(root: Path) -> LabelSet:
    """The classes of the tree; where it is a split of a data set, those of the data set."""
    if not (root / CLASSES).exists() and (root.parent / CLASSES).exists():
        return label_set(root.parent)
    return label_set(root)
