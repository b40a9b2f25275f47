"""Plans a frame: which pieces of which patches to draw, where, in which order, with which textures.

A patch comes as a homography `to_plane` (3, 3): pixel (x, y, 1) -> (a, b, 1) / depth, with (a, b)
in metres on the patch. So the third component is the inverse depth, and all three are linear in the
pixel. Corners are depth * (x, y, 1).

Letters of shapes: M patches, J pieces of patches, N all patches of the video.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

NEAR = 0.4  # metres: nothing nearer is drawn
FAR = 1000.0  # metres: nothing farther is drawn
BAND = 2.2  # patches are drawn in bands of depth, far end / near end, each with its texture level

Corners = list[tuple[float, float, float]]


class Surfaces(NamedTuple):
    """What N patches are covered with."""

    texture: np.ndarray  # (N,) int: index into the textures
    pixels: np.ndarray  # (N, 2): width and height of the texture at full size
    tile: np.ndarray  # (N, 2): metres it covers
    wrap: np.ndarray  # (N,) bool: whether it repeats
    extent: np.ndarray  # (N, 2): metres of the patch


class Plan(NamedTuple):
    """J pieces of patches to draw, nearest first."""

    patch: np.ndarray  # (J,) int
    # (J, 4) int: left, top, right, bottom of the pixels that can show it, ends excluded
    box: np.ndarray
    # (J, 3): largest 1 / depth in it; the band of 1 / depth to draw: above, up to
    inverse: np.ndarray
    banded: np.ndarray  # (J,) bool: whether the patch has other pieces
    # (J, 5, 3) float32: linear in (x, y, 1); four are >= 0 inside the patch, the last is 1 / depth
    edges: np.ndarray
    level: np.ndarray  # (J, 2) int: of the texture
    texels: np.ndarray  # (J, 3, 3): pixel in the box to texel


class Bands(NamedTuple):
    """J pieces of patches, each between two depths."""

    which: np.ndarray  # (J,) int: position of the patch among the M
    outline: np.ndarray  # (J, 6, 3) depth * (x, y, 1); its last points may repeat
    near: np.ndarray  # (J,) metres
    far: np.ndarray  # (J,) metres


class Piece(NamedTuple):
    """One entry of `Bands`."""

    which: int
    outline: Corners
    near: float
    far: float


def plan(
    to_plane: np.ndarray,
    corners: np.ndarray,
    patches: np.ndarray,
    surfaces: Surfaces,
    size: tuple[int, int],
) -> Plan:
    """Cut M patches into pieces and drop those outside a frame of size (H, W).

    to_plane (M, 3, 3); corners (M, 4, 3); patches (M,): their numbers among the N.
    """
    bands = cut(corners)
    depth = bands.outline[..., 2]  # (J, 6)
    pixels = bands.outline[..., :2] / depth[..., None]  # (J, 6, 2)
    height, width = size
    limit = (width, height)
    start = np.ceil(pixels.min(1)).clip(0, limit)  # (J, 2)
    stop = np.floor(pixels.max(1)) + 1
    stop = stop.clip(0, limit)
    nearest = depth.min(1)
    inverse = 1 / np.stack([nearest, bands.far, bands.near], 1)

    # pieces that cover a pixel, nearest first: later ones are often hidden and cost little
    kept = np.flatnonzero((start < stop).all(1))
    kept = kept[np.argsort(nearest[kept], kind="stable")]
    start = start[kept]
    stop = stop[kept]
    which = bands.which[kept]
    patch = patches[which]
    maps = to_plane[which]

    # the texture's level is chosen at the middle of the piece, or where it enters the frame
    centre = pixels.mean(1)[kept]
    centre = centre.clip(start, stop - 1)
    level, texels = texture_maps(maps, centre, start, patch, surfaces)
    pieces_of = np.bincount(bands.which, minlength=len(corners))
    return Plan(
        patch=patch,
        box=np.hstack([start, stop]).astype(int),
        inverse=inverse[kept],
        banded=pieces_of[which] > 1,
        edges=edges_of(maps, surfaces.extent[patch]),
        level=level,
        texels=texels,
    )


def edges_of(maps: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Maps (J, 3, 3) to the plane, extent (J, 2) of the patch -> `Plan.edges` (J, 5, 3)."""
    a, b, inverse = np.moveaxis(maps, 1, 0)  # each (J, 3)
    width, height = extent.T[..., None]  # each (J, 1)
    # 0 <= a <= width and 0 <= b <= height, all times the inverse depth
    right = width * inverse - a
    bottom = height * inverse - b
    edges = np.stack([a, right, b, bottom, inverse], 1)
    return edges.astype(np.float32)


