"""Draws flat patches into a frame: nearest wins at every pixel, outlines are hard, textures are
read at their distance.

A patch comes as a homography `to_plane` (3, 3): pixel (x, y, 1) -> (a, b, 1) / depth, with (a, b)
in metres on the patch. So the third component is the inverse depth, and all three are linear in the
pixel. A frame has some hundred patches of few pixels each: what can be is computed for all of them
at once (`plan`), the rest one by one (`draw`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..opencv import opencv
from .textures import Texture

# metres: nothing nearer or farther is drawn
NEAR = 0.4
FAR = 1000.0
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
    box: (
        np.ndarray
    )  # (J, 4) int: left, top, right, bottom of the pixels that can show it, ends excluded
    inverse: (
        np.ndarray
    )  # (J, 3): largest 1 / depth in it; the band of 1 / depth to draw: above, up to
    banded: np.ndarray  # (J,) bool: whether the patch has other pieces
    edges: (
        np.ndarray
    )  # (J, 5, 3) float32: linear in (x, y, 1); four are >= 0 inside the patch, the last 1 / depth
    level: np.ndarray  # (J, 2) int: of the texture
    texels: np.ndarray  # (J, 3, 3): pixel in the box to texel


def plan(
    to_plane: np.ndarray,
    corners: np.ndarray,
    patches: np.ndarray,
    what: Surfaces,
    size: tuple[int, int],
) -> Plan:
    """Cut M patches into pieces. to_plane (M, 3, 3); corners (M, 4, 3) as depth * (x, y, 1);
    patches (M,): which."""
    which, polygon, low, high = bands(corners)
    x, y, z = np.moveaxis(polygon, 2, 0)  # each (J, 6)
    x = x / z
    y = y / z
    limit = np.array([size[1], size[0]])
    start = np.ceil(np.stack([x.min(1), y.min(1)], 1)).clip(0, limit)
    stop = (np.floor(np.stack([x.max(1), y.max(1)], 1)) + 1).clip(0, limit)
    nearest = z.min(1)
    kept = np.flatnonzero((start < stop).all(1))
    kept = kept[np.argsort(nearest[kept], kind="stable")]
    start = start[kept]
    stop = stop[kept]
    index = which[kept]
    patch = patches[index]
    maps = to_plane[index]
    centre = np.stack([x.mean(1), y.mean(1)], 1)[kept].clip(start, stop - 1)
    level, texels = texture_maps(maps, centre, start, patch, what)
    inverse = 1 / np.stack([nearest, high, low], 1)[kept]
    a, b, depth = np.moveaxis(maps, 1, 0)
    width, height = what.extent[patch].T[..., None]
    edges = np.stack([a, width * depth - a, b, height * depth - b, depth], 1).astype(np.float32)
    banded = np.bincount(which, minlength=len(corners))[index] > 1
    return Plan(patch, np.hstack([start, stop]).astype(int), inverse, banded, edges, level, texels)


def bands(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cut patches in depth: index of the patch (J,), outline (J, 6, 3; points repeat), depth from
    (J,) and to (J,)."""
    depth = corners[..., 2]
    low = depth.min(1)
    high = depth.max(1)
    whole = (low >= NEAR) & (high <= BAND * low)
    pieces = []
    for k in np.flatnonzero(~whole):
        first = max(low[k], NEAR)
        last = min(high[k], FAR)
        limits = np.geomspace(
            first, last, max(int(np.ceil(np.log(last / first) / np.log(BAND))), 1) + 1
        )
        points = corners[k].tolist()
        for near, far in zip(limits, limits[1:], strict=False):
            outline = clip(points, near, far)
            if outline:
                pieces.append((k, (outline + outline[-1:] * 6)[:6], near, far))
    which, outlines, near, far = (
        zip(*pieces, strict=True) if pieces else ((), np.zeros((0, 6, 3)), (), ())
    )
    simple = np.flatnonzero(whole)
    polygon = np.concatenate([corners[simple][:, [0, 1, 2, 3, 3, 3]], np.asarray(outlines)])
    return (
        np.concatenate([simple, np.asarray(which, int)]),
        polygon,
        np.concatenate([low[simple], near]),
        np.concatenate([high[simple], far]),
    )


def clip(points: Corners, low: float, high: float) -> Corners:
    """The part of a polygon between two depths; points are depth * (x, y, 1)."""
    for sign, limit in ((1, low), (-1, -high)):
        kept = []
        for here, after in zip(points, points[1:] + points[:1], strict=True):
            d = sign * here[2] - limit
            e = sign * after[2] - limit
            if d >= 0:
                kept.append(here)
            if (d < 0) != (e < 0):
                share = d / (d - e)
                kept.append(tuple(p + share * (q - p) for p, q in zip(here, after, strict=True)))
        points = kept
    return points


