"""Labels that a network proposes for a training: it must be sure, and coarse labels must allow it.

Source: pseudo labels of confident pixels, as ETC's authors trained with (Liu et al., ECCV 2020).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

IGNORE = 255

# (labels (H, W), clip, frame) -> (H, W) bool, or None where nothing is known of the frame
Forbids = Callable[[np.ndarray, str, str], np.ndarray | None]


class Proposals:
    """Takes labels away, and counts how many."""

    def __init__(self, min_confidence: float = 0.0, forbids: Forbids | None = None):
        self.min_confidence = min_confidence
        self.forbids = forbids
        self.pixels = 0
        self.unsure = 0
        self.forbidden = 0
        self.frames = 0
        self.unknown = 0  # frames without a coarse label

    @property
    def active(self) -> bool:
        return bool(self.min_confidence) or self.forbids is not None

    def keep(
        self, labels: np.ndarray, confidence: np.ndarray | None, clip: str, frame: str
    ) -> np.ndarray:
        """labels (H, W) uint8, confidence (H, W) in [0, 1] -> the labels that stay, others 255."""
        if not self.active:
            return labels
        self.frames += 1
        self.pixels += labels.size
        kept = labels
        if self.min_confidence:
            unsure = confidence < self.min_confidence
            self.unsure += int(unsure.sum())
            kept = np.where(unsure, np.uint8(IGNORE), kept)
        if self.forbids is not None:
            kept = self.without_forbidden(kept, clip, frame)
        return kept

    def without_forbidden(self, labels: np.ndarray, clip: str, frame: str) -> np.ndarray:
        forbidden = self.forbids(labels, clip, frame)
        if forbidden is None:
            self.unknown += 1
            return labels
        forbidden &= labels != IGNORE
        self.forbidden += int(forbidden.sum())
        return np.where(forbidden, np.uint8(IGNORE), labels)

    def note(self) -> str | None:
        """What was taken away, in words; None where nothing could be."""
        if not self.active or not self.pixels:
            return None
        parts = []
        if self.min_confidence:
            share = 100 * self.unsure / self.pixels
            parts.append(f"{share:.1f} % less sure than {self.min_confidence:g}")
        if self.forbids is not None:
            share = 100 * self.forbidden / self.pixels
            parts.append(f"{share:.1f} % forbidden by coarse labels")
        text = f"pixels without a label: {', '.join(parts)}"
        if self.unknown:
            text += f"; {self.unknown} of {self.frames} frames have no coarse label"
        return text
