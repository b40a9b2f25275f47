"""Labels that a training can learn from, made of what a network predicts: unsure pixels and those
that coarser labels contradict have none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .pictures import IGNORE


@dataclass
class PixelCounts:
    """What became of the pixels of frames. Two of them add up."""

    pixels: int = 0
    labelled: int = 0
    unsure: int = 0
    forbidden: int = 0
    frames: int = 0
    without_coarse: int = 0  # frames that have no coarse label

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[int, ...]:
        return tuple(vars(self).values())

    def told(self) -> str:
        """Shares of all pixels, in words."""
        share = {name: 100 * n / max(self.pixels, 1) for name, n in vars(self).items()}
        text = (
            f"{share['labelled']:.1f} % of the pixels are labelled, {share['unsure']:.1f} % left "
            "out for low confidence"
        )
        if self.forbidden:
            text += f", {share['forbidden']:.1f} % forbidden by coarse labels"
        if self.without_coarse:
            text += f"; {self.without_coarse} of {self.frames} frames have no coarse label"
        return text


def pseudo_labels(
    labels: np.ndarray,
    confidence: np.ndarray | None = None,
    coarse: np.ndarray | None = None,
    *,
    min_confidence: float = 0.0,
    table: np.ndarray | None = None,
) -> tuple[np.ndarray, PixelCounts]:
    """labels (H, W) uint8 -> the same with 255 where a pixel is unsure or forbidden, and counts.

    confidence (H, W): the probability of each label. coarse (H, W) uint8: coarse labels, 255 where
    they say nothing. table (256,) uint8: class -> coarse class, 255 where the map says nothing
    about a class. A pixel that is both unsure and forbidden counts as unsure.
    """
    counts = PixelCounts(pixels=labels.size, frames=1)
    if min_confidence > 0:
        unsure = (confidence < min_confidence) & (labels != IGNORE)
        labels = np.where(unsure, np.uint8(IGNORE), labels)
        counts.unsure = int(unsure.sum())
    if coarse is not None:
        forbidden = contradicted(table[labels], coarse)
        labels = np.where(forbidden, np.uint8(IGNORE), labels)
        counts.forbidden = int(forbidden.sum())
    counts.labelled = int((labels != IGNORE).sum())
    return labels, counts


def contradicted(expected: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Where both say a class, and not the same: (H, W) bool."""
    both = (expected != IGNORE) & (coarse != IGNORE)
    return both & (expected != coarse)
