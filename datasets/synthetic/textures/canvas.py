"""A picture to draw filled shapes on."""

from __future__ import annotations

import numpy as np

from ...opencv import opencv
from .texture import Colour

FINE = 3  # drawing scale over the finished texture: outlines are smooth once reduced

Point = tuple[float, float]


class Canvas:
    """Filled shapes on an RGBA picture.

    Coordinates are (x, y) in fractions of its width and height.
    """

    def __init__(self, height: int, width: int, colour: Colour):
        """height, width: pixels of the finished picture; colour: beyond the outline."""
        shape = (height * FINE, width * FINE, 4)
        self.picture = np.zeros(shape, np.uint8)
        # transparent, but in the thing's colour: interpolation at the outline mixes it in
        self.picture[..., :3] = np.clip(colour, 0, 255)

    def pixels(self, points: object) -> np.ndarray:
        """Points (..., 2) in fractions -> int32 pixels."""
        height, width = self.picture.shape[:2]
        scaled = np.asarray(points, float) * (width, height)
        return np.round(scaled).astype(np.int32)

    def polygon(self, points: object, colour: Colour) -> None:
        """A filled polygon."""
        cv2 = opencv()
        cv2.fillPoly(self.picture, [self.pixels(points)], opaque(colour))

    def rectangle(self, left_top: Point, right_bottom: Point, colour: Colour) -> None:
        """An upright filled rectangle between two corners."""
        left, top = left_top
        right, bottom = right_bottom
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        self.polygon(corners, colour)

    def line(self, points: object, colour: Colour, width: float) -> None:
        """A stroke with round ends; `width` in fractions of the picture's width."""
        cv2 = opencv()
        thickness = max(round(width * self.picture.shape[1]), 1)
        closed = False
        cv2.polylines(self.picture, [self.pixels(points)], closed, opaque(colour), thickness)

    def disc(self, centre: Point, radius: float, colour: Colour, ratio: float = 1.0) -> None:
        """An ellipse; `radius` in fractions of the width, `ratio` times as high as wide."""
        cv2 = opencv()
        across = round(radius * self.picture.shape[1])
        middle = tuple(int(c) for c in self.pixels(centre))
        axes = (across, round(across * ratio))
        filled = -1
        cv2.ellipse(self.picture, middle, axes, 0, 0, 360, opaque(colour), filled)

    def finish(self) -> np.ndarray:
        """The picture at its finished size."""
        cv2 = opencv()
        height, width = self.picture.shape[:2]
        size = (width // FINE, height // FINE)  # OpenCV: width first
        return cv2.resize(self.picture, size, interpolation=cv2.INTER_AREA)


def opaque(colour: Colour) -> tuple[float, ...]:
    """The colour as OpenCV takes it, with full alpha."""
    return (*np.clip(colour, 0, 255).tolist(), 255)
