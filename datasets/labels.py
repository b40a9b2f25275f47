"""Label sets: class names, colours and id tables. Each data set's own stands in its file."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

IGNORE = 255  # the label of a pixel, or of a whole frame, that counts for nothing

Colour = tuple[int, int, int]


class LabelSet(NamedTuple):
    """Names and RGB colours of the classes, by class id."""

    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    ids: np.ndarray | None = (
        None  # (256,) class -> id in label PNGs, where a benchmark wants others
    )


def default_palette(num_classes: int) -> tuple[Colour, ...]:
    """Up to 255 distinct colours, none of them black: the bits of the class number dealt out to R, G and B in
    turn, high bits first, as the PASCAL VOC colours are made."""
    if not 1 <= num_classes <= 255:
        raise ValueError(f"a label set has 1 to 255 classes, got {num_classes}")

    def channel(number: int, offset: int) -> int:
        return sum((number >> (3 * bit + offset) & 1) << (7 - bit) for bit in range(8))

    return tuple((channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(1, num_classes + 1))


def id_table(mapping: dict[int, int], default: int | None = 255) -> np.ndarray:
    """A (256,) uint8 table of old id -> new id; ids that are not named become `default`, or stay where it is None."""
    table = np.arange(256, dtype=np.uint8) if default is None else np.full(256, default, np.uint8)
    for old, new in mapping.items():
        table[old] = new
    return table
