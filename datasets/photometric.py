"""Colour and sharpness of frames; labels and flows pass unchanged. All of it is OpenCV's arithmetic."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .clip import RawClip
from .opencv import opencv


@dataclass(frozen=True)
class RandomBlur:
    """A Gaussian of 5x5 pixels over all frames of the clip, with probability p (ETC: 0.5)."""

    p: float = 0.5

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        if rng.random() >= self.p:
            return clip
        return clip._replace(
            frames=[opencv().GaussianBlur(frame, (5, 5), 0) for frame in clip.frames]
        )


class Distortion(NamedTuple):
    """What was drawn for a frame; None where the coin said no."""

    brightness: float | None = None  # added
    contrast: float | None = None  # factor
    contrast_first: bool = True  # before saturation and hue, or after them
    saturation: float | None = None  # factor
    hue: int | None = None  # added, in OpenCV's steps of 2 degrees


def draw_distortion(rng: random.Random) -> Distortion:
    """Each part with probability 1/2, drawn in the order of TMANet and VSS-MRCFA."""

    def maybe(draw, low, high):
        return draw(low, high) if rng.random() < 0.5 else None

    brightness = maybe(rng.uniform, -32, 32)
    contrast_first = rng.random() < 0.5
    contrast = maybe(rng.uniform, 0.5, 1.5) if contrast_first else None
    saturation = maybe(rng.uniform, 0.5, 1.5)
    hue = maybe(rng.randrange, -18, 18)
    if not contrast_first:
        contrast = maybe(rng.uniform, 0.5, 1.5)
    return Distortion(brightness, contrast, contrast_first, saturation, hue)


def distort(frame: np.ndarray, drawn: Distortion) -> np.ndarray:
    """frame (H, W, 3) uint8 RGB -> the same; every step is clipped and truncated to whole numbers, as published."""
    cv2 = opencv()
    if drawn.brightness is not None:
        frame = linear(frame, 1, drawn.brightness)
    if drawn.contrast is not None and drawn.contrast_first:
        frame = linear(frame, drawn.contrast, 0)
    if drawn.saturation is not None:
        hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = linear(hsv[..., 1], drawn.saturation, 0)
        frame = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if drawn.hue is not None:
        hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + drawn.hue) % 180
        frame = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if drawn.contrast is not None and not drawn.contrast_first:
        frame = linear(frame, drawn.contrast, 0)
    return frame


def linear(array: np.ndarray, factor: float, offset: float) -> np.ndarray:
    return np.clip(array.astype(np.float32) * factor + offset, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Photometric:
    """Random brightness, contrast, saturation and hue; each frame draws its own, as published, or all share one."""

    shared: bool = False

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        drawn = draw_distortion(rng)
        frames = [distort(clip.frames[0], drawn)]
        frames += [
            distort(frame, drawn if self.shared else draw_distortion(rng))
            for frame in clip.frames[1:]
        ]
        return clip._replace(frames=frames)
