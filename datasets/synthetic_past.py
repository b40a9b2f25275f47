"""Synthetic past motion: the past of a clip is made from its labelled frame by a known motion.

It trains methods with memory on data whose labels cover every pixel but only few frames (those of
CamVid are a second apart). The motion between the frames of such a clip is known exactly, and so
are the labels of all its frames.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np

from .clip import RawClip
from .labels import IGNORE
from .opencv import opencv

SPEED = 16 / 480  # the most that a pixel moves from frame to frame, in frame widths
WAVES = 2  # of unevenness on top of the drive
STEPS = 12  # of the inversion: the motions are smooth, so these suffice for 1e-6 pixels

Wave = tuple[np.ndarray, np.ndarray, float]


@dataclass(frozen=True, eq=False)
class Motion:
    """Where a point p of one frame lies in the next: p + u(p), in pixels, x before y.

    u(p) = matrix (p - centre) + shift + sum over waves of amplitude * sin(frequency . p + phase)

    It is defined for any point of the plane, also outside the frame.
    """

    centre: np.ndarray  # (2,) the vanishing point
    matrix: np.ndarray  # (2, 2) zoom and rotation about it
    shift: np.ndarray  # (2,)
    waves: tuple[Wave, ...]  # amplitude (2,), frequency (2,), phase

    def velocity(self, points: np.ndarray) -> np.ndarray:
        """u at points (2, H, W) -> (2, H, W)."""
        offset = self.shift - self.matrix @ self.centre
        result = np.einsum("ij,jyx->iyx", self.matrix, points) + offset[:, None, None]
        for amplitude, frequency, phase in self.waves:
            angle = np.einsum("j,jyx->yx", frequency, points) + phase  # (H, W)
            result += amplitude[:, None, None] * np.sin(angle)
        return result

    def next(self, points: np.ndarray) -> np.ndarray:
        """Points (2, H, W) of one frame -> where they lie in the next."""
        return points + self.velocity(points)

    def before(self, points: np.ndarray) -> np.ndarray:
        """The inverse of `next`: where points (2, H, W) of a frame lay in the frame before it."""
        # the fixed point of q = p - u(q): converges because u changes slowly from point to point
        past = points
        for _ in range(STEPS):
            past = points - self.velocity(past)
        return past

    def scaled(self, factor: float) -> Motion:
        """The same motion at another speed."""
        waves = tuple((amplitude * factor, *wave) for amplitude, *wave in self.waves)
        return Motion(self.centre, self.matrix * factor, self.shift * factor, waves)


def draw_motion(size: tuple[int, int], rng: random.Random) -> Motion:
    """A drive forward through a frame of size (H, W), at any speed.

    With some turn (shift in x), pitch (shift in y), roll and unevenness.
    """
    # The order of the draws is part of the result: a seed gives the same motion in every version.
    height, width = size
    zoom = rng.uniform(0.2, 1)
    roll = rng.uniform(-0.2, 0.2)
    waves = tuple(draw_wave(width, rng) for _ in range(WAVES))
    centre = np.array([rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.6) * height])
    matrix = np.array([[zoom, -roll], [roll, zoom]]) / (width / 2)
    shift = np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.2, 0.2)])
    return Motion(centre, matrix, shift, waves)


def draw_wave(width: int, rng: random.Random) -> Wave:
    """A wave in any direction, half a frame to a frame long."""
    direction = rng.uniform(0, 2 * math.pi)
    length = rng.uniform(0.5, 1) * width
    frequency = np.array([math.cos(direction), math.sin(direction)]) * (2 * math.pi / length)
    amplitude = np.array([rng.uniform(-0.15, 0.15), rng.uniform(-0.15, 0.15)])
    phase = rng.uniform(0, 2 * math.pi)
    return amplitude, frequency, phase


@dataclass(frozen=True)
class SyntheticPast:
    """With probability p, all past frames of a clip are replaced by the labelled (last) one, moved.

    Each step back in the clip undoes the same motion, a drive towards a vanishing point; so things
    are smaller in older frames. The pixel that moves most moves by up to strength * 16 pixels per
    step in a frame 480 wide, drawn uniformly from 0. What lies outside the labelled frame is its
    reflection, with label 255. A clip of one frame stays as it is. ValueError: impossible settings.
    """

    p: float
    strength: float = 1.0

    def __post_init__(self):
        if not (0 <= self.p <= 1 and 0 <= self.strength <= 2):
            raise ValueError(
                "synthetic past motion has a probability of 0 to 1 and a strength of 0 to 2, got "
                f"{self.p} and {self.strength}"
            )

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        if len(clip.frames) == 1 or rng.random() >= self.p:
            return clip
        frame = clip.frames[-1]
        label = clip.labels[-1]
        grid = pixel_grid(frame.shape[:2])
        motion = self.draw(grid, rng)
        frames = [frame]
        labels = [label]
        # (2, H, W) where each pixel of the frame to be made lies in the labelled one
        points = grid
        for _ in clip.frames[1:]:
            # one step further back in time, so one step more to reach the labelled frame
            points = motion.next(points)
            frames.append(sample(frame, points))
            labels.append(None if label is None else sample_label(label, points))
        flows = None
        if clip.flows is not None:
            # the same between all neighbours: from the grid of a frame into the frame before it
            flow = (motion.before(grid) - grid).astype(np.float32)  # (2, H, W)
            flows = [flow] * len(clip.flows)
        return RawClip(frames[::-1], labels[::-1], flows)

    def draw(self, grid: np.ndarray, rng: random.Random) -> Motion:
        """A motion for the pixels of grid (2, H, W), at a speed drawn uniformly from 0."""
        _, height, width = grid.shape
        motion = draw_motion((height, width), rng)
        fastest = np.hypot(*motion.velocity(grid)).max()
        return motion.scaled(rng.uniform(0, self.strength) * SPEED * width / fastest)


def pixel_grid(size: tuple[int, int]) -> np.ndarray:
    """(2, H, W) float64: the position of every pixel, x before y."""
    height, width = size
    x = np.arange(width, dtype=np.float64)
    y = np.arange(height, dtype=np.float64)
    return np.stack(np.meshgrid(x, y))


def sample(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """frame (H, W, 3) uint8 at points (2, H, W): linear interpolation, reflected outside."""
    cv2 = opencv()
    x, y = points.astype(np.float32)
    return cv2.remap(frame, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def sample_label(label: np.ndarray, points: np.ndarray) -> np.ndarray:
    """label (H, W) uint8 at points (2, H, W): the nearest pixel, 255 outside."""
    cv2 = opencv()
    x, y = points.astype(np.float32)
    constant = cv2.BORDER_CONSTANT
    return cv2.remap(label, x, y, cv2.INTER_NEAREST, borderMode=constant, borderValue=IGNORE)
