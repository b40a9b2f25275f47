"""The street of a synthetic video: flat textured patches in 3-D, laid out from a seed, and the ride
along it.

Metres; X right, Y down, Z along the street; the road is the plane Y = 0. A patch is seen from one
side, where u x v points away from the viewer. Everything moves at constant velocity or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from .materials import Materials
from .ride import Ride

CLASSES: tuple[str, ...] = (
    "road",
    "sidewalk",
    "building",
    "fence",
    "pole",
    "sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "car",
)
PALETTE: tuple[tuple[int, int, int], ...] = (  # Cityscapes' colours
    (128, 64, 128),
    (244, 35, 232),
    (70, 70, 70),
    (190, 153, 153),
    (153, 153, 153),
    (220, 220, 0),
    (107, 142, 35),
    (152, 251, 152),
    (70, 130, 180),
    (220, 20, 60),
    (0, 0, 142),
)
ROAD, SIDEWALK, BUILDING, FENCE, POLE, SIGN, VEGETATION, TERRAIN, SKY, PERSON, CAR = range(
    len(CLASSES)
)

X, Y, Z = np.eye(3)
STILL = np.zeros(3)
VIEW = 160.0  # metres of street built beyond the last frame
CURB = 0.12  # metres


class Patch(NamedTuple):
    """A rectangle in space: origin + a * u + b * v for a, b in [0, size]; the texture repeats every
    `tile` metres."""

    origin: np.ndarray
    u: np.ndarray
    v: np.ndarray
    size: tuple[float, float]
    label: int
    texture: int
    tile: tuple[float, float]
    velocity: np.ndarray


class Street:
    """Everything in one video: the `patches`, their `look`, the `ride`."""

    def __init__(self, seed: int, duration: float):
        """duration: seconds of the video, which decide how far the street goes."""
        look, place, ride, moving, light = (np.random.default_rng((seed, k)) for k in range(5))
        self.patches: list[Patch] = []
        self.bays = bool(look.random() < 0.65)
        self.road = look.uniform(3.0, 3.9) + (2.1 if self.bays else 0)  # half width
        self.verge = look.uniform(0.8, 1.8) if look.random() < 0.35 else 0.0
        self.walk = self.road + self.verge + look.uniform(1.8, 3.8)  # outer edge of the sidewalk
        self.ride = Ride.draw(ride, (self.road - (2.1 if self.bays else 0)) / 2)
        self.look = Materials(look, self.road, self.bays)
        self.end = self.ride.speed * duration + VIEW
        self.lay_ground()
        self.cast_shadows(light)
        self.build(place)
        self.traffic(moving, duration)

    # Patches

    def add(
        self,
        label: int,
        texture: int,
        origin: object,
        u: np.ndarray,
        v: np.ndarray,
        size: tuple[float, float],
        tile: tuple[float, float] | None = None,
        velocity: np.ndarray = STILL,
    ) -> None:
        self.patches.append(
            Patch(np.asarray(origin, float), u, v, size, label, texture, tile or size, velocity)
        )

    def ground(
        self,
        label: int,
        texture: int,
        x: tuple[float, float],
        z: tuple[float, float],
        height: float,
        tile: tuple[float, float] | None = None,
        velocity: np.ndarray = STILL,
    ) -> None:
        """A level rectangle, `height` above the road."""
        size = x[1] - x[0], z[1] - z[0]
        self.add(label, texture, (x[0], -height, z[1]), X, -Z, size, tile, velocity)

    def upright(
        self,
        label: int,
        texture: int,
        x: float,
        z: float,
        width: float,
        height: float,
        bottom: float = 0,
        tile: tuple[float, float] | None = None,
        velocity: np.ndarray = STILL,
    ) -> None:
        """A rectangle that faces the start of the street, centred at x."""
        self.add(
            label,
            texture,
            (x - width / 2, -bottom - height, z),
            X,
            Y,
            (width, height),
            tile,
            velocity,
        )

    def along(
        self,
        side: int,
        label: int,
        texture: int,
        x: float,
        z: tuple[float, float],
        height: float,
        bottom: float = 0,
        tile: tuple[float, float] | None = None,
    ) -> None:
        """A wall along the street on its left (-1) or right (1), facing the road."""
        self.add(
            label,
            texture,
            (side * x, -bottom - height, z[0] if side < 0 else z[1]),
            -side * Z,
            Y,
            (z[1] - z[0], height),
            tile,
        )

    def lay_ground(self) -> None:
        far = (-20.0, self.end + 250)
        self.ground(TERRAIN, self.look.grass, (-250, 250), far, -0.05, (6, 6))
        self.ground(ROAD, self.look.asphalt, (-self.road, self.road), far, 0, (2 * self.road, 12))

    def cast_shadows(self, rng: Generator) -> None:
        """Stretches of road in the shade, a centimetre above it; they end on whole tiles, so
        markings meet."""
        for z in self.places(rng, 12, 60):
            z = self.end + 250 - 12 * round((self.end + 250 - z) / 12)
            self.ground(
                ROAD,
                self.look.shaded,
                (-self.road, self.road),
                (z - rng.uniform(2, 11), z),
                0.01,
                (2 * self.road, 12),
            )

    def build(self, rng: Generator) -> None:
        """Blocks of the street one after another, at times parted by a crossing."""
        z = -12.0
        for side in (-1, 1):
            self.furniture(rng, side)
        while z < self.end:
            stop = z + rng.uniform(24, 55)
            for side in (-1, 1):
                self.block(rng, side, z, stop)
            z = stop
            if rng.random() < 0.45:
                z = stop + rng.uniform(7, 10)
                for side in (-1, 1):
                    x = sorted((side * self.road, side * (self.road + 90)))
                    self.ground(ROAD, self.look.crossroad, tuple(x), (stop, z), 0, (12, 12))
        for x in range(-200, 201, 25):  # where the street ends, woods
            height = rng.uniform(8, 22)
            self.upright(
                VEGETATION,
                rng.choice(self.look.crowns),
                x,
                self.end + 160 + rng.uniform(0, 60),
                45,
                height,
            )

    def block(self, rng: Generator, side: int, start: float, stop: float) -> None:
        kind = rng.choice(["houses", "yards", "park"], p=[0.5, 0.28, 0.22])
        bounds = {
            name: tuple(sorted((side * near, side * far)))
            for name, near, far in (
                ("verge", self.road, self.road + self.verge),
                ("walk", self.road + self.verge, self.walk),
                ("behind", self.walk, self.walk + 45),
            )
        }
        if self.verge:
            self.ground(TERRAIN, self.look.grass, bounds["verge"], (start, stop), CURB, (6, 6))
        self.ground(SIDEWALK, self.look.pavement, bounds["walk"], (start, stop), CURB, (4, 4))
        self.along(side, SIDEWALK, self.look.pavement, self.road, (start, stop), CURB, 0, (4, 4))
        if kind == "houses":
            self.ground(SIDEWALK, self.look.pavement, bounds["behind"], (start, stop), CURB, (4, 4))
            if rng.random() < 0.25:  # a railing along the curb
                part = start, stop - rng.uniform(0, 15)
                self.along(
                    side,
                    FENCE,
                    rng.choice(self.look.fences),
                    self.road + 0.2,
                    part,
                    1.0,
                    CURB,
                    (2.5, 1.0),
                )
            return self.row(rng, side, self.walk, start, stop, (0.0, 0.0, 0.0, 3.5))
        self.ground(TERRAIN, self.look.grass, bounds["behind"], (start, stop), CURB, (6, 6))
        self.boundary(rng, side, start, stop)
        if kind == "yards":
            self.row(
                rng, side, self.walk + rng.uniform(2.5, 6), start + 2, stop - 2, (3.0, 5.0, 8.0)
            )
        for _ in range(rng.poisson((stop - start) * (0.08 if kind == "yards" else 0.32))):
            self.tree(
                rng,
                side * (self.walk + rng.uniform(1, 5 if kind == "yards" else 24)),
                rng.uniform(start, stop),
            )
        return None

    def boundary(self, rng: Generator, side: int, start: float, stop: float) -> None:
        """A fence, a hedge or nothing between sidewalk and land."""
        kind = rng.choice(["fence", "hedge", "open"], p=[0.7, 0.15, 0.15])
        height = rng.uniform(0.9, 1.7)
        if kind == "fence":
            self.along(
                side,
                FENCE,
                rng.choice(self.look.fences),
                self.walk + 0.1,
                (start, stop),
                height,
                CURB,
                (2.5, height),
            )
        elif kind == "hedge":
            for z in np.arange(start, stop - 4, 3.4):
                self.along(
                    side,
                    VEGETATION,
                    self.look.hedge,
                    self.walk + 0.4,
                    (z, z + 4.4),
                    height + 0.3,
                    CURB,
                )

    def row(
        self,
        rng: Generator,
        side: int,
        line: float,
        start: float,
        stop: float,
        gaps: tuple[float, ...],
    ) -> None:
        """Houses side by side, their fronts on `line`."""
        z = start
        while z + 6 < stop:
            kind = int(rng.integers(len(self.look.floors)))
            front = self.look.facades[side][kind]
            flank = self.look.facades[-side][kind]
            width = min(2.5 * int(rng.integers(3, 8)), stop - z)
            height = 3.2 * self.look.floors[kind]
            depth = rng.uniform(7, 12)
            self.along(
                side,
                BUILDING,
                front,
                line,
                (z, z + width),
                height,
                CURB,
                (self.look.width(front), height),
            )
            self.upright(
                BUILDING,
                flank,
                side * (line + depth / 2),
                z,
                depth,
                height,
                CURB,
                (self.look.width(flank), height),
            )
            if rng.random() < 0.6:
                self.pitched_roof(rng, side, line, depth, (z, z + width), height + CURB)
            z += width + rng.choice(gaps)

    def pitched_roof(
        self,
        rng: Generator,
        side: int,
        line: float,
        depth: float,
        z: tuple[float, float],
        eaves: float,
    ) -> None:
        """The half towards the street, and the wall below it at the near end."""
        rise = rng.uniform(0.3, 0.45) * depth
        length = float(np.hypot(rise, depth / 2))
        down = np.array([-side * depth / 2, rise, 0]) / length
        ridge = (side * (line + depth / 2), -eaves - rise, z[0] if side < 0 else z[1])
        self.add(
            BUILDING, self.look.roofs[side], ridge, -side * Z, down, (z[1] - z[0], length), (4, 4)
        )
        self.upright(
            BUILDING, self.look.gables[side], side * (line + depth / 2), z[0], depth, rise, eaves
        )

    def tree(self, rng: Generator, x: float, z: float) -> None:
        """A trunk and two layers of leaves, or a bush."""
        if rng.random() < 0.25:
            height = rng.uniform(0.7, 2)
            return self.upright(
                VEGETATION, rng.choice(self.look.crowns), x, z, height * rng.uniform(1.2, 2), height
            )
        height = rng.uniform(4.5, 11)
        width = rng.uniform(3, 6.5)
        trunk = rng.uniform(1.6, 2.8)
        self.upright(VEGETATION, self.look.bark, x, z, rng.uniform(0.2, 0.45), trunk + 1.5, 0)
        for layer in range(2):
            w = width * rng.uniform(0.75, 1.1)
            h = (height - trunk) * rng.uniform(0.75, 1.05)
            self.upright(
                VEGETATION,
                rng.choice(self.look.crowns),
                x + rng.normal(0, 0.3),
                z - 0.2 + 0.9 * layer,
                w,
                h,
                trunk * 0.85 + layer * rng.uniform(0, 0.8),
            )
        return None

    def furniture(self, rng: Generator, side: int) -> None:
        """Lamps, signs, street trees and parked cars along the curb."""
        x = side * (self.road + 0.45)
        for z in self.places(rng, 14, 30):
            self.lamp(rng, x, z, side)
        for z in self.places(rng, 8, 22):
            self.sign_post(rng, x + side * rng.uniform(0, 0.4), z)
        if rng.random() < 0.5:
            for z in self.places(rng, 9, 20):
                self.tree(rng, x + side * 0.5, z)
        if self.bays:
            filled = rng.uniform(0.25, 0.75)
            for z in self.places(rng, 5.6, 7.5):
                if rng.random() < filled:
                    self.car(rng, side * (self.road - 1.0), z, side)

    def places(self, rng: Generator, low: float, high: float) -> Iterator[float]:
        z = -8 + rng.uniform(0, high)
        while z < self.end:
            yield z
            z += rng.uniform(low, high)

    def lamp(self, rng: Generator, x: float, z: float, side: int) -> None:
        height = rng.uniform(4.5, 8)
        texture = rng.choice(self.look.poles)
        width = rng.uniform(0.13, 0.22)
        self.upright(POLE, texture, x, z, width, height)
        if rng.random() < 0.6:
            arm = rng.uniform(0.8, 2)
            self.upright(POLE, texture, x - side * arm / 2, z, arm, 0.1, height - 0.1)
            self.upright(POLE, texture, x - side * arm, z - 0.02, 0.5, 0.18, height - 0.12)

    def sign_post(self, rng: Generator, x: float, z: float) -> None:
        kind, texture = self.look.signs[rng.integers(len(self.look.signs))]
        size = rng.uniform(0.65, 0.95) * (1.6 if kind == "board" else 1)
        bottom = rng.uniform(1.9, 2.6)
        self.upright(
            POLE, rng.choice(self.look.poles), x, z, rng.uniform(0.07, 0.12), bottom + size * 0.5
        )
        self.upright(
            SIGN, texture, x, z - 0.05, size, size * (0.57 if kind == "board" else 1), bottom
        )
        if rng.random() < 0.25 and kind != "board":
            self.upright(SIGN, self.look.signs[2][1], x, z - 0.05, 0.6, 0.6, bottom - 0.65)

    def car(self, rng: Generator, x: float, z: float, heading: int, speed: float = 0) -> None:
        """A car centred at x, its rear (heading 1) or nose (-1) at z; the shadow under it is road
        that goes along."""
        model, faces, sides = self.look.cars[rng.integers(len(self.look.cars))]
        velocity = Z * heading * speed
        points = [(z + (d if heading > 0 else model.length - d), h) for d, h in model.outline]
        order = list(zip(points, points[1:], faces, strict=False))
        if heading < 0:
            order = [(b, a, face) for a, b, face in reversed(order)]
        for (za, ya), (zb, yb), face in order:  # far to near over the top
            length = float(np.hypot(zb - za, yb - ya))
            down = np.array([0, (ya - yb), zb - za]) / length
            self.add(
                CAR,
                face,
                (x - model.width / 2, -ya, za),
                X,
                down,
                (model.width, length),
                None,
                velocity,
            )
        height = max(h for _, h in model.outline)
        size = (model.length, height)
        half = model.width / 2
        self.add(
            CAR,
            sides[heading > 0],
            (x - half, -height, z + model.length),
            -Z,
            Y,
            size,
            None,
            velocity,
        )
        self.add(CAR, sides[heading < 0], (x + half, -height, z), Z, Y, size, None, velocity)
        self.ground(
            ROAD,
            self.look.shadow,
            (x - half - 0.1, x + half + 0.1),
            (z - 0.15, z + model.length + 0.1),
            0.02,
            None,
            velocity,
        )

    # Traffic

    def traffic(self, rng: Generator, duration: float) -> None:
        """Cars ahead and oncoming, people standing and walking."""
        ride = self.ride
        oncoming = rng.uniform(4, 13)
        every = rng.uniform(2, 8)
        people = rng.uniform(1.5, 6)
        meeting = rng.uniform(0, every)
        while meeting < duration + 10:  # seconds
            place = ride.speed * meeting
            self.car(rng, -ride.lane, place + oncoming * meeting, -1, oncoming)
            meeting += 1.2 + rng.exponential(every)
        if rng.random() < 0.65:
            gap = rng.uniform(9, 26)
            extra = rng.uniform(-0.8, 1.5)
            self.car(rng, ride.lane, gap, 1, ride.speed + max(extra, (7 - gap) / max(duration, 60)))
        z = 3.0
        while z < self.end - 40:
            self.pedestrian(rng, z)
            z += rng.exponential(people)

    def pedestrian(self, rng: Generator, z: float) -> None:
        """Standing or walking on the sidewalk, or crossing; placed where the camera meets them,
        never in its way."""
        ride = self.ride
        side = int(rng.choice([-1, 1]))
        x = side * rng.uniform(self.road + 0.4, self.walk - 0.3)
        velocity = Z * rng.choice([-1, 0, 1], p=[0.45, 0.3, 0.25]) * rng.uniform(0.8, 1.6)
        if rng.random() < 0.15:
            x = ride.lane + side * rng.uniform(1.8, 7)
            velocity = X * rng.choice([-1, 1]) * rng.uniform(0.7, 1.5)
        start = np.array([x, 0, z]) - velocity * z / ride.speed
        height = rng.uniform(1.5, 1.95) if rng.random() < 0.85 else rng.uniform(1.0, 1.4)
        self.upright(
            PERSON,
            rng.choice(self.look.people),
            start[0],
            start[2],
            height / 2,
            height,
            CURB if abs(x) > self.road else 0,
            None,
            velocity,
        )