def texture_maps(
    maps: np.ndarray, centre: np.ndarray, start: np.ndarray, patch: np.ndarray, what: Surfaces
) -> tuple[np.ndarray, np.ndarray]:
    """The texture level (J, 2) that fits pixel `centre` (J, 2), and the maps (J, 3, 3) from pixels
    after `start`."""
    place = np.einsum("jab,jb->ja", maps, np.pad(centre, ((0, 0), (0, 1)), constant_values=1))
    inverse = place[:, 2]
    place = place[:, :2] / place[:, 2:]
    step = (
        np.abs(maps[:, :2, :2] - place[..., None] * maps[:, 2:, :2]).max(2) / inverse[:, None]
    )  # metres a pixel
    pixels = what.pixels[patch]
    tile = what.tile[patch]
    level = np.log2((step * pixels / tile).clip(1)).round().astype(int)
    level = np.minimum(level, np.log2(pixels).astype(int))
    pixels = pixels >> level
    # A repeating texture is read near its origin: far from it, OpenCV's coordinates run out of
    # digits.
    whole = np.where(what.wrap[patch][:, None], np.floor(place / tile), 0)
    texels = np.zeros((len(maps), 3, 3))
    texels[:, 0, 0], texels[:, 1, 1] = (pixels / tile).T
    texels[:, :2, 2], texels[:, 2, 2] = -0.5 - whole * pixels, 1
    shift = np.tile(np.eye(3), (len(maps), 1, 1))
    shift[:, :2, 2] = start
    return level, texels @ maps @ shift


def draw(
    todo: Plan, textures: list[Texture], what: Surfaces, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 4) uint8 and number of the patch, from 1, at each pixel (H, W) int32, 0 where
    there is none."""
    cv2 = opencv()
    image = np.zeros((*size, 4), np.uint8)
    ids = np.zeros(size, np.int32)
    near = np.zeros(size, np.float32)
    whole = image.view(np.uint32)[..., 0]
    all_x = np.arange(size[1], dtype=np.float32)
    all_y = np.arange(size[0], dtype=np.float32)[:, None]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    columns = zip(
        todo.patch.tolist(),
        todo.box.tolist(),
        todo.inverse.tolist(),
        todo.banded.tolist(),
        todo.edges[..., None, None],
        todo.level.tolist(),
        todo.texels,
        strict=True,
    )
    for patch, (left, top, right, bottom), (
        nearest,
        above,
        up_to,
    ), banded, edges, level, texels in columns:
        area = slice(top, bottom), slice(left, right)
        before = near[area]
        if before.min() > nearest:
            continue  # wholly behind what is drawn
        inside = edges[:, 0] * all_x[left:right] + (edges[:, 1] * all_y[top:bottom] + edges[:, 2])
        depth = inside[4]
        mask = depth > before
        mask &= inside[:4].min(0) >= 0
        if banded:
            mask &= (depth > above) & (depth <= up_to)
        if not mask.any():
            continue
        texture = textures[what.texture[patch]]
        border = cv2.BORDER_WRAP if texture.wrap else cv2.BORDER_REPLICATE
        colour = cv2.warpPerspective(
            texture.level(*level),
            texels,
            (right - left, bottom - top),
            flags=flags,
            borderMode=border,
        )
        if not texture.opaque:
            mask &= colour[..., 3] > 127
        np.copyto(before, depth, where=mask)
        np.copyto(ids[area], patch + 1, where=mask)
        np.copyto(whole[area], colour.view(np.uint32)[..., 0], where=mask)
    return image, ids


def draw_sky(
    image: np.ndarray, ids: np.ndarray, to_direction: np.ndarray, texture: Texture
) -> None:
    """Fill what no patch covers with what is infinitely far; to_direction (3, 3): pixel to
    direction in space."""
    cv2 = opencv()
    picture = texture.level(0, 0)
    height, width = picture.shape[:2]
    # the picture spans tangents of -2.2 to 2.2 across; the horizon is three quarters down
    scale = width / 4.4
    place = np.array([[scale, 0, width / 2], [0, scale, 0.75 * height], [0, 0, 1]])
    colour = cv2.warpPerspective(
        picture,
        place @ to_direction,
        ids.shape[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    np.copyto(image.view(np.uint32)[..., 0], colour.view(np.uint32)[..., 0], where=ids == 0)
