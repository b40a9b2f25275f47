"""Textures of poles and fences."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .texture import grey, noise, paint, rounded

FENCE_SHAPE = (60, 100)  # pixels


def pole(rng: Generator) -> np.ndarray:
    """(64, 8): metal or painted: grey, at times dark green."""
    colour = (45, 70, 55)
    if rng.random() < 0.8:
        colour = grey(rng, 60, 165, 4)
    light = 1 + 0.05 * noise(rng, (64, 8), (6, 1), 3)
    return paint(colour, rounded(8, 64) * light)


def fence(rng: Generator) -> np.ndarray:
    """2.5 m long, 40 pixels a metre: boards, railings or a wall with a rail, with gaps."""
    kind = rng.integers(len(FENCES))
    draw = FENCES[kind]
    light = 1 + 0.07 * noise(rng, FENCE_SHAPE, (2, 10), 4)
    return draw(rng, light)


def boards(rng: Generator, light: np.ndarray) -> np.ndarray:
    """Wide boards of wood."""
    colour = rng.uniform([95, 70, 45], [185, 150, 115])
    return slats(colour, light, pitch=20, width=17)


def railings(rng: Generator, light: np.ndarray) -> np.ndarray:
    """Narrow bars of metal."""
    colour = np.array(grey(rng, 50, 190, 12))
    return slats(colour, light, pitch=10, width=5)


def slats(colour: np.ndarray, light: np.ndarray, *, pitch: int, width: int) -> np.ndarray:
    """Upright slats, one every `pitch` pixels, on two rails."""
    alpha = np.zeros(FENCE_SHAPE, bool)
    across = np.arange(FENCE_SHAPE[1]) % pitch
    alpha[:, across < width] = True
    # rails
    alpha[8:14] = True
    alpha[46:52] = True
    light[:, across == 0] *= 0.7  # the dark edge of each slat
    return paint(colour, light, alpha)


def masonry(rng: Generator, light: np.ndarray) -> np.ndarray:
    """A low wall, and on it a rail on posts."""
    alpha = np.zeros(FENCE_SHAPE, bool)
    across = np.arange(FENCE_SHAPE[1]) % 25
    alpha[28:] = True  # wall
    alpha[4:9] = True  # rail
    alpha[:, across < 4] = True  # posts
    return paint(np.array(grey(rng, 110, 170)), light, alpha)


FENCES = (boards, railings, masonry)
