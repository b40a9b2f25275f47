"""Pictures of cars: one per face, with the outline that says where the faces meet."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from ..draws import pick
from .canvas import Canvas
from .texture import Colour, grey

PAINTS = (
    (185, 35, 35),
    (40, 75, 150),
    (45, 105, 70),
    (195, 165, 60),
    (150, 130, 105),
    (120, 40, 60),
    (60, 120, 160),
)
TYRE = (24, 24, 26)
SCALE = 36  # pixels a metre of the side view

Outline = list[tuple[float, float]]


class CarBody(NamedTuple):
    """Where the outline of a kind of car bends: distances from its rear, over its length."""

    extra_height: float  # metres
    screen: float  # lower edge of the windscreen
    front_roof: float
    rear_roof: float
    rear_waist: float  # lower edge of the rear window


HATCHBACK = CarBody(0, screen=0.74, front_roof=0.56, rear_roof=0.08, rear_waist=0.01)
SALOON = CarBody(0, screen=0.74, front_roof=0.56, rear_roof=0.26, rear_waist=0.14)
VAN = CarBody(0.45, screen=0.88, front_roof=0.68, rear_roof=0.03, rear_waist=0.0)
BODIES = ((HATCHBACK, 0.45), (SALOON, 0.35), (VAN, 0.2))  # with their probabilities


class CarModel(NamedTuple):
    """Size in metres, the side outline, and one picture per face."""

    length: float
    width: float
    outline: Outline  # (distance from the rear, height) from nose to tail
    # between neighbouring points of the outline: nose, hood, windscreen, roof, rear window, boot,
    # tail
    faces: list[np.ndarray]
    side: np.ndarray  # rear at the left


def car(rng: Generator) -> CarModel:
    """A hatchback, saloon or van of a random colour."""
    length = rng.uniform(3.7, 4.8)
    width = rng.uniform(1.65, 1.85)
    body = pick(rng, BODIES)
    height = rng.uniform(1.4, 1.52) + body.extra_height
    outline = outline_of(body, length, height)
    colour = car_colour(rng)
    glass = np.array([45, 55, 65]) * rng.uniform(0.6, 1.8)
    window = pane(glass, colour)
    faces = [
        end(rng, colour, rear=False),
        panel(colour * 1.15),  # level faces are lit from above
        window,
        panel(colour * 1.2),
        window,
        panel(colour * 1.05),
        end(rng, colour, rear=True),
    ]
    side = flank(outline, length, height, colour * 0.85, glass)
    return CarModel(length, width, outline, faces, side)


def outline_of(body: CarBody, length: float, height: float) -> Outline:
    """(distance from the rear, height) in metres, from the nose's lower edge to the tail's."""
    waist = 0.62 * height
    outline = [
        (1.0, 0.0),
        (0.995, 0.52 * height),
        (body.screen, waist),
        (body.front_roof, height),
        (body.rear_roof, height),
        (body.rear_waist, waist),
        (0.0, waist * 0.96),
        (0.0, 0.0),
    ]
    return [(z * length, y) for z, y in outline]


def car_colour(rng: Generator) -> np.ndarray:
    """(3,): one of PAINTS, or grey between black and white."""
    if rng.random() < 0.5:
        paint = PAINTS[rng.integers(len(PAINTS))]
    else:
        paint = grey(rng, 20, 235, 5)
    return (np.array(paint) * rng.uniform(0.6, 1.2)).clip(10, 240)


def panel(colour: Colour) -> np.ndarray:
    """(16, 32) of sheet metal."""
    canvas = Canvas(16, 32, colour)
    canvas.rectangle((0, 0), (1, 1), colour)
    return canvas.finish()


def pane(glass: Colour, colour: Colour) -> np.ndarray:
    """(32, 64): a window between its pillars, brighter above."""
    canvas = Canvas(32, 64, colour)
    canvas.rectangle((0, 0), (1, 1), colour)
    canvas.polygon([(0.1, 0.06), (0.9, 0.06), (0.95, 0.98), (0.05, 0.98)], glass)
    reflection = [(0.1, 0.06), (0.9, 0.06), (0.91, 0.3), (0.3, 0.35)]
    canvas.polygon(reflection, np.asarray(glass) * 1.6)
    return canvas.finish()


def end(rng: Generator, colour: Colour, *, rear: bool) -> np.ndarray:
    """(48, 96): nose or tail with lamps, plate and bumper; below it two wheels and a gap."""
    colour = np.asarray(colour, float) * 0.9
    canvas = Canvas(48, 96, colour)
    for x in (0.02, 0.82):  # wheels
        canvas.rectangle((x, 0.6), (x + 0.16, 1), (25, 25, 27))
    metal = [(0.02, 0), (0.98, 0), (1, 0.5), (0.97, 0.8), (0.03, 0.8), (0, 0.5)]
    canvas.polygon(metal, colour)
    bumper = [(0.03, 0.68), (0.97, 0.68), (0.95, 0.82), (0.05, 0.82)]
    canvas.polygon(bumper, (45, 45, 48))
    lamp = (240, 240, 225)
    if rear:
        lamp = (205, 30, 30)
    for x in (0.03, 0.79):
        canvas.rectangle((x, 0.16), (x + 0.18, 0.4), lamp)
    if not rear:
        grille = [(0.28, 0.22), (0.72, 0.22), (0.68, 0.42), (0.32, 0.42)]
        canvas.polygon(grille, (35, 35, 38))
    plate = rng.uniform([200, 200, 150], 240)
    canvas.rectangle((0.36, 0.5), (0.64, 0.62), plate)
    return canvas.finish()


def flank(
    outline: Outline, length: float, height: float, colour: Colour, glass: Colour
) -> np.ndarray:
    """The side view, SCALE pixels a metre, rear at the left."""
    canvas = Canvas(round(SCALE * height), round(SCALE * length), colour)
    points = [(z / length, 1 - y / height) for z, y in outline]
    shape = np.array(points)  # (8, 2): x, y
    body = shape.copy()
    body[[0, -1], 1] = 1 - 0.24 / height  # the sill is off the ground
    canvas.polygon(body, colour)
    # the windows: what is above the waist, shrunk towards its middle
    cabin = shape[2:6]
    middle = cabin.mean(0)
    canvas.polygon(middle + (cabin - middle) * (0.88, 0.7), glass)
    for x in (0.30, 0.54):  # pillars
        canvas.line([(x, 0.06), (x, 0.4)], colour, 0.014)
    radius = 0.31  # metres, of a wheel
    for x in (0.18, 0.82):
        centre = (x, 1 - radius / height)
        canvas.disc(centre, radius / length, TYRE)
        canvas.disc(centre, radius / length * 0.55, (130, 130, 135))
    return canvas.finish()
