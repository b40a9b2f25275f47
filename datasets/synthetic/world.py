"""The synthetic world: one street video from a seed, with exact labels, optical flow and occlusion.

    seed -- Street (patches, ride) -- World -- image(t), labels(t), flow(t, s), occlusion(t, s)

Each patch is flat, so between its own plane and any frame lies one homography. The renderer draws
with it and keeps the nearest patch of every pixel; the flow between any two frames follows from the
pixel's patch alone. Labels are hard: a pixel shows one patch. Coordinates of pixels are those of
their centres: (0, 0) is the centre of the first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from .classes import CLASSES, PALETTE, SKY
from .plan import FAR, NEAR, Surfaces, plan
from .raster import draw, draw_sky
from .scene import Patch
from .street import Street
from .textures.texture import Texture

__all__ = ["CLASSES", "PALETTE", "World"]

KEPT = 6  # rendered frames a world remembers
LIMIT = 1e5  # pixels: the largest flow, of points that go behind the camera
HORIZON = 0.46  # of the image height: where the camera looks straight ahead


class View(NamedTuple):
    """The camera at one time."""

    project: np.ndarray  # (3, 3): camera coordinates to homogeneous pixels
    rotation: np.ndarray  # (3, 3): world to camera
    position: np.ndarray  # (3,)


class Rendered(NamedTuple):
    """A drawn frame."""

    image: np.ndarray  # (H, W, 3) uint8
    ids: np.ndarray  # (H, W) int32: 0 = sky, else 1 + index of the patch


class World:
    """A rendered street video. Frames are drawn when asked for and the last few are remembered.

    seed: the video; size: (H, W) in pixels; length: in frames; fps: frames a second, so how far
    things move per frame. Raises ValueError for a size, length or fps that is not above 0.
    """

    def __init__(
        self, seed: int, size: tuple[int, int] = (256, 512), length: int = 30, fps: float = 15.0
    ):
        if min(size) < 1 or length < 1 or not fps > 0:
            raise ValueError(
                f"a world needs size, length and fps above 0, got {size}, {length} and {fps}"
            )
        self.size = tuple(size)
        self.length = length
        self.fps = float(fps)
        self.street = Street(seed, length / fps)
        patches = self.street.patches
        # of all N patches, each (N, 3)
        self.origin = np.stack([patch.origin for patch in patches])
        self.u = np.stack([patch.u for patch in patches])
        self.v = np.stack([patch.v for patch in patches])
        self.velocity = np.stack([patch.velocity for patch in patches])
        self.normal = np.cross(self.u, self.v)  # away from the viewer
        self.surfaces = surfaces_of(patches, self.street.look.all)
        self.spread = self.corner_offsets()
        labels = [patch.label for patch in patches]
        self.classes = np.array([SKY, *labels], np.uint8)  # by id: 0 is the sky
        self.frames: OrderedDict[int, Rendered] = OrderedDict()

    def corner_offsets(self) -> np.ndarray:
        """(N, 4, 3): from a patch's origin to its corners, in turn."""
        width, height = self.surfaces.extent.T[..., None]  # each (N, 1)
        right = width * self.u
        down = height * self.v
        return np.stack([0 * self.u, right, right + down, down], 1)

    # What a data set asks for

    def image(self, t: int) -> np.ndarray:
        """Frame t as a perfect camera sees it: (H, W, 3) uint8 RGB."""
        # a copy: the caller may write into it
        return self.render(t).image.copy()

    def labels(self, t: int) -> np.ndarray:
        """(H, W) uint8: the class of each pixel of frame t, index into CLASSES."""
        return self.classes[self.render(t).ids]

    def flow(self, t: int, s: int) -> np.ndarray:
        """Optical flow (2, H, W) float32: where pixels of frame t lie in frame s, x before y.

        In pixels, relative to where they are in frame t. Points that leave the image point to where
        they went; those that end up behind the camera, far outside.
        """
        self.check(s)
        ids = self.render(t).ids
        if s == t:
            return np.zeros((2, *self.size), np.float32)
        present = np.flatnonzero(np.bincount(ids.ravel(), minlength=len(self.classes)))
        # by way of the plane: pixel of frame t -> patch -> pixel of frame s
        to_t = self.plane_to_pixels(present, t)
        to_s = self.plane_to_pixels(present, s)
        maps = (to_s @ np.linalg.inv(to_t)).reshape(-1, 9)
        row = np.zeros(len(self.classes), np.intp)  # of `maps`, by id
        row[present] = np.arange(len(present))
        return move_pixels(np.take(maps.T, row[ids], axis=1))

    def occlusion(self, t: int, s: int) -> np.ndarray:
        """(H, W) bool: True where a pixel of frame t cannot be found in frame s.

        That is where its point lies outside frame s, or where any of the (up to four) pixels around
        the point shows another patch: everywhere else bilinear sampling of frame s sees the same
        surface.
        """
        height, width = self.size
        ids = self.render(t).ids
        other = self.render(s).ids
        flow = self.flow(t, s)
        x = flow[0] + np.arange(width, dtype=np.float32)
        y = flow[1] + np.arange(height, dtype=np.float32)[:, None]
        slack = 1e-3  # pixels: rounding must not ask for a neighbour of no weight
        left = np.floor(x + slack)
        right = np.ceil(x - slack)
        top = np.floor(y + slack)
        bottom = np.ceil(y - slack)
        hidden = (left < 0) | (top < 0)
        hidden |= (right > width - 1) | (bottom > height - 1)
        for y in (top, bottom):
            row = y.clip(0, height - 1).astype(np.intp)
            for x in (left, right):
                column = x.clip(0, width - 1).astype(np.intp)
                hidden |= other[row, column] != ids
        return hidden

    # The camera

    def check(self, t: int) -> None:
        """Raise ValueError unless the video has a frame t."""
        if not 0 <= t < self.length:
            raise ValueError(
                f"frame {t} of a video of {self.length} frames: expected 0 to {self.length - 1}"
            )

    def view(self, t: int) -> View:
        """The camera at frame t."""
        height, width = self.size
        rotation, position = self.street.ride.pose(t / self.fps)
        focal = self.street.ride.focal * max(width, height)
        middle = (width - 1) / 2
        horizon = HORIZON * (height - 1)
        # fmt: off
        project = np.array([[focal, 0, middle],
                            [0, focal, horizon],
                            [0, 0, 1]])
        # fmt: on
        return View(project, rotation, position)

    def origins(self, t: int) -> np.ndarray:
        """(N, 3): where the patches are at frame t."""
        return self.origin + self.velocity * (t / self.fps)

    def plane_to_pixels(self, ids: np.ndarray, t: int) -> np.ndarray:
        """(N, 3, 3): from (a, b, 1) on the planes of N patches to depth * (x, y, 1) in frame t.

        (a, b) are metres along u and v. For the sky, whose id is 0, from a direction in the world
        to (x, y, 1) times its forward part.
        """
        project, rotation, position = self.view(t)
        patch = np.asarray(ids) - 1
        origin = self.origins(t)[patch] - position
        # (a, b, 1) on the plane -> the vector from the camera to that point
        plane = np.stack([self.u[patch], self.v[patch], origin], 2)
        maps = project @ rotation @ plane
        maps[patch < 0] = project @ rotation
        return maps

    # Drawing

    def render(self, t: int) -> Rendered:
        """Frame t from memory, or drawn."""
        self.check(t)
        if t not in self.frames:
            self.frames[t] = self.draw(t)
            if len(self.frames) > KEPT:
                self.frames.popitem(last=False)  # the one used longest ago
        self.frames.move_to_end(t)
        return self.frames[t]

    def draw(self, t: int) -> Rendered:
        """Frame t, drawn anew."""
        look = self.street.look
        patches, corners = self.visible(t)
        to_plane = np.linalg.inv(self.plane_to_pixels(1 + patches, t))
        todo = plan(to_plane, corners, patches, self.surfaces, self.size)
        image, ids = draw(todo, look.all, self.surfaces, self.size)
        project, rotation, _ = self.view(t)
        to_direction = np.linalg.inv(project @ rotation)
        draw_sky(image, ids, to_direction, look.all[look.sky])
        rgb = np.ascontiguousarray(image[..., :3])
        return Rendered(rgb, ids)

    def visible(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Patches that may show in frame t: index (M,), corners (M, 4, 3) as depth * (x, y, 1)."""
        project, rotation, position = self.view(t)
        offset = self.origins(t) - position
        facing = np.flatnonzero((self.normal * offset).sum(1) > 1e-6)
        corners = offset[facing, None] + self.spread[facing]  # (M, 4, 3), from the camera
        corners = corners @ (project @ rotation).T
        x, y, z = np.moveaxis(corners, 2, 0)  # each (M, 4)
        height, width = self.size
        # not all corners behind the same edge of the image; times the depth, which may be 0
        kept = (z.max(1) > NEAR) & (z.min(1) < FAR)
        kept &= (x.max(1) >= 0) & (y.max(1) >= 0)
        kept &= (x - (width - 1) * z).min(1) <= 0
        kept &= (y - (height - 1) * z).min(1) <= 0
        return facing[kept], corners[kept]


def surfaces_of(patches: list[Patch], textures: list[Texture]) -> Surfaces:
    """What the patches are covered with, as arrays."""
    used = [textures[patch.texture] for patch in patches]
    return Surfaces(
        texture=np.array([patch.texture for patch in patches]),
        pixels=np.array([texture.level(0, 0).shape[1::-1] for texture in used]),
        tile=np.array([patch.tile for patch in patches]),
        wrap=np.array([texture.wrap for texture in used]),
        extent=np.array([patch.size for patch in patches]),
    )


def move_pixels(maps: np.ndarray) -> np.ndarray:
    """A homography (9, H, W) for each pixel -> how far it moves the pixel: (2, H, W) float32."""
    height, width = maps.shape[1:]
    x = np.arange(width, dtype=np.float64)
    y = np.arange(height, dtype=np.float64)[:, None]

    def apply_row(row: int) -> np.ndarray:
        by_x, by_y, constant = maps[3 * row : 3 * row + 3]  # each (H, W)
        return by_x * x + by_y * y + constant

    # at least a little before the camera: points behind it go far outside
    depth = np.maximum(apply_row(2), 1e-6)
    moved_x = apply_row(0) / depth - x
    moved_y = apply_row(1) / depth - y
    moved = np.stack([moved_x, moved_y])
    return moved.clip(-LIMIT, LIMIT).astype(np.float32)
