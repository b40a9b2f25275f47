"""Pictures of traffic signs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from .canvas import Canvas
from .texture import Colour

BLACK = (25, 25, 25)


class SignColours(NamedTuple):
    """The paints of one sign, each (3,); `age` is how bright they still are."""

    age: float
    red: np.ndarray
    white: np.ndarray
    blue: np.ndarray

    @classmethod
    def draw(cls, rng: Generator) -> SignColours:
        """The colours of a sign of random age."""
        age = rng.uniform(0.75, 1.05)
        red = np.array((200, 30, 35)) * age
        white = np.array((238, 238, 235)) * age
        blue = np.array((30, 75, 170)) * age
        return cls(age, red, white, blue)

    def aged(self, colour: Colour) -> np.ndarray:
        """Another colour, as bright as the sign's others."""
        return np.array(colour) * self.age


class SignKind(NamedTuple):
    """How a kind of sign is drawn and how it hangs."""

    draw: Callable[[Canvas, SignColours, Generator], None]
    width: int = 64  # pixels of the picture, which is 64 high
    scale: float = 1  # its size over that of usual signs
    aspect: float = 1  # its height over its width in the street
    has_second: bool = True  # whether a small sign may hang below it


def sign(rng: Generator, kind: SignKind) -> np.ndarray:
    """(64, kind.width) RGBA."""
    colours = SignColours.draw(rng)
    canvas = Canvas(64, kind.width, colours.white)
    kind.draw(canvas, colours, rng)
    return canvas.finish()


def draw_limit(canvas: Canvas, colours: SignColours, rng: Generator) -> None:
    """A round white sign with a red rim and two strokes for its number."""
    canvas.disc((0.5, 0.5), 0.49, colours.red)
    canvas.disc((0.5, 0.5), 0.36, colours.white)
    for y in (0.42, 0.62):
        canvas.line([(0.38, y), (0.62, y)], BLACK, 0.08)


def draw_triangle(canvas: Canvas, colours: SignColours, rng: Generator) -> None:
    """A warning sign."""
    canvas.polygon([(0.5, 0.02), (0.99, 0.93), (0.01, 0.93)], colours.red)
    canvas.polygon([(0.5, 0.25), (0.81, 0.81), (0.19, 0.81)], colours.white)
    canvas.line([(0.5, 0.42), (0.5, 0.70)], BLACK, 0.07)


def draw_arrow(canvas: Canvas, colours: SignColours, rng: Generator) -> None:
    """A round blue sign with an arrow."""
    canvas.disc((0.5, 0.5), 0.49, colours.blue)
    canvas.line([(0.5, 0.75), (0.5, 0.3), (0.65, 0.45)], colours.white, 0.08)


def draw_stop(canvas: Canvas, colours: SignColours, rng: Generator) -> None:
    """A red octagon with a stroke for its word."""
    octagon = [(0.3, 0), (0.7, 0), (1, 0.3), (1, 0.7), (0.7, 1), (0.3, 1), (0, 0.7), (0, 0.3)]
    canvas.polygon(octagon, colours.red)
    canvas.line([(0.2, 0.5), (0.8, 0.5)], colours.white, 0.18)


def draw_diamond(canvas: Canvas, colours: SignColours, rng: Generator) -> None:
    """A priority road."""
    canvas.polygon([(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)], colours.white)
    inner = [(0.5, 0.13), (0.87, 0.5), (0.5, 0.87), (0.13, 0.5)]
    canvas.polygon(inner, colours.aged((245, 195, 30)))


def draw_board(canvas: Canvas, colours: SignColours, rng: Generator) -> None:
    """A blue or green direction board with three lines of text."""
    canvas.rectangle((0, 0), (1, 1), colours.white)
    colour = colours.aged((25, 115, 70))
    if rng.random() < 0.5:
        colour = colours.blue
    canvas.rectangle((0.02, 0.04), (0.98, 0.96), colour)
    for y in (0.28, 0.52, 0.76):
        canvas.line([(0.1, y), (rng.uniform(0.4, 0.88), y)], colours.white, 0.05)


ARROW = SignKind(draw_arrow)
BOARD = SignKind(draw_board, width=112, scale=1.6, aspect=0.57, has_second=False)
SIGNS = (
    SignKind(draw_limit),
    SignKind(draw_triangle),
    ARROW,
    SignKind(draw_stop),
    SignKind(draw_diamond),
    BOARD,
)
