"""What happens between two key frames, as two pictures.

    composite   input | edges | prediction | errors | label        of the last propagated frame
    strip       input / backbone / ours / flow                     a column for each frame

Pictures are (H, W, 3) uint8, label maps (H, W) of integers, edges (h, w) of 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from .pictures import BAND, GAP, colourise, error_map, side_by_side

EDGE = 255  # grey of an edge; all else is black


def composite(frame: np.ndarray, edges: np.ndarray, prediction, labels, palette) -> np.ndarray:
    """input | edges | prediction | errors | label, at the size of the labels."""
    size = labels.shape
    drawn = np.where(edges, np.uint8(EDGE), np.uint8(0))
    return side_by_side(
        resized(frame, size),
        resized(np.repeat(drawn[..., None], 3, axis=2), size, nearest=True),
        colourise(prediction, palette),
        error_map(labels, prediction),
        colourise(labels, palette),
        titles=("input", "edges", "prediction", "errors", "label"),
    )


def strip(
    frames: Sequence[np.ndarray],
    backbone: Sequence[np.ndarray],
    ours: Sequence[np.ndarray],
    flows: Sequence[np.ndarray | None],
    palette,
) -> np.ndarray:
    """Rows input, backbone, ours and flow; the first column is the key frame.

    backbone, ours: label maps of each frame; all pictures get their size. flows: pictures of the
    flow into the frame before, None where there is none; without any the row is left out.
    """
    size = ours[0].shape
    empty = np.full((*size, 3), BAND, np.uint8)
    rows = {
        "input": [resized(frame, size) for frame in frames],
        "backbone": [colourise(labels, palette) for labels in backbone],
        "ours": [colourise(labels, palette) for labels in ours],
    }
    if any(flow is not None for flow in flows):
        rows["flow"] = [
            empty if flow is None else resized(flow, size, nearest=True) for flow in flows
        ]
    return stacked([side_by_side(*row, titles=titles(name, row)) for name, row in rows.items()])


def titles(name: str, row: Sequence) -> list[str]:
    """How far each picture of a row is behind the key frame."""
    return [f"{name}, key frame", *(f"{name} +{distance}" for distance in range(1, len(row)))]


def stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of one width below each other."""
    gap = np.full((GAP, rows[0].shape[1], 3), BAND, np.uint8)
    parts = [part for row in rows for part in (gap, row)]
    return np.concatenate(parts[1:])


def resized(picture: np.ndarray, size: tuple[int, int], nearest: bool = False) -> np.ndarray:
    """A picture at size (H, W)."""
    if picture.shape[:2] == tuple(size):
        return picture
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    # Pillow takes (W, H).
    return np.asarray(Image.fromarray(picture).resize(size[::-1], method))
