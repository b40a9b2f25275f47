"""Textures of houses.

`shade` is how bright a wall or roof is lit, 1 on the lit side of the street.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .texture import grey, noise, paint

FACADE_SCALE = 20  # pixels a metre
STOREY = 64  # pixels: 3.2 m
BAY = 50  # pixels: 2.5 m
SHOP_WINDOW = (48, 42)  # pixels: height and width
SILL = 60  # pixels from the storey's top to the lower edge of a shop window


def facade(rng: Generator, floors: int, shade: float) -> np.ndarray:
    """Wall with windows, FACADE_SCALE pixels a metre.

    Two to four bays of 2.5 m, `floors` of 3.2 m.
    """
    bays = int(rng.integers(2, 5))
    shape = (floors * STOREY, bays * BAY)
    colour = wall_colour(rng) * shade
    light = 1 + 0.05 * noise(rng, shape, (3, 3), 5, 0.7)
    if rng.random() < 0.4:  # courses of brick or board
        light[:: int(rng.integers(4, 9))] *= 0.9
    picture = paint(colour, light)
    add_windows(rng, picture, colour, shade)
    picture[:5, :, :3] = np.clip(colour * 0.8, 0, 255)  # cornice
    if rng.random() < 0.5:  # a ledge above each floor but the highest
        ledges = slice(STOREY - 3, STOREY * floors, STOREY)
        picture[ledges, :, :3] = np.clip(colour * 1.15, 0, 250)
    return picture


def add_windows(rng: Generator, picture: np.ndarray, wall: np.ndarray, shade: float) -> None:
    """Draw a framed window into each bay of each floor; the ground floor may have shop windows."""
    floors = picture.shape[0] // STOREY
    bays = picture.shape[1] // BAY
    width = int(rng.integers(18, 38))
    height = int(rng.integers(24, 46))
    usual = (height, width)
    frame = np.clip(wall * rng.choice([0.6, 1.35]), 0, 245)  # darker or lighter than the wall
    for floor in range(floors):  # from above
        height, width = usual
        top = floor * STOREY + (STOREY - height) // 2
        ground = floor == floors - 1
        if ground and rng.random() < 0.6:
            height, width = SHOP_WINDOW
            top = floor * STOREY + (SILL - height)
        for bay in range(bays):
            left = bay * BAY + (BAY - width) // 2
            right = left + width
            bottom = top + height
            picture[top - 2 : bottom + 2, left - 2 : right + 2, :3] = frame
            picture[top:bottom, left:right, :3] = window(rng, height, width, shade)


def wall_colour(rng: Generator) -> np.ndarray:
    """(3,): plaster, brick, concrete or a painted front."""
    kind = rng.integers(4)
    if kind == 0:  # plaster
        return rng.uniform([185, 170, 130], [225, 205, 180])
    if kind == 1:  # brick
        return rng.uniform([125, 75, 60], [170, 100, 85])
    if kind == 2:  # concrete
        return np.array(grey(rng, 110, 185))
    # paint of any colour, but no garish one: its channels share the larger part
    shared = rng.uniform(95, 215)
    return 0.6 * shared + 0.4 * rng.uniform(80, 215, 3)


def window(rng: Generator, height: int, width: int, shade: float) -> np.ndarray:
    """(height, width, 3): a dark or sky-reflecting pane with an upright bar, at times a curtain."""
    light = np.linspace(1.25, 0.75, height)[:, None, None]  # brighter above
    brightness = rng.uniform(30, 110)
    tint = np.array([0.92, 1.0, rng.uniform(1.0, 1.25)])
    across = np.ones((1, width, 1))
    pane = brightness * tint * light * across  # (height, width, 3)
    pane *= 0.5 + 0.5 * shade
    if rng.random() < 0.35:  # curtain
        cloth = rng.uniform(130, 210) * shade
        length = int(height * rng.uniform(0.2, 0.8))
        pane[:length] = cloth
    middle = width // 2
    pane[:, middle - 1 : middle + 1] = rng.uniform(120, 215) * shade
    return pane.clip(0, 255)


def roof(rng: Generator, shade: float) -> np.ndarray:
    """Rows of tiles, 4 m square."""
    light = 1 + 0.06 * noise(rng, (64, 64), (4, 4), 4)
    light[::8] *= 0.75  # the shadow below each row
    colour = rng.uniform([85, 50, 45], [160, 95, 90]) * shade
    return paint(colour, light)


def gable(rng: Generator, shade: float) -> np.ndarray:
    """(48, 96): the triangle of wall below a pitched roof."""
    down = np.linspace(0, 1, 48)[:, None]
    from_middle = np.abs(np.linspace(-1, 1, 96))
    colour = wall_colour(rng) * shade
    light = 1 + 0.05 * noise(rng, (48, 96))
    return paint(colour, light, from_middle <= down)
