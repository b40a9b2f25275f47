"""What the things in one synthetic video look like.

Its textures are all graded by the same light and camera.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from ..opencv import opencv
from .textures import buildings, cars, ground, metalwork, people, plants, signs
from .textures.texture import Texture, noise, paint


class CarLook(NamedTuple):
    """A model and its textures."""

    model: cars.CarModel
    faces: list[int]  # as CarModel.faces
    rear_left: int  # of a side whose rear is at the left
    rear_right: int


class SignLook(NamedTuple):
    """A kind of sign and its texture."""

    kind: signs.SignKind
    texture: int


class Materials:
    """The textures of one video, `all`.

    Most other attributes are indices into it, named by what they cover: `asphalt`, `crowns` and so
    on. `facades`, `roofs` and `gables` are dicts by side of the street, -1 or 1; `floors` are the
    numbers of floors of the facades.
    """

    def __init__(self, rng: Generator, road: float, bays: bool):
        """road: half its width in metres; bays: whether cars park along it."""
        self.all: list[Texture] = []
        self.grade = grading(rng)
        # one side of the street is lit, the other is in the shade
        left, right = rng.permutation([1.0, rng.uniform(0.6, 0.9)])
        self.add_ground(rng, road, bays)
        self.add_buildings(rng, {-1: left, 1: right})
        self.add_plants(rng)
        self.poles = [self.add(metalwork.pole(rng)) for _ in range(2)]
        self.fences = [self.add(metalwork.fence(rng), wrap=True) for _ in range(2)]
        self.signs = [self.add_sign(kind, rng) for kind in signs.SIGNS]
        # the small one that may hang below another
        arrow = signs.SIGNS.index(signs.ARROW)
        self.second_sign = self.signs[arrow].texture
        self.people = [self.add(people.person(rng)) for _ in range(7)]
        self.cars = [self.add_car(cars.car(rng)) for _ in range(5)]

    def add(self, picture: np.ndarray, wrap: bool = False) -> int:
        """The index of a new texture: the picture, graded."""
        cv2 = opencv()
        self.all.append(Texture(cv2.LUT(picture, self.grade), wrap))
        return len(self.all) - 1

    def add_ground(self, rng: Generator, road: float, bays: bool) -> None:
        """The road in light and shade, crossroads, shadows of cars, sidewalk, grass; the sky."""
        asphalt = ground.road(rng, 2 * road, bays)
        self.asphalt = self.add(asphalt, wrap=True)
        shade = rng.uniform(0.45, 0.8)
        shaded = asphalt * np.array([shade, shade, shade, 1])
        self.shaded = self.add(shaded.astype(np.uint8), wrap=True)
        # the part of a road left of its markings
        self.crossroad = self.add(ground.road(rng, 4, False)[:, :30], wrap=True)
        dim = 1 + 0.05 * noise(rng, (32, 32))
        self.shadow = self.add(paint((38, 38, 42), dim))
        self.pavement = self.add(ground.pavement(rng), wrap=True)
        self.grass = self.add(ground.grass(rng), wrap=True)
        self.sky = self.add(ground.sky(rng))

    def add_buildings(self, rng: Generator, shade: dict[int, float]) -> None:
        """Facades, of four kinds that both sides of the street share, roofs and gables."""
        self.floors = [int(floors) for floors in rng.integers(2, 6, 4)]
        self.facades = {}
        for side in (-1, 1):
            pictures = (buildings.facade(rng, floors, shade[side]) for floors in self.floors)
            self.facades[side] = [self.add(picture, wrap=True) for picture in pictures]
        self.roofs = {}
        for side in (-1, 1):
            roof = buildings.roof(rng, shade[side])
            self.roofs[side] = self.add(roof, wrap=True)
        self.gables = {}
        for side in (-1, 1):
            # a gable faces along the street, as flanks do: lit like the other side's fronts
            gable = buildings.gable(rng, shade[-side])
            self.gables[side] = self.add(gable)

    def add_plants(self, rng: Generator) -> None:
        """Four crowns and a hedge of similar green, and bark."""
        green = plants.leaf_colour(rng)
        self.crowns = []
        for _ in range(4):
            ragged = rng.uniform(1.0, 2.4)
            colour = green * rng.uniform(0.75, 1.25, 3)
            crown = plants.leaves(rng, (160, 160), ragged, colour)
            self.crowns.append(self.add(crown))
        colour = green * rng.uniform(0.7, 1.1)
        hedge = plants.leaves(rng, (48, 192), 1.2, colour)
        self.hedge = self.add(hedge)
        self.bark = self.add(plants.bark(rng))

    def add_sign(self, kind: signs.SignKind, rng: Generator) -> SignLook:
        """A sign of a kind and its texture."""
        picture = signs.sign(rng, kind)
        return SignLook(kind, self.add(picture))

    def add_car(self, model: cars.CarModel) -> CarLook:
        """A car and the textures of its faces and sides."""
        faces = [self.add(face) for face in model.faces]
        rear_left = self.add(model.side)
        rear_right = self.add(model.side[:, ::-1])
        return CarLook(model, faces, rear_left, rear_right)

    def width(self, facade: int) -> float:
        """Metres that a facade's texture covers before it repeats."""
        return self.all[facade].level(0, 0).shape[1] / buildings.FACADE_SCALE


def grading(rng: Generator) -> np.ndarray:
    """What this video's light and camera make of colours.

    A table (256, 1, 4) uint8 for RGBA, as OpenCV's LUT takes it; alpha stays as it is.
    """
    brightness = rng.uniform(0.72, 1.08)
    gain = brightness * rng.uniform([0.94, 0.97, 0.92], [1.06, 1.02, 1.07])  # (3,)
    gamma = rng.uniform(0.8, 1.25)
    linear = np.linspace(0, 1, 256)[:, None]
    levels = linear**gamma * gain  # (256, 3)
    table = 255 * np.hstack([levels, linear])  # (256, 4)
    return table.clip(0, 255).round().astype(np.uint8)[:, None]
