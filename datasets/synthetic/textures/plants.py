"""Textures of trees, bushes and hedges."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .texture import noise, paint, rounded


def leaves(rng: Generator, shape: tuple[int, int], ragged: float, colour: np.ndarray) -> np.ndarray:
    """A crown, bush or hedge that fills most of the picture; ragged: how far its outline frays."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    y = y[:, None]
    # a superellipse, between an ellipse and a rectangle: above 0 inside
    inside = 0.82 - (np.abs(x) ** 2.4 + np.abs(y) ** 2.4) ** (1 / 2.4)
    rows = max(shape[0] // 32, 2)
    columns = max(shape[1] // 32, 2)
    clumps = noise(rng, shape, (rows, columns), 3)
    fine = noise(rng, shape, (rows * 4, columns * 4), 3, 0.9)
    alpha = inside + ragged * (0.16 * clumps + 0.10 * fine) > 0
    light = 0.95 - 0.28 * y + 0.16 * clumps + 0.20 * fine  # lit from above
    return paint(colour, light.clip(0.2, 1.8), alpha)


def leaf_colour(rng: Generator) -> np.ndarray:
    """(3,): green, from dark conifer to the yellow of autumn."""
    return np.array([rng.uniform(45, 105), rng.uniform(75, 112), rng.uniform(38, 62)])


def bark(rng: Generator) -> np.ndarray:
    """(96, 16): a trunk, seen from the side."""
    colour = rng.uniform([70, 58, 45], [110, 90, 72])
    light = rounded(16, 96) * (1 + 0.12 * noise(rng, (96, 16), (12, 4)))
    return paint(colour, light)
