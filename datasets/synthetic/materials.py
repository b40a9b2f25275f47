"""What the things in one synthetic video look like: its textures, all graded by the same light and
camera."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from ..opencv import opencv
from . import figures, textures
from .textures import Texture


class Materials:
    """`all`: the textures; every other attribute is an index into it, or several, by what they
    cover."""

    def __init__(self, rng: Generator, road: float, bays: bool):
        """road: half its width in metres; bays: whether cars park along it."""
        self.all: list[Texture] = []
        self.grade = grading(rng)
        left, right = rng.permutation([1.0, rng.uniform(0.6, 0.9)])  # one side of the street is lit
        add = self.add
        asphalt = textures.road(rng, 2 * road, bays)
        self.asphalt = add(asphalt, True)
        self.shaded = add((asphalt * (*3 * [rng.uniform(0.45, 0.8)], 1)).astype(np.uint8), True)
        self.crossroad = add(textures.road(rng, 4, False)[:, :30], True)
        self.shadow = add(textures.paint((38, 38, 42), 1 + 0.05 * textures.noise(rng, (32, 32))))
        self.pavement = add(textures.pavement(rng), True)
        self.grass = add(textures.grass(rng), True)
        self.sky = add(textures.sky(rng))
        self.floors = [int(n) for n in rng.integers(2, 6, 4)]  # of the facades
        self.facades = {
            side: [add(textures.facade(rng, n, shade), True) for n in self.floors]
            for side, shade in ((-1, left), (1, right))
        }
        self.roofs = {
            side: add(textures.roof(rng, shade), True) for side, shade in ((-1, left), (1, right))
        }
        self.gables = {
            side: add(textures.gable(rng, shade)) for side, shade in ((-1, right), (1, left))
        }
        green = textures.leaf_colour(rng)
        self.crowns = [
            add(
                textures.leaves(
                    rng, (160, 160), rng.uniform(1.0, 2.4), green * rng.uniform(0.75, 1.25, 3)
                )
            )
            for _ in range(4)
        ]
        self.hedge = add(textures.leaves(rng, (48, 192), 1.2, green * rng.uniform(0.7, 1.1)))
        self.bark = add(textures.bark(rng))
        self.poles = [add(textures.pole(rng)) for _ in range(2)]
        self.fences = [add(textures.fence(rng), True) for _ in range(2)]
        self.signs = [(kind, add(figures.sign(rng, kind))) for kind in figures.SIGNS]
        self.people = [add(figures.person(rng)) for _ in range(7)]
        self.cars = [self.add_car(figures.car(rng)) for _ in range(5)]

    def add(self, picture: np.ndarray, wrap: bool = False) -> int:
        cv2 = opencv()
        self.all.append(Texture(cv2.LUT(picture, self.grade), wrap))
        return len(self.all) - 1

    def add_car(
        self, model: figures.CarModel
    ) -> tuple[figures.CarModel, list[int], tuple[int, int]]:
        """The model, the textures of its faces, and of its side with the rear at the left and at
        the right."""
        faces = [self.add(face) for face in model.faces]
        return model, faces, (self.add(model.side), self.add(model.side[:, ::-1]))

    def width(self, facade: int) -> float:
        """Metres that a facade's texture covers before it repeats."""
        return self.all[facade].level(0, 0).shape[1] / textures.FACADE_SCALE


def grading(rng: Generator) -> np.ndarray:
    """What this video's light and camera make of colours: a table (256, 1, 4) for RGBA, alpha as it
    is."""
    gain = rng.uniform(0.72, 1.08) * rng.uniform([0.94, 0.97, 0.92], [1.06, 1.02, 1.07])
    levels = np.linspace(0, 1, 256)[:, None] ** rng.uniform(0.8, 1.25) * gain
    return (
        (255 * np.hstack([levels, np.linspace(0, 1, 256)[:, None]]))
        .clip(0, 255)
        .round()
        .astype(np.uint8)[:, None]
    )
