"""Figures of the synthetic world: people, cars and traffic signs, drawn from a random generator as
RGBA pictures.

Drawn three times as large and reduced, so outlines are smooth at every level of their ripmap.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from ..opencv import opencv
from .textures import Colour, grey

FINE = 3  # drawing scale over the finished texture


class Canvas:
    """Filled shapes on an RGBA picture; coordinates in fractions of width and height, (x, y)."""

    def __init__(self, height: int, width: int, colour: Colour):
        self.picture = np.zeros((height * FINE, width * FINE, 4), np.uint8)
        self.picture[..., :3] = np.clip(colour, 0, 255)  # beyond the outline: no dark fringe

    def at(self, points: object) -> np.ndarray:
        height, width = self.picture.shape[:2]
        return np.round(np.asarray(points, float) * (width, height)).astype(np.int32)

    def polygon(self, points: object, colour: Colour) -> None:
        cv2 = opencv()
        cv2.fillPoly(self.picture, [self.at(points)], (*np.clip(colour, 0, 255).tolist(), 255))

    def line(self, points: object, colour: Colour, width: float) -> None:
        """A round-ended stroke, `width` in fractions of the picture's width."""
        cv2 = opencv()
        thick = max(round(width * self.picture.shape[1]), 1)
        cv2.polylines(
            self.picture, [self.at(points)], False, (*np.clip(colour, 0, 255).tolist(), 255), thick
        )

    def disc(
        self, centre: tuple[float, float], radius: float, colour: Colour, ratio: float = 1.0
    ) -> None:
        """An ellipse, `radius` in fractions of the width, `ratio` times as high as wide."""
        cv2 = opencv()
        across = round(radius * self.picture.shape[1])
        centre = tuple(int(c) for c in self.at(centre))
        axes = (across, round(across * ratio))
        cv2.ellipse(
            self.picture, centre, axes, 0, 0, 360, (*np.clip(colour, 0, 255).tolist(), 255), -1
        )

    def finish(self) -> np.ndarray:
        cv2 = opencv()
        height, width = self.picture.shape[:2]
        return cv2.resize(
            self.picture, (width // FINE, height // FINE), interpolation=cv2.INTER_AREA
        )


def person(rng: Generator) -> np.ndarray:
    """(128, 64): 0.875 m x 1.75 m, walking or standing, in two or three colours of clothing."""
    top = cloth(rng)
    bottom = cloth(rng)
    skin = np.array([230, 185, 155]) * rng.uniform(0.4, 1.0)
    canvas = Canvas(128, 64, top)
    stride = rng.uniform(0.03, 0.17)
    swing = rng.uniform(0.05, 0.16)
    lean = rng.uniform(-0.02, 0.02)
    shoe = rng.uniform(20, 90, 3)
    for side in (-1, 1):
        foot = 0.5 + side * stride
        canvas.line(
            [(0.5 + side * 0.05, 0.52), (0.5 + side * (stride * 0.7 + 0.02), 0.74), (foot, 0.95)],
            bottom * (0.92 + 0.08 * side),
            0.115,
        )
        canvas.line([(foot - 0.02, 0.965), (foot + 0.05, 0.965)], shoe, 0.07)
    if rng.random() < 0.3:  # coat or skirt
        canvas.polygon(
            [(0.39, 0.48), (0.61, 0.48), (0.68, 0.72), (0.32, 0.72)],
            top if rng.random() < 0.5 else bottom,
        )
    canvas.polygon([(0.34 + lean, 0.20), (0.66 + lean, 0.20), (0.62, 0.54), (0.38, 0.54)], top)
    canvas.disc((0.5 + lean, 0.21), 0.16, top, 0.5)
    for side in (-1, 1):
        hand = (0.5 + side * (0.17 + swing), 0.52 - 0.1 * (swing > 0.12))
        elbow = (0.5 + side * (0.17 + swing * 0.5), 0.38)
        canvas.line([(0.5 + side * 0.15 + lean, 0.22), elbow, hand], top * 0.85, 0.085)
        canvas.disc(hand, 0.045, skin)
    canvas.line([(0.5 + lean, 0.13), (0.5 + lean, 0.19)], skin * 0.85, 0.10)
    canvas.disc((0.5 + lean, 0.085), 0.108, rng.uniform(15, 120, 3) * (1.0, 0.85, 0.7), 1.2)
    canvas.disc((0.5 + lean, 0.10), 0.088, skin, 1.2)
    if rng.random() < 0.3:
        canvas.polygon([(0.62, 0.40), (0.80, 0.40), (0.80, 0.56), (0.62, 0.56)], cloth(rng))
    return canvas.finish()


def cloth(rng: Generator) -> np.ndarray:
    """Muted mostly, bright at times."""
    return (
        rng.uniform(20, 225, 3)
        if rng.random() < 0.4
        else np.array(grey(rng, 25, 150, 18)).clip(10, 220)
    )


SIGNS = ("limit", "triangle", "blue", "stop", "diamond", "board")


def sign(rng: Generator, kind: str) -> np.ndarray:
    """(64, 64), or (64, 112) for a board."""
    age = rng.uniform(0.75, 1.05)
    red, white, blue = (np.array(c) * age for c in ((200, 30, 35), (238, 238, 235), (30, 75, 170)))
    canvas = Canvas(64, 112 if kind == "board" else 64, white)
    mark = [[(x, y) for x in (0.38, 0.62)] for y in (0.42, 0.52, 0.62)]
    if kind == "limit":
        canvas.disc((0.5, 0.5), 0.49, red)
        canvas.disc((0.5, 0.5), 0.36, white)
        for line in mark[::2]:
            canvas.line(line, (25, 25, 25), 0.08)
    elif kind == "triangle":
        canvas.polygon([(0.5, 0.02), (0.99, 0.93), (0.01, 0.93)], red)
        canvas.polygon([(0.5, 0.25), (0.81, 0.81), (0.19, 0.81)], white)
        canvas.line([(0.5, 0.42), (0.5, 0.70)], (25, 25, 25), 0.07)
    elif kind == "blue":
        canvas.disc((0.5, 0.5), 0.49, blue)
        canvas.line([(0.5, 0.75), (0.5, 0.3), (0.65, 0.45)], white, 0.08)
    elif kind == "stop":
        canvas.polygon(
            [(0.3, 0), (0.7, 0), (1, 0.3), (1, 0.7), (0.7, 1), (0.3, 1), (0, 0.7), (0, 0.3)], red
        )
        canvas.line([(0.2, 0.5), (0.8, 0.5)], white, 0.18)
    elif kind == "diamond":
        canvas.polygon([(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)], white)
        canvas.polygon(
            [(0.5, 0.13), (0.87, 0.5), (0.5, 0.87), (0.13, 0.5)], np.array((245, 195, 30)) * age
        )
    else:
        canvas.polygon([(0, 0), (1, 0), (1, 1), (0, 1)], white)
        canvas.polygon(
            [(0.02, 0.04), (0.98, 0.04), (0.98, 0.96), (0.02, 0.96)],
            blue if rng.random() < 0.5 else np.array((25, 115, 70)) * age,
        )
        for y in (0.28, 0.52, 0.76):
            canvas.line([(0.1, y), (rng.uniform(0.4, 0.88), y)], white, 0.05)
    return canvas.finish()


PAINTS = (
    (185, 35, 35),
    (40, 75, 150),
    (45, 105, 70),
    (195, 165, 60),
    (150, 130, 105),
    (120, 40, 60),
    (60, 120, 160),
)


class CarModel(NamedTuple):
    """Size in metres, the side outline (distance from the rear, height) from nose to tail, and one
    picture per face."""

    length: float
    width: float
    outline: list[tuple[float, float]]
    faces: list[
        np.ndarray
    ]  # between neighbouring points of the outline: nose, hood, windscreen, roof, ...
    side: np.ndarray  # rear at the left


def car(rng: Generator) -> CarModel:
    """A hatchback, saloon or van of a random colour."""
    length = rng.uniform(3.7, 4.8)
    width = rng.uniform(1.65, 1.85)
    kind = rng.choice(["hatchback", "saloon", "van"], p=[0.45, 0.35, 0.2])
    height = rng.uniform(1.4, 1.52) + (0.45 if kind == "van" else 0)
    waist = 0.62 * height
    screen, front_roof = (0.88, 0.68) if kind == "van" else (0.74, 0.56)
    rear_roof, rear_waist = {"hatchback": (0.08, 0.01), "saloon": (0.26, 0.14), "van": (0.03, 0.0)}[
        kind
    ]
    outline = [
        (1.0, 0.0),
        (0.995, 0.52 * height),
        (screen, waist),
        (front_roof, height),
        (rear_roof, height),
        (rear_waist, waist),
        (0.0, waist * 0.96),
        (0.0, 0.0),
    ]
    outline = [(z * length, y) for z, y in outline]
    paint = PAINTS[rng.integers(len(PAINTS))] if rng.random() < 0.5 else grey(rng, 20, 235, 5)
    colour = (np.array(paint) * rng.uniform(0.6, 1.2)).clip(10, 240)
    glass = np.array([45, 55, 65]) * rng.uniform(0.6, 1.8)
    plain = [
        panel(colour * light) for light in (1.15, 1.2, 1.05)
    ]  # hood, roof, boot: lit from above
    faces = [
        end(rng, colour, False),
        plain[0],
        pane(glass, colour),
        plain[1],
        pane(glass, colour),
        plain[2],
        end(rng, colour, True),
    ]
    return CarModel(
        length, width, outline, faces, flank(outline, length, height, colour * 0.85, glass)
    )


def panel(colour: Colour) -> np.ndarray:
    """(16, 32) of sheet metal."""
    canvas = Canvas(16, 32, colour)
    canvas.polygon([(0, 0), (1, 0), (1, 1), (0, 1)], colour)
    return canvas.finish()


def pane(glass: Colour, colour: Colour) -> np.ndarray:
    """(32, 64): a window between its pillars, brighter above."""
    canvas = Canvas(32, 64, colour)
    canvas.polygon([(0, 0), (1, 0), (1, 1), (0, 1)], colour)
    canvas.polygon([(0.1, 0.06), (0.9, 0.06), (0.95, 0.98), (0.05, 0.98)], glass)
    canvas.polygon([(0.1, 0.06), (0.9, 0.06), (0.91, 0.3), (0.3, 0.35)], np.asarray(glass) * 1.6)
    return canvas.finish()


def end(rng: Generator, colour: Colour, rear: bool) -> np.ndarray:
    """(48, 96): nose or tail with lamps, plate and bumper; below it two wheels and a gap."""
    colour = np.asarray(colour, float) * 0.9
    canvas = Canvas(48, 96, colour)
    for x in (0.02, 0.82):
        canvas.polygon([(x, 0.6), (x + 0.16, 0.6), (x + 0.16, 1), (x, 1)], (25, 25, 27))
    canvas.polygon([(0.02, 0), (0.98, 0), (1, 0.5), (0.97, 0.8), (0.03, 0.8), (0, 0.5)], colour)
    canvas.polygon([(0.03, 0.68), (0.97, 0.68), (0.95, 0.82), (0.05, 0.82)], (45, 45, 48))
    lamp = (205, 30, 30) if rear else (240, 240, 225)
    for x in (0.03, 0.79):
        canvas.polygon([(x, 0.16), (x + 0.18, 0.16), (x + 0.18, 0.4), (x, 0.4)], lamp)
    if not rear:
        canvas.polygon([(0.28, 0.22), (0.72, 0.22), (0.68, 0.42), (0.32, 0.42)], (35, 35, 38))
    canvas.polygon(
        [(0.36, 0.5), (0.64, 0.5), (0.64, 0.62), (0.36, 0.62)], rng.uniform([200, 200, 150], 240)
    )
    return canvas.finish()


def flank(
    outline: list[tuple[float, float]], length: float, height: float, colour: Colour, glass: Colour
) -> np.ndarray:
    """The side view, 36 pixels a metre, rear at the left."""
    canvas = Canvas(round(36 * height), round(36 * length), colour)
    shape = np.array([(z / length, 1 - y / height) for z, y in outline])
    body = shape.copy()
    body[[0, -1], 1] = 1 - 0.24 / height  # the sill is off the ground
    canvas.polygon(body, colour)
    cabin = shape[2:6]
    canvas.polygon(cabin.mean(0) + (cabin - cabin.mean(0)) * (0.88, 0.7), glass)
    for x in (0.30, 0.54):
        canvas.line([(x, 0.06), (x, 0.4)], colour, 0.014)
    for x in (0.18, 0.82):
        centre = (x, 1 - 0.31 / height)
        radius = 0.31 / length
        canvas.disc(centre, radius, (24, 24, 26))
        canvas.disc(centre, radius * 0.55, (130, 130, 135))
    return canvas.finish()
