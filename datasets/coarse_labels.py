"""Coarse labels of frames: what a label of ours may be there, by a map from ours to theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .class_map import find_map
from .folder import ALL, classes, videos
from .labels import IGNORE, LabelSet, id_table


class CoarseLabels:
    """The labels of a folder data set (folder.py), found by the names of clip and frame."""

    def __init__(self, root: Path, map_name: str, labels: LabelSet):
        """map_name: a class map from `labels`, our classes, to those of the folder.

        FileNotFoundError: no such folder, or no list of its classes. ValueError: a map of others.
        """
        root = Path(root)
        if not root.is_dir():
            raise FileNotFoundError(
                f"--coarse-labels {root} is not a folder: give the folder of labelled clips"
            )
        # A split's folder has its list of classes above it.
        coarse = classes(root) or classes(root.parent)
        if coarse is None:
            raise FileNotFoundError(
                f"--coarse-labels {root} has no classes.txt: list its classes there by id"
            )
        self.root = root
        # (256,) uint8: our id -> theirs, 255 where the map says nothing
        self.table = id_table(dict(enumerate(find_map(map_name).table(labels.names, coarse.names))))
        self.places = {
            (video.name, video.frame_name(index)): (video, index)
            for video in videos(root, ALL)
            for index in video.labelled
        }

    def label(self, clip: str, frame: str) -> np.ndarray | None:
        """(H, W) uint8, 255 = says nothing; None where the frame has none."""
        place = self.places.get((clip, frame))
        if place is None:
            return None
        video, index = place
        return video.label(index)

    def forbids(self, labels: np.ndarray, clip: str, frame: str) -> np.ndarray | None:
        """labels (H, W) uint8 of ours -> (H, W) bool: where the coarse label is another one.

        None where the frame has no coarse label. ValueError: labels of another size.
        """
        coarse = self.label(clip, frame)
        if coarse is None:
            return None
        if coarse.shape != labels.shape:
            high, wide = coarse.shape
            raise ValueError(
                f"the coarse label of {clip}/{frame} in {self.root} is {high}x{wide} (HxW), the "
                f"frame {labels.shape[0]}x{labels.shape[1]}: they must have one size"
            )
        allowed = self.table[labels]
        return (allowed != coarse) & (allowed != IGNORE) & (coarse != IGNORE)
