"""A texture with its smaller versions, and what textures are painted with."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from ...opencv import opencv

Colour = tuple[float, float, float]


class Texture:
    """A picture with smaller versions of itself, made when asked for.

    Halved i times across and j times down (a ripmap): a street seen at a low angle shrinks more in
    one direction. wrap: whether it repeats beyond its edges; opaque: whether it has no gaps.
    """

    def __init__(self, picture: np.ndarray, wrap: bool = False):
        """picture: (h, w, 4) uint8 RGBA."""
        self.wrap = wrap
        self.opaque = bool((picture[..., 3] == 255).all())
        self.levels = {(0, 0): np.ascontiguousarray(picture)}

    def level(self, i: int, j: int) -> np.ndarray:
        """(h / 2^j, w / 2^i, 4) uint8, at least one pixel each way."""
        if (i, j) not in self.levels:
            cv2 = opencv()
            full = self.levels[0, 0]
            height, width = full.shape[:2]
            size = (max(width >> i, 1), max(height >> j, 1))  # OpenCV: width first
            self.levels[i, j] = cv2.resize(full, size, interpolation=cv2.INTER_AREA)
        return self.levels[i, j]


def noise(
    rng: Generator,
    shape: tuple[int, int],
    cells: tuple[int, int] = (4, 4),
    octaves: int = 4,
    fade: float = 0.6,
) -> np.ndarray:
    """Value noise that repeats without a seam: (h, w) float32 of about zero mean and unit spread.

    The sum of smoothed random grids. cells: (rows, columns) of the coarsest grid; each octave
    doubles them and weighs `fade` times the one before.
    """
    cv2 = opencv()
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        rows = min(cells[0] << octave, height)
        columns = min(cells[1] << octave, width)
        values = rng.standard_normal((rows, columns)).astype(np.float32)
        # two cells of the opposite edge all around: interpolation looks at most two cells away
        values = np.pad(values, 2, mode="wrap")
        cell_height = height / rows  # pixels
        cell_width = width / columns
        padded_width = round(cell_width * (columns + 4))
        padded_height = round(cell_height * (rows + 4))
        # cubic where the cells are largest: linear interpolation would show their edges
        how = cv2.INTER_LINEAR if octave else cv2.INTER_CUBIC
        smooth = cv2.resize(values, (padded_width, padded_height), interpolation=how)
        top = round(2 * cell_height)
        left = round(2 * cell_width)
        inner = smooth[top : top + height, left : left + width]
        total += fade**octave * inner
    return total / max(float(total.std()), 1e-6)


def paint(
    base: np.ndarray | Colour, light: np.ndarray, alpha: np.ndarray | None = None
) -> np.ndarray:
    """Colour (3,) or (h, w, 3) times light (h, w), and alpha (h, w) bool -> (h, w, 4) uint8."""
    colour = np.asarray(base, np.float32) * light[..., None]
    picture = np.full((*light.shape, 4), 255, np.uint8)
    picture[..., :3] = np.clip(colour, 0, 255)
    if alpha is not None:
        picture[..., 3] *= alpha
    return picture


def grey(rng: Generator, low: float, high: float, tint: float = 6) -> Colour:
    """A nearly neutral colour, `low` to `high` bright; tint: standard deviation of its channels."""
    return tuple(rng.uniform(low, high) + rng.normal(0, tint, 3))


def rounded(width: int, height: int) -> np.ndarray:
    """Light on an upright cylinder (height, width)."""
    # brightest left of its middle
    across = np.linspace(-0.6, 1, width, dtype=np.float32)
    return np.tile(1.12 - 0.55 * across**2, (height, 1))
