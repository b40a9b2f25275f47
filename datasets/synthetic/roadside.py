"""What stands beside a synthetic street: trees, bushes, lamps and signs."""

from __future__ import annotations

from numpy.random import Generator

from .classes import POLE, SIGN, VEGETATION
from .scene import Scene, Surface

SMALL_SIGN = 0.6  # metres: side of the square sign below another one


def add_plant(scene: Scene, rng: Generator, x: float, z: float) -> None:
    """A tree, at times a bush."""
    if rng.random() < 0.25:
        add_bush(scene, rng, x, z)
    else:
        add_tree(scene, rng, x, z)


def add_bush(scene: Scene, rng: Generator, x: float, z: float) -> None:
    """Leaves that stand on the ground."""
    height = rng.uniform(0.7, 2)
    leaves = Surface(VEGETATION, rng.choice(scene.look.crowns))
    width = height * rng.uniform(1.2, 2)
    scene.upright(leaves, x, z, (width, height))


def add_tree(scene: Scene, rng: Generator, x: float, z: float) -> None:
    """A trunk and two layers of leaves, one before and one behind it."""
    height = rng.uniform(4.5, 11)
    width = rng.uniform(3, 6.5)
    trunk = rng.uniform(1.6, 2.8)  # metres below the crown
    bark = Surface(VEGETATION, scene.look.bark)
    # the trunk goes on into the crown, whose outline is ragged
    thickness = rng.uniform(0.2, 0.45)
    scene.upright(bark, x, z, (thickness, trunk + 1.5))
    for layer in range(2):
        layer_width = width * rng.uniform(0.75, 1.1)
        layer_height = (height - trunk) * rng.uniform(0.75, 1.05)
        leaves = Surface(VEGETATION, rng.choice(scene.look.crowns))
        centre = x + rng.normal(0, 0.3)
        distance = z - 0.2 + 0.9 * layer
        bottom = trunk * 0.85 + layer * rng.uniform(0, 0.8)
        scene.upright(leaves, centre, distance, (layer_width, layer_height), bottom=bottom)


def add_lamp(scene: Scene, rng: Generator, x: float, z: float, side: int) -> None:
    """A lamp post, at times with an arm over the road and a lamp at its end."""
    height = rng.uniform(4.5, 8)
    metal = Surface(POLE, rng.choice(scene.look.poles))
    width = rng.uniform(0.13, 0.22)
    scene.upright(metal, x, z, (width, height))
    if rng.random() < 0.6:
        arm = rng.uniform(0.8, 2)
        middle = x - side * arm / 2
        end = x - side * arm
        scene.upright(metal, middle, z, (arm, 0.1), bottom=height - 0.1)
        # a little nearer than the arm, which would hide it otherwise
        scene.upright(metal, end, z - 0.02, (0.5, 0.18), bottom=height - 0.12)


def add_sign(scene: Scene, rng: Generator, x: float, z: float) -> None:
    """A sign on a post, at times with a small one below it."""
    look = scene.look
    sign = look.signs[rng.integers(len(look.signs))]
    width = rng.uniform(0.65, 0.95) * sign.kind.scale
    bottom = rng.uniform(1.9, 2.6)
    metal = Surface(POLE, rng.choice(look.poles))
    post = rng.uniform(0.07, 0.12)
    scene.upright(metal, x, z, (post, bottom + width * 0.5))
    # signs hang before their post
    before = z - 0.05
    plate = Surface(SIGN, sign.texture)
    height = width * sign.kind.aspect
    scene.upright(plate, x, before, (width, height), bottom=bottom)
    second = rng.random() < 0.25
    if second and sign.kind.has_second:
        small = Surface(SIGN, look.second_sign)
        scene.upright(small, x, before, (SMALL_SIGN, SMALL_SIGN), bottom=bottom - 0.65)
