"""Rows of houses along a synthetic street."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from .classes import BUILDING
from .scene import CURB, Scene, Span, Surface, Z, left_end

STOREY = 3.2  # metres
BAY_WIDTH = 2.5  # metres: fronts are whole bays of windows wide


class House(NamedTuple):
    """The ground plan of a house in metres."""

    side: int
    line: float  # distance of its front from the middle of the street
    z: Span
    depth: float

    @property
    def middle(self) -> float:
        """X of its middle, where the ridge of a pitched roof is."""
        return self.side * (self.line + self.depth / 2)


def add_row(
    scene: Scene, rng: Generator, side: int, z: Span, *, line: float, gaps: tuple[float, ...]
) -> None:
    """Houses side by side with their fronts on `line`; gaps: distances to draw from, in metres."""
    start, stop = z
    while start + 6 < stop:
        end = add_house(scene, rng, side, (start, stop), line)
        start = end + rng.choice(gaps)


def add_house(scene: Scene, rng: Generator, side: int, z: Span, line: float) -> float:
    """A house that begins at z[0] and ends by z[1]; returns the Z of its end."""
    start, stop = z
    look = scene.look
    kind = int(rng.integers(len(look.floors)))
    width = min(BAY_WIDTH * int(rng.integers(3, 8)), stop - start)
    height = STOREY * look.floors[kind]
    end = start + width
    depth = rng.uniform(7, 12)
    house = House(side, line, (start, end), depth)

    front = look.facades[side][kind]
    wall = Surface(BUILDING, front, (look.width(front), height))
    scene.along(side, wall, line, house.z, height, bottom=CURB)
    # the wall that faces the camera is lit like the fronts of the other side
    flank = look.facades[-side][kind]
    wall = Surface(BUILDING, flank, (look.width(flank), height))
    scene.upright(wall, house.middle, start, (depth, height), bottom=CURB)
    if rng.random() < 0.6:
        add_pitched_roof(scene, rng, house, height + CURB)
    return end


def add_pitched_roof(scene: Scene, rng: Generator, house: House, eaves: float) -> None:
    """The half towards the street, and the gable below it at the near end.

    eaves: height of the lower edge above the road.
    """
    side = house.side
    rise = rng.uniform(0.3, 0.45) * house.depth
    slope = float(np.hypot(rise, house.depth / 2))  # metres from ridge to eaves
    near, far = house.z
    across = -side * house.depth / 2  # from the ridge to the street
    down = np.array([across, rise, 0]) / slope
    ridge = (house.middle, -eaves - rise, left_end(side, house.z))
    length = far - near
    tiles = Surface(BUILDING, scene.look.roofs[side], (4, 4))
    scene.add(tiles, ridge, (-side * Z, down), (length, slope))
    gable = Surface(BUILDING, scene.look.gables[side])
    size = (house.depth, rise)
    scene.upright(gable, house.middle, near, size, bottom=eaves)
