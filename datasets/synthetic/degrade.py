"""What a cheap camera does to a frame: noise, motion blur, flicker and short sensor dropouts.

Half of the rides are by night, which a camera brightens until its noise is strong: that, not the
colour of the light, is what night means here. All of it changes colours only, never labels or flow.
It depends on the video's seed and the frame alone, so frames may be asked for in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from ..opencv import opencv
from .dropout import LONGEST, Dropout

START = 0.06  # chance that a dropout starts at a frame, at strength 1
DAY = (1.5, 8)  # standard deviation of noise, in grey levels
NIGHT = (21, 35)
# pixels: noise is coarse too once a camera has interpolated colours and compressed
GRAIN = (1, 2, 4, 8)
TAPS = 5  # samples along the path of motion blur
FARTHEST = 0.05  # of the width, half the path of motion blur: beyond, single samples show as ghosts
MARGIN = 64  # pixels by which the noise field is larger than a frame

# streams of random numbers, each with a generator of its own
VIDEO = 10
FLICKER = 11
FAILURE = 12
FRAME = 13
IS_NIGHT = 14
NIGHT_NOISE = 15


class Effects(NamedTuple):
    """What happens to one frame."""

    gain: np.ndarray  # (3,): flicker of brightness and colour
    noise: float  # standard deviation in grey levels
    shutter: float  # part of the frame interval it stays open: how far motion blurs
    dropout: Dropout | None


class Degradation:
    """The effects of one video. Each strength scales its effect: 1 is moderate, 0 leaves it out.

    Raises ValueError for a negative strength.
    """

    def __init__(
        self,
        seed: int,
        noise: float = 1.0,
        blur: float = 1.0,
        flicker: float = 1.0,
        dropout: float = 1.0,
    ):
        if min(noise, blur, flicker, dropout) < 0:
            raise ValueError(
                f"strengths must not be negative, got {noise=}, {blur=}, {flicker=}, {dropout=}"
            )
        self.seed = seed
        self.dropout = dropout
        rng = self.stream(VIDEO)
        self.noise = noise * rng.uniform(*DAY)
        if self.stream(IS_NIGHT).random() < 0.5:
            self.noise = noise * self.stream(NIGHT_NOISE).uniform(*NIGHT)
        self.focus = blur * rng.uniform(0.35, 0.75)  # pixels: no lens is perfectly sharp
        # none for two videos of five
        self.shutter = blur * max(rng.uniform(-0.4, 0.6), 0)
        self.swing = flicker * rng.uniform(0, 0.2)  # slow, regular
        self.jitter = flicker * rng.uniform(0, 0.04)  # from frame to frame
        self.period = rng.uniform(4, 40)  # frames
        self.phase = rng.uniform(0, 2 * np.pi)

    def stream(self, *key: int) -> Generator:
        """The random numbers of one purpose, or of one purpose and frame."""
        return np.random.default_rng((self.seed, *key))

    def effects(self, t: int) -> Effects:
        """The effects on frame t."""
        rng = self.stream(FLICKER, t)
        angle = 2 * np.pi * t / self.period + self.phase
        swing = self.swing * np.sin(angle)
        # of brightness, and less of each colour
        jitter = self.jitter * (rng.standard_normal() + 0.4 * rng.standard_normal(3))
        gain = 1 + swing + jitter
        return Effects(gain.clip(0.3, 1.7), self.noise, self.shutter, self.failure(t))

    def failure(self, t: int) -> Dropout | None:
        """The dropout that hits frame t: the latest one that started and still lasts."""
        for age in range(min(LONGEST, t + 1)):
            rng = self.stream(FAILURE, t - age)
            starts = rng.random() < START * self.dropout
            if starts and rng.integers(1, LONGEST + 1) > age:
                return Dropout.draw(rng)
        return None

    def apply(self, image: np.ndarray, t: int, flow: Callable[[], np.ndarray]) -> np.ndarray:
        """Frame t as the camera delivers it: image (H, W, 3) uint8 -> the same.

        flow: called if motion blur needs it; gives the motion over one frame interval, (2, H, W) in
        pixels.
        """
        cv2 = opencv()
        effects = self.effects(t)
        rng = self.stream(FRAME, t)
        if effects.shutter:
            image = smear(image, flow() * np.float32(effects.shutter))
        if self.focus:
            image = cv2.GaussianBlur(image, (0, 0), self.focus)
        if effects.dropout:
            image = effects.dropout.apply(image, rng)
        grain = effects.noise * grain_of(image.shape[:2], rng)
        degraded = image * effects.gain.astype(np.float32) + grain
        return np.clip(degraded, 0, 255).astype(np.uint8)


def smear(image: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Mean of the image along `motion` (2, H, W), half of it before and half after each pixel."""
    cv2 = opencv()
    height, width = image.shape[:2]
    x = np.arange(width, dtype=np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    motion = motion.clip(-FARTHEST * width, FARTHEST * width)
    total = np.zeros(image.shape, np.uint16)  # holds TAPS times 255
    for share in np.linspace(-0.5, 0.5, TAPS, dtype=np.float32):
        total += cv2.remap(
            image,
            x + share * motion[0],
            y + share * motion[1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return (total // TAPS).astype(np.uint8)


@lru_cache(maxsize=2)
def noise_field(size: tuple[int, int]) -> np.ndarray:
    """Noise of unit variance for frames of size (H, W): (H + MARGIN, W + MARGIN, 3) float32.

    The sum of normal noise of all sizes of GRAIN. It is made once: drawing it anew would cost more
    than the frame.
    """
    cv2 = opencv()
    rng = np.random.default_rng(size)
    height = size[0] + MARGIN
    width = size[1] + MARGIN
    total = np.zeros((height, width, 3), np.float32)
    for grain in GRAIN:
        shape = (height // grain + 2, width // grain + 2, 3)
        coarse = rng.standard_normal(shape).astype(np.float32)
        fine = cv2.resize(coarse, None, fx=grain, fy=grain, interpolation=cv2.INTER_CUBIC)
        total += fine[:height, :width]
    return total / total.std()


def grain_of(size: tuple[int, int], rng: Generator) -> np.ndarray:
    """(H, W, 3) float32 of unit noise: a random window of the field, in a random direction."""
    height, width = size
    top, left = rng.integers(0, MARGIN + 1, 2)
    window = noise_field(size)[top : top + height, left : left + width]
    # mirrored, channels swapped, sign changed: frames that share a window differ nevertheless
    down = rng.choice([-1, 1])
    right = rng.choice([-1, 1])
    channels = rng.permutation(3)
    return window[::down, ::right, channels] * rng.choice([-1, 1])
