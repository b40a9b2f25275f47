"""Blocks of a synthetic street: what lies beside the road between two crossings."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .classes import FENCE, SIDEWALK, TERRAIN, VEGETATION
from .draws import pick
from .houses import add_row
from .roadside import add_plant
from .scene import CURB, Scene, Span, Surface, strip

DEPTH = 45  # metres of land behind the sidewalk
FENCE_LENGTH = 2.5  # metres that a fence's texture covers


def add_block(scene: Scene, rng: Generator, side: int, z: Span) -> None:
    """One side of the street from z[0] to z[1]."""
    add_land = pick(rng, BLOCKS)
    profile = scene.profile
    grass = grass_of(scene)
    pavement = pavement_of(scene)
    inner = profile.road + profile.verge  # edge of the sidewalk
    if profile.verge:
        scene.ground(grass, strip(side, profile.road, inner), z, CURB)
    scene.ground(pavement, strip(side, inner, profile.walk), z, CURB)
    scene.along(side, pavement, profile.road, z, CURB)  # the curb's face
    add_land(scene, rng, side, z)


def add_houses(scene: Scene, rng: Generator, side: int, z: Span) -> None:
    """Houses at the sidewalk, most of them wall to wall; at times a railing along the curb."""
    profile = scene.profile
    behind = strip(side, profile.walk, profile.walk + DEPTH)
    scene.ground(pavement_of(scene), behind, z, CURB)
    if rng.random() < 0.25:
        start, stop = z
        part = (start, stop - rng.uniform(0, 15))
        railing = Surface(FENCE, rng.choice(scene.look.fences), (FENCE_LENGTH, 1.0))
        scene.along(side, railing, profile.road + 0.2, part, 1.0, bottom=CURB)
    add_row(scene, rng, side, z, line=profile.walk, gaps=(0.0, 0.0, 0.0, 3.5))


def add_yards(scene: Scene, rng: Generator, side: int, z: Span) -> None:
    """Houses that stand apart behind gardens."""
    add_lawn(scene, rng, side, z)
    line = scene.profile.walk + rng.uniform(2.5, 6)
    start, stop = z
    built = (start + 2, stop - 2)
    add_row(scene, rng, side, built, line=line, gaps=(3.0, 5.0, 8.0))
    add_plants(scene, rng, side, z, density=0.08, reach=5)


def add_park(scene: Scene, rng: Generator, side: int, z: Span) -> None:
    """Grass and trees."""
    add_lawn(scene, rng, side, z)
    add_plants(scene, rng, side, z, density=0.32, reach=24)


def add_lawn(scene: Scene, rng: Generator, side: int, z: Span) -> None:
    """Grass behind the sidewalk, and a fence, a hedge or nothing between the two."""
    walk = scene.profile.walk
    scene.ground(grass_of(scene), strip(side, walk, walk + DEPTH), z, CURB)
    add_boundary = pick(rng, BOUNDARIES)
    height = rng.uniform(0.9, 1.7)
    add_boundary(scene, rng, side, z, height)


def add_plants(
    scene: Scene, rng: Generator, side: int, z: Span, *, density: float, reach: float
) -> None:
    """Trees and bushes up to `reach` metres behind the sidewalk, `density` a metre of street."""
    start, stop = z
    count = rng.poisson((stop - start) * density)
    for _ in range(count):
        x = side * (scene.profile.walk + rng.uniform(1, reach))
        add_plant(scene, rng, x, rng.uniform(start, stop))


def add_fence(scene: Scene, rng: Generator, side: int, z: Span, height: float) -> None:
    """A fence beside the sidewalk, on its outer edge."""
    fence = Surface(FENCE, rng.choice(scene.look.fences), (FENCE_LENGTH, height))
    scene.along(side, fence, scene.profile.walk + 0.1, z, height, bottom=CURB)


def add_hedge(scene: Scene, rng: Generator, side: int, z: Span, height: float) -> None:
    """Pieces of hedge that overlap by a metre, so no gap shows between them."""
    start, stop = z
    hedge = Surface(VEGETATION, scene.look.hedge)
    x = scene.profile.walk + 0.4
    for near in np.arange(start, stop - 4, 3.4):
        piece = (near, near + 4.4)
        scene.along(side, hedge, x, piece, height + 0.3, bottom=CURB)


def add_nothing(scene: Scene, rng: Generator, side: int, z: Span, height: float) -> None:
    """The land is open to the sidewalk."""


def grass_of(scene: Scene) -> Surface:
    """Grass, whose texture covers 6 m."""
    return Surface(TERRAIN, scene.look.grass, (6, 6))


def pavement_of(scene: Scene) -> Surface:
    """Paving, whose texture covers 4 m."""
    return Surface(SIDEWALK, scene.look.pavement, (4, 4))


# each with its probability
BLOCKS = ((add_houses, 0.5), (add_yards, 0.28), (add_park, 0.22))
BOUNDARIES = ((add_fence, 0.7), (add_hedge, 0.15), (add_nothing, 0.15))
