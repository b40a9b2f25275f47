"""A past for frames that have none: the labelled frame itself, moved as by a driving camera.

Trains methods with memory where labels are dense in space but sparse in time (CamVid's are a second apart): the
motion between the frames of such a clip is known exactly, and so are the labels of all of them.
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
WAVES = 2
STEPS = 12  # of the inversion: motions are smooth, so they suffice for 1e-6 pixels


@dataclass(frozen=True, eq=False)
class Motion:
    """Where a point p of one frame lies in the next: p + u(p), in pixels, x before y, for any point of the plane.

    u(p) = matrix (p - centre) + shift + the sum over waves of amplitude * sin(frequency . p + phase)
    """

    centre: np.ndarray  # (2,) the vanishing point
    matrix: np.ndarray  # (2, 2) zoom and rotation about it
    shift: np.ndarray  # (2,)
    waves: tuple[tuple[np.ndarray, np.ndarray, float], ...]  # amplitude (2,), frequency (2,), phase

    def velocity(self, points: np.ndarray) -> np.ndarray:
        """u at points (2, H, W) -> (2, H, W)."""
        offset = self.shift - self.matrix @ self.centre
        result = np.einsum("ij,jyx->iyx", self.matrix, points) + offset[:, None, None]
        for amplitude, frequency, phase in self.waves:
            result += amplitude[:, None, None] * np.sin(
                np.einsum("j,jyx->yx", frequency, points) + phase
            )
        return result

    def next(self, points: np.ndarray) -> np.ndarray:
        """Points (2, H, W) of one frame -> where they lie in the next."""
        return points + self.velocity(points)

    def before(self, points: np.ndarray) -> np.ndarray:
        """The inverse of `next`: where points (2, H, W) of one frame lay in the frame before it."""
        past = points
        for _ in range(STEPS):
            past = points - self.velocity(past)
        return past

    def scaled(self, factor: float) -> Motion:
        """The same motion at another speed."""
        return Motion(
            self.centre,
            self.matrix * factor,
            self.shift * factor,
            tuple((amplitude * factor, *wave) for amplitude, *wave in self.waves),
        )


def draw_motion(size: tuple[int, int], rng: random.Random) -> Motion:
    """A drive forward through a frame of size (H, W), with some turn, pitch, roll and unevenness, at any speed."""
    height, width = size
    zoom, roll = rng.uniform(0.2, 1), rng.uniform(-0.2, 0.2)
    waves = []
    for _ in range(WAVES):
        direction, length = rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 1) * width
        frequency = np.array([math.cos(direction), math.sin(direction)]) * (2 * math.pi / length)
        waves.append(
            (
                np.array([rng.uniform(-0.15, 0.15), rng.uniform(-0.15, 0.15)]),
                frequency,
                rng.uniform(0, 2 * math.pi),
            )
        )
    return Motion(
        np.array([rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.6) * height]),
        np.array([[zoom, -roll], [roll, zoom]]) / (width / 2),
        np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.2, 0.2)]),
        tuple(waves),
    )


@dataclass(frozen=True)
class SyntheticPast:
    """With probability p: all past frames of a clip become warps of its labelled (last) frame.

    Each step back in the clip undoes one and the same motion: a drive towards a vanishing point, so older frames show
    things smaller. The pixel that moves most moves by up to strength * 16 pixels per step in a frame 480 wide, drawn
    uniformly from 0. What lies outside the labelled frame is its reflection, its label 255. A clip of the labelled
    frame alone stays as it is.
    """

    p: float
    strength: float = 1.0

    def __post_init__(self):
        if not (0 <= self.p <= 1 and 0 <= self.strength <= 2):
            raise ValueError(
                f"a warped past has a probability of 0 to 1 and a strength of 0 to 2, got {self.p} and "
                f"{self.strength}"
            )

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        if len(clip.frames) == 1 or rng.random() >= self.p:
            return clip
        frame, label = clip.frames[-1], clip.labels[-1]
        height, width = frame.shape[:2]
        grid = np.stack(
            np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
        )
        motion = draw_motion((height, width), rng)
        fastest = np.hypot(*motion.velocity(grid)).max()
        motion = motion.scaled(rng.uniform(0, self.strength) * SPEED * width / fastest)
        frames, labels, points = [frame], [label], grid
        for _ in clip.frames[1:]:
            points = motion.next(
                points
            )  # of the labelled frame, for each pixel of one frame more ago
            frames.append(sample(frame, points))
            labels.append(None if label is None else sample_label(label, points))
        flows = (
            None
            if clip.flows is None
            else [(motion.before(grid) - grid).astype(np.float32)] * len(clip.flows)
        )
        return RawClip(frames[::-1], labels[::-1], flows)


def sample(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """frame (H, W, 3) uint8 at points (2, H, W): linearly, reflected outside."""
    cv2 = opencv()
    x, y = points.astype(np.float32)
    return cv2.remap(frame, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def sample_label(label: np.ndarray, points: np.ndarray) -> np.ndarray:
    """label (H, W) uint8 at points (2, H, W): the nearest, 255 outside."""
    cv2 = opencv()
    x, y = points.astype(np.float32)
    return cv2.remap(
        label, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORE
    )
