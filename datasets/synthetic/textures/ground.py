"""Textures of what lies on the ground, and of the sky."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .texture import grey, noise, paint

LINE = 3  # pixels: width of a marking


def road(rng: Generator, width: float, bays: bool) -> np.ndarray:
    """Asphalt with lane markings: `width` metres across, 12 m along, 20 pixels a metre."""
    shape = (240, max(round(20 * width), 8))
    grain = 0.04 * noise(rng, shape, (4, 3), 5, 0.8)
    patches = 0.05 * noise(rng, shape, (1, 4), 2)
    picture = paint(grey(rng, 68, 122), 1 + grain + patches)
    white = np.array(grey(rng, 185, 235), np.float32)
    for rows, columns in markings(rng, shape[1], bays):
        # worn: how much of the asphalt the paint still covers
        worn = 0.75 + 0.12 * noise(rng, shape, (12, 8), 3)
        worn = worn[rows, columns, None]  # (h, w, 1)
        below = picture[rows, columns, :3]
        mixed = below * (1 - worn) + white * worn
        picture[rows, columns, :3] = np.clip(mixed, 0, 255)
    return picture


def markings(rng: Generator, width: int, bays: bool) -> list[tuple[slice, slice]]:
    """Rows and columns of the line in the middle and of those that bound the parking bays."""
    middle = width // 2
    length = slice(0, 240)  # solid
    if rng.random() < 0.7:
        length = slice(0, 100)  # dashed: 5 m of 12 m
    lines = [(length, slice(middle - 1, middle - 1 + LINE))]
    if bays:
        # two metres from the edges
        for left in (40, width - 43):
            lines.append((slice(None), slice(left, left + LINE)))
    return lines


def pavement(rng: Generator) -> np.ndarray:
    """Slabs, 4 m square, 24 pixels a metre; the size of a slab varies from video to video."""
    shape = (96, 96)
    slab = int(rng.choice([12, 16, 24, 32, 48]))  # pixels
    light = 1 + 0.04 * noise(rng, shape, (3, 3), 5, 0.8)
    of_slabs = 1 + 0.035 * rng.standard_normal((96 // slab, 96 // slab))
    light *= np.kron(of_slabs, np.ones((slab, slab)))
    # joints
    light[::slab] *= 0.86
    light[:, ::slab] *= 0.86
    colour = np.array(grey(rng, 105, 175))
    colour = colour * rng.uniform([0.98, 0.95, 0.86], [1.08, 1.0, 1.0])
    return paint(colour, light)


def grass(rng: Generator) -> np.ndarray:
    """Lawn or dry ground, 6 m square: mostly yellower and smoother than leaves."""
    shape = (128, 128)
    green = rng.uniform([80, 110, 50], [150, 150, 80])
    dry = rng.uniform([130, 115, 75], [165, 140, 100])
    share = rng.uniform(0.0, 0.5) + 0.22 * noise(rng, shape, (2, 2), 4)
    share = np.clip(share, 0, 1)[..., None]  # (h, w, 1)
    light = 1 + 0.10 * noise(rng, shape, (8, 8), 4, 0.9)
    colour = green * (1 - share) + dry * share
    return paint(colour, light)


def sky(rng: Generator) -> np.ndarray:
    """(128, 384): clear, cloudy or overcast, the horizon three quarters down."""
    shape = (128, 384)
    # 0 at the top, 1 from the horizon on: (h, 1, 1)
    down = np.linspace(0, 1.33, shape[0], dtype=np.float32)[:, None, None]
    down = down.clip(0, 1)
    high = rng.uniform([70, 120, 190], [130, 175, 240])
    low = rng.uniform([175, 195, 210], [225, 230, 240])
    if rng.random() < 0.3:  # overcast
        high = np.array(grey(rng, 150, 205, 4))
        low = np.array(grey(rng, 195, 230, 4))
    # between none at all and all but a few gaps
    clouds = noise(rng, shape, (3, 7), 5) + rng.uniform(-1.6, 0.6)
    clouds = clouds[..., None].clip(0, 1.2) / 1.2  # (h, w, 1)
    clear = high * (1 - down) + low * down
    white = rng.uniform(215, 246)
    colour = clear * (1 - clouds * 0.85) + clouds * 0.85 * white
    return paint(colour, np.ones(shape, np.float32))
