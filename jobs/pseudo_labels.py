"""Labels for a training to learn from: what --min-confidence and --coarse-labels leave of what a
network predicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.class_list import class_lines
from datasets.coarse_labels import CoarseLabels
from datasets.labels import LabelSet
from datasets.near_layouts import NO_CLIPS
from utils.console import Console
from utils.files import write_text
from utils.output.pseudo_labels import PixelCounts, pseudo_labels
from utils.run import savedir
from utils.run.dist import gather, rank


class PseudoLabels:
    """Leaves out pixels of labels, and counts them."""

    def __init__(self, args, labels: LabelSet):
        """FileNotFoundError, ValueError: --coarse-labels that cannot be used."""
        writes = bool({"labels", "dataset"} & set(args.output))
        self.min_confidence = args.min_confidence if writes else 0.0
        self.coarse = None
        if writes and args.coarse_labels:
            self.coarse = CoarseLabels(args.coarse_labels, args.coarse_map, labels)
        self.counts = PixelCounts()

    @property
    def wants_confidence(self) -> bool:
        return self.min_confidence > 0

    def __call__(
        self, labels: np.ndarray, confidence: np.ndarray | None, clip: str, frame: str
    ) -> np.ndarray:
        """labels (H, W) uint8 of a frame -> the same with 255 where a pixel is left out."""
        if not self.wants_confidence and self.coarse is None:
            return labels
        coarse = None
        table = None
        if self.coarse:
            coarse = self.coarse.of(clip, frame, labels.shape)
            table = self.coarse.table
        labels, counts = pseudo_labels(
            labels, confidence, coarse, min_confidence=self.min_confidence, table=table
        )
        counts.without_coarse = int(self.coarse is not None and coarse is None)
        self.counts += counts
        return labels

    def tell(self, console: Console) -> None:
        """What was left out, over all ranks."""
        counts = sum(gather(self.counts), PixelCounts())
        if rank() == 0 and counts.frames:
            console.note(f"labels: {counts.told()}")


def reserved_names(args) -> tuple[str, ...]:
    """Names that no source may have: clips of a data set would be taken for something else."""
    return NO_CLIPS if "dataset" in args.output else ()


def write_classes(folder: Path, args, labels: LabelSet) -> None:
    """The list of classes of --output dataset, once for all ranks."""
    if "dataset" not in args.output or rank():
        return
    path = folder / savedir.CLASSES
    path.parent.mkdir(exist_ok=True)
    write_text(path, class_lines(labels))