def cut(corners: np.ndarray) -> Bands:
    """Cut patches (M, 4, 3) that reach over more depth than one band, or beyond NEAR."""
    depth = corners[..., 2]
    low = depth.min(1)
    high = depth.max(1)
    is_whole = (low >= NEAR) & (high <= BAND * low)
    whole = np.flatnonzero(is_whole)
    outline = corners[whole][:, [0, 1, 2, 3, 3, 3]]  # (J, 4, 3) -> (J, 6, 3)
    bands = Bands(whole, outline, low[whole], high[whole])
    first = np.maximum(low, NEAR)
    last = np.minimum(high, FAR)
    pieces = []
    for k in np.flatnonzero(~is_whole):
        pieces += cut_patch(k, corners[k], first[k], last[k])
    if not pieces:
        return bands
    columns = zip(bands, zip(*pieces, strict=True), strict=True)
    return Bands(*(np.concatenate([of_whole, of_pieces]) for of_whole, of_pieces in columns))


def cut_patch(which: int, corners: np.ndarray, first: float, last: float) -> Iterator[Piece]:
    """The pieces of one patch (4, 3) from depth `first` to `last`, in bands of equal ratio."""
    count = np.log(last / first) / np.log(BAND)
    count = max(int(np.ceil(count)), 1)
    limits = np.geomspace(first, last, count + 1)
    points = corners.tolist()
    for near, far in zip(limits, limits[1:], strict=False):
        outline = clip(points, near, far)
        if outline:
            # a rectangle between two planes has at most six corners; the last repeats up to six
            filled = outline + outline[-1:] * 6
            yield Piece(which, filled[:6], near, far)


def clip(points: Corners, low: float, high: float) -> Corners:
    """The part of a polygon between two depths (Sutherland-Hodgman)."""
    for sign, limit in ((1, low), (-1, -high)):
        kept = []
        for here, after in zip(points, points[1:] + points[:1], strict=True):
            # how far the ends of this edge are on the kept side of the limit
            start = sign * here[2] - limit
            stop = sign * after[2] - limit
            if start >= 0:
                kept.append(here)
            if (start < 0) != (stop < 0):
                share = start / (start - stop)
                kept.append(between(here, after, share))
        points = kept
    return points


def between(
    start: tuple[float, float, float], stop: tuple[float, float, float], share: float
) -> tuple[float, ...]:
    """The point that is `share` of the way from start to stop."""
    return tuple(p + share * (q - p) for p, q in zip(start, stop, strict=True))


def texture_maps(
    maps: np.ndarray, centre: np.ndarray, start: np.ndarray, patch: np.ndarray, surfaces: Surfaces
) -> tuple[np.ndarray, np.ndarray]:
    """Texture level (J, 2) that fits pixel `centre` (J, 2); maps (J, 3, 3) from pixels to texels.

    maps (J, 3, 3): pixel to plane; the pixels of the result are counted from `start` (J, 2).
    """
    homogeneous = np.pad(centre, ((0, 0), (0, 1)), constant_values=1)  # (J, 2) -> (J, 3)
    place = np.einsum("jab,jb->ja", maps, homogeneous)
    inverse = place[:, 2]
    place = place[:, :2] / place[:, 2:]  # metres on the patch

    # derivative of (a, b) by the pixel: the larger of the steps to the right and down
    of_numerator = maps[:, :2, :2]  # (J, 2, 2)
    of_denominator = maps[:, 2:, :2]  # (J, 1, 2)
    step = np.abs(of_numerator - place[..., None] * of_denominator)
    step = step.max(2) / inverse[:, None]  # (J, 2) metres a pixel
    pixels = surfaces.pixels[patch]
    tile = surfaces.tile[patch]
    shrunk = (step * pixels / tile).clip(1)  # (J, 2) texels a pixel
    level = np.log2(shrunk).round().astype(int)
    smallest = np.log2(pixels).astype(int)
    level = np.minimum(level, smallest)
    pixels = pixels >> level

    # a repeating texture is read near its origin: far from it, OpenCV's coordinates lose digits
    wrap = surfaces.wrap[patch][:, None]
    tiles = np.where(wrap, np.floor(place / tile), 0)
    texels = np.zeros((len(maps), 3, 3))
    scale = pixels / tile
    texels[:, 0, 0] = scale[:, 0]
    texels[:, 1, 1] = scale[:, 1]
    # half a pixel: texels are counted from the centre of the first, metres from its edge
    texels[:, :2, 2] = -0.5 - tiles * pixels
    texels[:, 2, 2] = 1
    shift = np.tile(np.eye(3), (len(maps), 1, 1))
    shift[:, :2, 2] = start
    return level, texels @ maps @ shift
