"""The scene of a synthetic video: flat textured patches in 3-D, and the ways to add them.

Metres; X right, Y down, Z along the street; the road is the plane Y = 0 and its middle is X = 0.
A patch is seen from one side, where u x v points away from the viewer. Everything moves at constant
velocity or not at all. `side` is -1 for the left half of the street and 1 for the right half.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from .materials import Materials
from .ride import Ride

X, Y, Z = np.eye(3)
STILL = np.zeros(3)
VIEW = 160.0  # metres of street built beyond the last frame
CURB = 0.12  # metres
BAY = 2.1  # metres: width of the strip where cars park

Span = tuple[float, float]


class Surface(NamedTuple):
    """What a patch is covered with."""

    label: int  # class id
    texture: int  # index into Materials.all
    tile: Span | None = None  # metres that the texture covers before it repeats; None: the patch


class Patch(NamedTuple):
    """A rectangle in space: origin + a * u + b * v for a, b in [0, size].

    The texture repeats every `tile` metres. Vectors are (3,); size and tile are (along u, along v)
    in metres.
    """

    origin: np.ndarray
    u: np.ndarray
    v: np.ndarray
    size: Span
    label: int
    texture: int
    tile: Span
    velocity: np.ndarray  # m/s


class Profile(NamedTuple):
    """The cross-section of a street, the same on both sides: metres from its middle."""

    road: float  # half width of the road, parking bays included
    verge: float  # width of the strip of grass beside the road, or 0
    walk: float  # outer edge of the sidewalk
    bays: bool  # whether cars park along the road

    @classmethod
    def draw(cls, rng: Generator) -> Profile:
        """A random profile."""
        bays = bool(rng.random() < 0.65)
        road = rng.uniform(3.0, 3.9)
        if bays:
            road += BAY
        verge = 0.0
        if rng.random() < 0.35:
            verge = rng.uniform(0.8, 1.8)
        walk = road + verge + rng.uniform(1.8, 3.8)
        return cls(road, verge, walk, bays)

    @property
    def lane(self) -> float:
        """X of the middle of the right lane."""
        if self.bays:
            return (self.road - BAY) / 2
        return self.road / 2


class Scene:
    """What is in one video.

    `patches` and the textures on them, `look`; the street's cross-section `profile`; the camera's
    `ride`; `end`, the Z in metres up to which the street is built.
    """

    def __init__(self, rng: Generator, ride_rng: Generator, duration: float):
        """An empty scene. duration: seconds of the video, which decide how far the street goes."""
        self.patches: list[Patch] = []
        self.profile = Profile.draw(rng)
        self.ride = Ride.draw(ride_rng, self.profile.lane)
        self.look = Materials(rng, self.profile.road, self.profile.bays)
        self.end = self.ride.speed * duration + VIEW

    def add(
        self,
        surface: Surface,
        origin: tuple[float, float, float],
        axes: tuple[np.ndarray, np.ndarray],
        size: Span,
        *,
        velocity: np.ndarray = STILL,
    ) -> None:
        """A rectangle of any direction; axes: its unit vectors u and v."""
        u, v = axes
        tile = surface.tile or size
        corner = np.asarray(origin, float)
        patch = Patch(corner, u, v, size, surface.label, surface.texture, tile, velocity)
        self.patches.append(patch)

    def ground(
        self, surface: Surface, x: Span, z: Span, height: float, *, velocity: np.ndarray = STILL
    ) -> None:
        """A level rectangle, `height` above the road."""
        left, right = x
        near, far = z
        size = (right - left, far - near)
        self.add(surface, (left, -height, far), (X, -Z), size, velocity=velocity)

    def upright(
        self,
        surface: Surface,
        x: float,
        z: float,
        size: Span,
        *,
        bottom: float = 0,
        velocity: np.ndarray = STILL,
    ) -> None:
        """A rectangle of size (width, height) that faces the start of the street, centred at x.

        bottom: height of its lower edge above the road.
        """
        width, height = size
        corner = (x - width / 2, -bottom - height, z)
        self.add(surface, corner, (X, Y), size, velocity=velocity)

    def along(
        self, side: int, surface: Surface, x: float, z: Span, height: float, *, bottom: float = 0
    ) -> None:
        """A wall along the street that faces the road, `x` from its middle."""
        near, far = z
        corner = (side * x, -bottom - height, left_end(side, z))
        axes = (-side * Z, Y)
        self.add(surface, corner, axes, (far - near, height))


def left_end(side: int, z: Span) -> float:
    """The end of z that is at the left for who looks at this side of the street from the road."""
    if side < 0:
        return z[0]
    return z[1]


def strip(side: int, near: float, far: float) -> Span:
    """The range of X from `near` to `far` from the middle of the street."""
    edges = (side * near, side * far)
    return (min(edges), max(edges))
