"""The street of a synthetic video, laid out from a seed."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .blocks import add_block, grass_of
from .classes import ROAD, VEGETATION
from .draws import places
from .roadside import add_lamp, add_plant, add_sign
from .scene import Scene, Surface, strip
from .traffic import add_car, add_traffic

ROAD_TILE = 12  # metres along the street after which the markings repeat
BEYOND = 250  # metres: the ground goes on behind the end of the street


class Street(Scene):
    """Everything in one video."""

    def __init__(self, seed: int, duration: float):
        """duration: seconds of the video, which decide how far the street goes."""
        # a generator for each part: a change to one leaves the others as they are
        look = np.random.default_rng((seed, 0))
        place = np.random.default_rng((seed, 1))
        ride = np.random.default_rng((seed, 2))
        moving = np.random.default_rng((seed, 3))
        light = np.random.default_rng((seed, 4))
        super().__init__(look, ride, duration)
        self.lay_ground()
        self.cast_shadows(light)
        self.build(place)
        add_traffic(self, moving, duration)

    def lay_ground(self) -> None:
        """The road, and terrain a little below it as far as one can see."""
        length = (-20.0, self.end + BEYOND)
        self.ground(grass_of(self), (-250, 250), length, -0.05)
        self.ground(self.road_surface(self.look.asphalt), self.road_width(), length, 0)

    def road_surface(self, texture: int) -> Surface:
        """A texture of the road, across its whole width."""
        return Surface(ROAD, texture, (2 * self.profile.road, ROAD_TILE))

    def road_width(self) -> tuple[float, float]:
        """Its range of X."""
        return (-self.profile.road, self.profile.road)

    def cast_shadows(self, rng: Generator) -> None:
        """Stretches of road in the shade, a centimetre above it."""
        shade = self.road_surface(self.look.shaded)
        # whole tiles from the far end of the road, where its texture starts: so markings meet
        origin = self.end + BEYOND
        for z in places(rng, 12, 60, self.end):
            stop = origin - ROAD_TILE * round((origin - z) / ROAD_TILE)
            start = stop - rng.uniform(2, 11)
            self.ground(shade, self.road_width(), (start, stop), 0.01)

    def build(self, rng: Generator) -> None:
        """Blocks of the street one after another, at times parted by a crossing."""
        for side in (-1, 1):
            self.furnish(rng, side)
        z = -12.0
        while z < self.end:
            stop = z + rng.uniform(24, 55)
            for side in (-1, 1):
                add_block(self, rng, side, (z, stop))
            z = stop
            if rng.random() < 0.45:
                z = stop + rng.uniform(7, 10)
                self.add_crossing((stop, z))
        self.add_woods(rng)

    def add_crossing(self, z: tuple[float, float]) -> None:
        """Roads that leave the street to both sides."""
        asphalt = Surface(ROAD, self.look.crossroad, (ROAD_TILE, ROAD_TILE))
        near = self.profile.road
        for side in (-1, 1):
            self.ground(asphalt, strip(side, near, near + 90), z, 0)

    def add_woods(self, rng: Generator) -> None:
        """Trees across the end of the street."""
        for x in range(-200, 201, 25):
            height = rng.uniform(8, 22)
            leaves = Surface(VEGETATION, rng.choice(self.look.crowns))
            z = self.end + 160 + rng.uniform(0, 60)
            self.upright(leaves, x, z, (45, height))

    def furnish(self, rng: Generator, side: int) -> None:
        """Lamps, signs, street trees and parked cars along the curb."""
        x = side * (self.profile.road + 0.45)
        for z in places(rng, 14, 30, self.end):
            add_lamp(self, rng, x, z, side)
        for z in places(rng, 8, 22, self.end):
            add_sign(self, rng, x + side * rng.uniform(0, 0.4), z)
        if rng.random() < 0.5:
            for z in places(rng, 9, 20, self.end):
                add_plant(self, rng, x + side * 0.5, z)
        if self.profile.bays:
            self.park_cars(rng, side)

    def park_cars(self, rng: Generator, side: int) -> None:
        """Cars in some of the parking bays, in the direction of their lane."""
        filled = rng.uniform(0.25, 0.75)
        x = side * (self.profile.road - 1.0)
        for z in places(rng, 5.6, 7.5, self.end):
            if rng.random() < filled:
                add_car(self, rng, x, z, heading=side)
