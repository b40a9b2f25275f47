"""What a cheap camera on a bad day does to a frame: noise, motion blur, flicker and short sensor
dropouts.

Half of the rides are by night, which a camera brightens until its noise is strong: that, not the
colour of the light, is what night means here. All of it changes colours only, never labels or flow,
and depends on the video's seed and the frame alone, so frames may be asked for in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..opencv import opencv

DROPOUTS = ("dark", "noisy", "blurred")
START = 0.06  # chance that a dropout starts at a frame, at strength 1
# standard deviation of noise, in grey levels
DAY = (1.5, 8)
NIGHT = (21, 35)
GRAIN = (
    1,
    2,
    4,
    8,
)  # pixels: noise is coarse too once a camera has interpolated colours and compressed
TAPS = 5  # samples along the path of motion blur
MARGIN = 64  # pixels by which the noise field is larger than a frame


class Dropout(NamedTuple):
    """A severe failure of the sensor: which kind, and where, as fractions of height and width."""

    kind: str
    rows: tuple[float, float]
    columns: tuple[float, float]


class Effects(NamedTuple):
    """What happens to one frame."""

    gain: np.ndarray  # (3,): flicker of brightness and colour
    noise: float  # standard deviation in grey levels
    shutter: float  # part of the frame interval it stays open: how far motion blurs
    dropout: Dropout | None


class Degradation:
    """The effects of one video. Each strength scales its effect: 1 is moderate, 0 leaves it out."""

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
        rng = np.random.default_rng((seed, 10))
        self.seed = seed
        self.dropout = dropout
        self.noise = noise * rng.uniform(*DAY)
        if np.random.default_rng((seed, 14)).random() < 0.5:
            self.noise = noise * np.random.default_rng((seed, 15)).uniform(*NIGHT)
        self.focus = blur * rng.uniform(0.35, 0.75)  # pixels: no lens is perfectly sharp
        self.shutter = blur * max(rng.uniform(-0.4, 0.6), 0)
        self.swing = flicker * rng.uniform(0, 0.2)
        self.jitter = flicker * rng.uniform(0, 0.04)
        self.period = rng.uniform(4, 40)
        self.phase = rng.uniform(0, 2 * np.pi)

    def effects(self, t: int) -> Effects:
        """Of frame t."""
        rng = np.random.default_rng((self.seed, 11, t))
        swing = self.swing * np.sin(2 * np.pi * t / self.period + self.phase)
        gain = 1 + swing + self.jitter * (rng.standard_normal() + 0.4 * rng.standard_normal(3))
        return Effects(gain.clip(0.3, 1.7), self.noise, self.shutter, self.failure(t))

    def failure(self, t: int) -> Dropout | None:
        """The dropout that hits frame t: the latest that began 0 to 2 frames ago and still lasts."""
        for age in range(min(3, t + 1)):
            rng = np.random.default_rng((self.seed, 12, t - age))
            if rng.random() < START * self.dropout and rng.integers(1, 4) > age:
                kind = rng.choice(DROPOUTS)
                where = rng.choice(["frame", "band", "block"])
                rows = columns = (0.0, 1.0)
                if where != "frame":
                    rows = span(rng, 0.2, 0.6)
                if where == "block":
                    columns = span(rng, 0.3, 0.7)
                return Dropout(str(kind), rows, columns)
        return None

    def apply(self, image: np.ndarray, t: int, flow: Callable[[], np.ndarray]) -> np.ndarray:
        """Frame t as the camera delivers it: image (H, W, 3) uint8 -> the same.

        flow: called if motion blur needs it, gives the motion over one frame interval, (2, H, W) in
        pixels.
        """
        cv2 = opencv()
        effects = self.effects(t)
        rng = np.random.default_rng((self.seed, 13, t))
        if effects.shutter:
            image = smear(image, flow() * np.float32(effects.shutter))
        if self.focus:
            image = cv2.GaussianBlur(image, (0, 0), self.focus)
        if effects.dropout:
            image = fail(image, effects.dropout, rng)
        grain = effects.noise * grain_of(image.shape[:2], rng)
        return np.clip(image * effects.gain.astype(np.float32) + grain, 0, 255).astype(np.uint8)


def span(rng: np.random.Generator, low: float, high: float) -> tuple[float, float]:
    """A random part of [0, 1], `low` to `high` long."""
    length = rng.uniform(low, high)
    start = rng.uniform(0, 1 - length)
    return start, start + length


def smear(image: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Mean of the image along `motion` (2, H, W), half of it before and half after each pixel."""
    cv2 = opencv()
    height, width = image.shape[:2]
    x = np.arange(width, dtype=np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    motion = motion.clip(
        -0.05 * width, 0.05 * width
    )  # farther, single samples would show as ghosts
    total = np.zeros(image.shape, np.uint16)
    for share in np.linspace(-0.5, 0.5, TAPS, dtype=np.float32):
        total += cv2.remap(
            image,
            x + share * motion[0],
            y + share * motion[1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return (total // TAPS).astype(np.uint8)


def fail(image: np.ndarray, dropout: Dropout, rng: np.random.Generator) -> np.ndarray:
    """The image with a dropout in its area."""
    cv2 = opencv()
    out = image.copy()
    area = tuple(
        slice(int(low * n), max(int(high * n), int(low * n) + 1))
        for (low, high), n in zip((dropout.rows, dropout.columns), image.shape, strict=False)
    )
    part = out[area]
    if dropout.kind == "dark":
        part[:] = part * rng.uniform(0.03, 0.2)
    elif dropout.kind == "noisy":
        noisy = part * rng.uniform(0.3, 0.8) + rng.normal(
            rng.uniform(10, 60), rng.uniform(40, 70), part.shape
        )
        part[:] = noisy.clip(0, 255)
    else:
        part[:] = cv2.GaussianBlur(part, (0, 0), max(image.shape[1] * rng.uniform(0.012, 0.03), 1))
    return out


@lru_cache(maxsize=2)
def noise_field(size: tuple[int, int]) -> np.ndarray:
    """Noise of unit variance somewhat larger than a frame, made once: drawing it anew would cost
    more than the frame.

    The sum of normal noise of all sizes of GRAIN.
    """
    cv2 = opencv()
    rng = np.random.default_rng(size)
    height = size[0] + MARGIN
    width = size[1] + MARGIN
    total = np.zeros((height, width, 3), np.float32)
    for grain in GRAIN:
        coarse = rng.standard_normal((height // grain + 2, width // grain + 2, 3)).astype(
            np.float32
        )
        total += cv2.resize(coarse, None, fx=grain, fy=grain, interpolation=cv2.INTER_CUBIC)[
            :height, :width
        ]
    return total / total.std()


def grain_of(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) float32 of unit noise: a random window of the field, in a random direction."""
    top, left = rng.integers(0, MARGIN + 1, 2)
    window = noise_field(size)[top : top + size[0], left : left + size[1]]
    return window[:: rng.choice([-1, 1]), :: rng.choice([-1, 1]), rng.permutation(3)] * rng.choice(
        [-1, 1]
    )
