"""Draws planned pieces of patches into a frame.

The nearest patch wins at every pixel, outlines are hard, textures are read at a level that fits
their distance. A frame has some hundred patches of few pixels each: what can be is computed for all
of them at once (plan.py), the rest one by one here.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

import numpy as np

from ..opencv import opencv
from .plan import Plan, Surfaces
from .textures.texture import Texture

# what the sky's picture spans: tangents of -2.2 to 2.2 across, and the horizon's place from its top
SKY_SPAN = 4.4
HORIZON = 0.75


class Piece(NamedTuple):
    """One piece of a `Plan`, with the fields of that class; all but arrays as plain numbers."""

    patch: int
    box: list[int]
    inverse: list[float]
    banded: bool
    edges: np.ndarray  # (3, 5, 1, 1): the factors of x, of y and of 1
    level: list[int]
    texels: np.ndarray  # (3, 3)


class Frame(NamedTuple):
    """What is drawn so far, and the coordinates of its pixels."""

    image: np.ndarray  # (H, W, 4) uint8
    packed: np.ndarray  # (H, W) uint32: the same memory
    ids: np.ndarray  # (H, W) int32: 1 + number of the patch, 0 where there is none
    near: np.ndarray  # (H, W) float32: 1 / depth, 0 where there is none
    x: np.ndarray  # (W,) float32
    y: np.ndarray  # (H, 1) float32

    @classmethod
    def empty(cls, size: tuple[int, int]) -> Frame:
        """Nothing drawn, for a frame of size (H, W)."""
        image = np.zeros((*size, 4), np.uint8)
        return cls(
            image=image,
            packed=pack(image),
            ids=np.zeros(size, np.int32),
            near=np.zeros(size, np.float32),
            x=np.arange(size[1], dtype=np.float32),
            y=np.arange(size[0], dtype=np.float32)[:, None],
        )


def draw(
    plan: Plan, textures: list[Texture], surfaces: Surfaces, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 4) uint8, and the patch that each pixel shows (H, W) int32.

    Patches are numbered from 1; 0 means none.
    """
    cv2 = opencv()  # here once, not for each of some hundred pieces
    frame = Frame.empty(size)
    for piece in pieces(plan):
        draw_piece(cv2, frame, piece, textures[surfaces.texture[piece.patch]])
    return frame.image, frame.ids


def pieces(plan: Plan) -> Iterator[Piece]:
    """The plan's pieces one by one."""
    columns = zip(
        # plain numbers: reading them from arrays one by one would be slower
        plan.patch.tolist(),
        plan.box.tolist(),
        plan.inverse.tolist(),
        plan.banded.tolist(),
        plan.edges.swapaxes(1, 2)[..., None, None],  # (J, 5, 3) -> (J, 3, 5, 1, 1)
        plan.level.tolist(),
        plan.texels,
        strict=True,
    )
    return map(Piece._make, columns)


def draw_piece(cv2: ModuleType, frame: Frame, piece: Piece, texture: Texture) -> None:
    """Draw the piece where it is nearer than what the frame shows."""
    left, top, right, bottom = piece.box
    nearest, above, up_to = piece.inverse
    area = (slice(top, bottom), slice(left, right))
    before = frame.near[area]
    if before.min() > nearest:
        return  # wholly behind what is drawn

    by_x, by_y, constant = piece.edges  # each (5, 1, 1)
    of_column = by_x * frame.x[left:right]  # (5, 1, w)
    of_row = by_y * frame.y[top:bottom] + constant  # (5, h, 1)
    edges = of_column + of_row  # (5, h, w)
    inverse = edges[4]
    mask = inverse > before
    mask &= edges[:4].min(0) >= 0
    if piece.banded:
        mask &= (inverse > above) & (inverse <= up_to)
    if not mask.any():
        return

    colour = read_texture(cv2, texture, piece, (right - left, bottom - top))
    if not texture.opaque:
        mask &= colour[..., 3] > 127
    np.copyto(before, inverse, where=mask)
    np.copyto(frame.ids[area], piece.patch + 1, where=mask)
    np.copyto(frame.packed[area], pack(colour), where=mask)


def read_texture(
    cv2: ModuleType, texture: Texture, piece: Piece, size: tuple[int, int]
) -> np.ndarray:
    """The texture as the piece's box shows it: (h, w, 4) uint8; size: (w, h), for OpenCV."""
    border = cv2.BORDER_REPLICATE
    if texture.wrap:
        border = cv2.BORDER_WRAP
    # inverse map: `texels` goes from the result to the texture
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    picture = texture.level(*piece.level)
    return cv2.warpPerspective(picture, piece.texels, size, flags=flags, borderMode=border)


def draw_sky(
    image: np.ndarray, ids: np.ndarray, to_direction: np.ndarray, texture: Texture
) -> None:
    """Fill image (H, W, 4) where no patch covers it, that is where ids (H, W) are 0.

    The sky is infinitely far; to_direction (3, 3): pixel to direction in space.
    """
    cv2 = opencv()
    picture = texture.level(0, 0)
    height, width = picture.shape[:2]
    scale = width / SKY_SPAN
    middle = width / 2
    horizon = HORIZON * height
    # fmt: off
    place = np.array([[scale, 0, middle],
                      [0, scale, horizon],
                      [0, 0, 1]])
    # fmt: on
    colour = cv2.warpPerspective(
        picture,
        place @ to_direction,
        ids.shape[::-1],  # OpenCV: width first
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    np.copyto(pack(image), pack(colour), where=ids == 0)


def pack(image: np.ndarray) -> np.ndarray:
    """A view of (h, w, 4) uint8 as (h, w) uint32: the four channels are copied as one number."""
    return image.view(np.uint32)[..., 0]
