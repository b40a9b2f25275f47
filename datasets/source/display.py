"""Pictures of a video as players show them: turned, mirrored, with square pixels."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

MAX_ASPECT = 16  # of a pixel: what is stated beyond it is damage


def square_pixels(width: int, aspect: Fraction | None) -> int:
    """The width of a picture whose pixels are `aspect` times as wide as high, once they are
    square. None and 0 mean that the aspect is unknown."""
    if not aspect or not 1 / MAX_ASPECT <= aspect <= MAX_ASPECT:
        return width
    return max(round(width * aspect), 1)


def display_matrix(frame) -> np.ndarray | None:
    """The (2, 2) part of the display matrix of an av.VideoFrame that turns and mirrors."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    # 3 x 3 fixed point numbers, row by row
    return np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]


def displayed(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """image (H, W, 3) turned by quarters and mirrored as a display matrix says.

    matrix: a point (x, y) is shown at (x, y) @ matrix, up to scale. Of a slanted one, the nearest
    quarter turn is taken.
    """
    if matrix is None or not matrix.any():
        return image
    (a, b), (c, d) = matrix.tolist()
    to_x, to_y = a, d
    if abs(b) > abs(a):
        image = image.transpose(1, 0, 2)
        to_x, to_y = c, b
    if to_x < 0:
        image = image[:, ::-1]
    if to_y < 0:
        image = image[::-1]
    return np.ascontiguousarray(image)
