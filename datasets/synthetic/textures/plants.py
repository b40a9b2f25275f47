"""Textures of trees, bushes and hedges."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .texture import noise, paint, rounded


def leaves(rng: Generator, shape: tuple[int, int], ragged: float, colour: np.ndarray) -> np.ndarray:
    """A crown, bush or hedge that fills most of the picture; ragged: how far its outline frays."""
    height, width = shape
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    # a superellipse, between an ellipse and a rectangle: `inside` is above 0 within it
    radius = np.abs(x) ** 2.4 + np.abs(y) ** 2.4
    radius = radius ** (1 / 2.4)
    inside = 0.82 - radius
    rows = max(height // 32, 2)
    columns = max(width // 32, 2)
    clumps = noise(rng, shape, (rows, columns), 3)
    fine = noise(rng, shape, (rows * 4, columns * 4), 3, 0.9)
    frayed = 0.16 * clumps + 0.10 * fine
    alpha = inside + ragged * frayed > 0
    light = 0.95 - 0.28 * y + 0.16 * clumps + 0.20 * fine  # lit from above
    return paint(colour, light.clip(0.2, 1.8), alpha)


def leaf_colour(rng: Generator) -> np.ndarray:
    """(3,): green, from dark conifer to the yellow of autumn."""
    return rng.uniform([45, 75, 38], [105, 112, 62])


def bark(rng: Generator) -> np.ndarray:
    """(96, 16): a trunk, seen from the side."""
    colour = rng.uniform([70, 58, 45], [110, 90, 72])
    light = 1 + 0.12 * noise(rng, (96, 16), (12, 4))
    return paint(colour, rounded(16, 96) * light)
