"""Label sets: class names, colours and id tables. Each data set defines its own in its file."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

IGNORE = 255  # the label of a pixel, or of a whole frame, that no loss and no metric counts

Colour = tuple[int, int, int]


class LabelSet(NamedTuple):
    """Names and RGB colours of the classes, by class id."""

    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    # (256,) uint8, class -> id in label PNGs; only where a benchmark expects other ids than ours
    ids: np.ndarray | None = None

    @classmethod
    def of(cls, classes: dict[str, Colour], ids: np.ndarray | None = None) -> LabelSet:
        """The label set of {name: colour}, listed by class id."""
        return cls(tuple(classes), tuple(classes.values()), ids)


class Sound(NamedTuple):
    """What is no fault of a data set's labels. A data set's module may hold one, named SOUND."""

    # Published lists name classes of which a part of the data may have none; an own list should not
    absent_classes: bool = True
    void_labels: bool = False  # labels that ignore every pixel
    dummy_splits: tuple[str, ...] = ()  # whose labels hold nothing


def other_classes(trained: tuple[str, ...], wanted: tuple[str, ...]) -> str:
    """That weights were trained for other classes; "" where they are the same but for spelling.

    Names are the same whatever their case, spaces, hyphens and underscores.
    """
    if not trained or [plain(name) for name in trained] == [plain(name) for name in wanted]:
        return ""
    return f"the weights were trained for {', '.join(trained)}, not for {', '.join(wanted)}"


def plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


def default_palette(num_classes: int) -> tuple[Colour, ...]:
    """Up to 255 distinct colours, none of them black, made as the PASCAL VOC colours are.

    The bits of the class number are dealt to R, G and B in turn; the lowest bits of the number
    become the highest bits of the colours. ValueError: not 1 to 255 classes.
    """
    if not 1 <= num_classes <= 255:
        raise ValueError(f"a label set has 1 to 255 classes, got {num_classes}")
    # from 1, because the colour of number 0 is black
    return tuple(colour_of(number) for number in range(1, num_classes + 1))


def colour_of(number: int) -> Colour:
    """The colour with this number in the palette of PASCAL VOC."""
    colour = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            value = number >> (3 * bit + channel) & 1
            colour[channel] |= value << (7 - bit)
    return tuple(colour)


def id_table(mapping: dict[int, int], default: int | None = IGNORE) -> np.ndarray:
    """A (256,) uint8 table of old id -> new id.

    Ids that `mapping` does not name become `default`, or stay as they are where it is None.
    """
    if default is None:
        table = np.arange(256, dtype=np.uint8)
    else:
        table = np.full(256, default, np.uint8)
    for old, new in mapping.items():
        table[old] = new
    return table
