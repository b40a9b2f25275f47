"""Short severe failures of the sensor: dark, noisy or blurred frames, wholly or in part."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from ..opencv import opencv

LONGEST = 3  # frames

Span = tuple[float, float]

WHOLE = (0.0, 1.0)
# range of the height and of the width of the area that fails, as fractions; None: all of it
AREAS: dict[str, tuple[Span | None, Span | None]] = {
    "frame": (None, None),
    "band": ((0.2, 0.6), None),
    "block": ((0.2, 0.6), (0.3, 0.7)),
}


class Dropout(NamedTuple):
    """A severe failure of the sensor: which kind, and where, as fractions of height and width."""

    kind: str  # a key of KINDS
    rows: Span
    columns: Span

    @classmethod
    def draw(cls, rng: Generator) -> Dropout:
        """A random failure."""
        kind = rng.choice(list(KINDS))
        height, width = AREAS[rng.choice(list(AREAS))]
        rows = draw_part(rng, height)
        columns = draw_part(rng, width)
        return cls(str(kind), rows, columns)

    def apply(self, image: np.ndarray, rng: Generator) -> np.ndarray:
        """The image (H, W, 3) uint8 with this failure in its area."""
        height, width = image.shape[:2]
        area = (pixels(self.rows, height), pixels(self.columns, width))
        out = image.copy()
        out[area] = KINDS[self.kind](out[area], width, rng)
        return out


def draw_part(rng: Generator, lengths: Span | None) -> Span:
    """A random part of [0, 1] whose length lies in `lengths`; without lengths, all of it."""
    if lengths is None:
        return WHOLE
    length = rng.uniform(*lengths)
    start = rng.uniform(0, 1 - length)
    return start, start + length


def pixels(part: Span, count: int) -> slice:
    """A part of [0, 1] as at least one of `count` pixels."""
    start = int(part[0] * count)
    stop = int(part[1] * count)
    return slice(start, max(stop, start + 1))


# Kinds of failure: area (h, w, 3) uint8 of an image of some width -> the same area, not rounded


def darken(area: np.ndarray, width: int, rng: Generator) -> np.ndarray:
    """Nearly no light reaches the sensor."""
    return area * rng.uniform(0.03, 0.2)


def add_noise(area: np.ndarray, width: int, rng: Generator) -> np.ndarray:
    """Less light and strong noise around a grey level above 0."""
    dimmed = area * rng.uniform(0.3, 0.8)
    mean = rng.uniform(10, 60)  # grey levels
    deviation = rng.uniform(40, 70)
    noisy = dimmed + rng.normal(mean, deviation, area.shape)
    return noisy.clip(0, 255)


def blur(area: np.ndarray, width: int, rng: Generator) -> np.ndarray:
    """Out of focus, by 1.2 to 3 % of the image width."""
    cv2 = opencv()
    deviation = width * rng.uniform(0.012, 0.03)  # pixels
    return cv2.GaussianBlur(area, (0, 0), max(deviation, 1))


KINDS: dict[str, Callable[[np.ndarray, int, Generator], np.ndarray]] = {
    "dark": darken,
    "noisy": add_noise,
    "blurred": blur,
}
