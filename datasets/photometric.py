"""Colour and sharpness of frames; labels and flows pass unchanged. All arithmetic is OpenCV's."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .clip import RawClip
from .opencv import opencv

# the ranges of TMANet and VSS-MRCFA
BRIGHTNESS = 32  # the most that is added or subtracted, of 255
FACTORS = (0.5, 1.5)  # of contrast and of saturation
HUE = 18  # the most that is added or subtracted, in steps of 2 degrees


@dataclass(frozen=True)
class RandomBlur:
    """A Gaussian of 5x5 pixels over all frames of the clip, with probability p (ETC: 0.5)."""

    p: float = 0.5

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        if rng.random() >= self.p:
            return clip
        cv2 = opencv()
        # 0: OpenCV derives the standard deviation from the size
        frames = [cv2.GaussianBlur(frame, (5, 5), 0) for frame in clip.frames]
        return clip._replace(frames=frames)


class Distortion(NamedTuple):
    """What was drawn for a frame; None for a part that is left out."""

    brightness: float | None = None  # added
    contrast: float | None = None  # factor
    contrast_first: bool = True  # before saturation and hue, or after them
    saturation: float | None = None  # factor
    hue: int | None = None  # added, in OpenCV's steps of 2 degrees


def draw_distortion(rng: random.Random) -> Distortion:
    """Each part with probability 1/2, drawn in the order of TMANet and VSS-MRCFA."""

    def maybe(draw, low, high):
        if rng.random() < 0.5:
            return draw(low, high)
        return None

    brightness = maybe(rng.uniform, -BRIGHTNESS, BRIGHTNESS)
    contrast_first = rng.random() < 0.5
    contrast = None
    if contrast_first:
        contrast = maybe(rng.uniform, *FACTORS)
    saturation = maybe(rng.uniform, *FACTORS)
    # randrange never gives its upper end
    hue = maybe(rng.randrange, -HUE, HUE)
    if not contrast_first:
        contrast = maybe(rng.uniform, *FACTORS)
    return Distortion(brightness, contrast, contrast_first, saturation, hue)


def distort(frame: np.ndarray, drawn: Distortion) -> np.ndarray:
    """frame (H, W, 3) uint8 RGB -> the same, distorted.

    Every part is clipped and truncated to whole numbers, as published.
    """
    # fails here where OpenCV is missing, not only for those draws that need it
    opencv()
    if drawn.brightness is not None:
        frame = linear(frame, 1, drawn.brightness)
    if drawn.contrast is not None and drawn.contrast_first:
        frame = linear(frame, drawn.contrast, 0)
    if drawn.saturation is not None:
        frame = saturate(frame, drawn.saturation)
    if drawn.hue is not None:
        frame = turn_hue(frame, drawn.hue)
    if drawn.contrast is not None and not drawn.contrast_first:
        frame = linear(frame, drawn.contrast, 0)
    return frame


def saturate(frame: np.ndarray, factor: float) -> np.ndarray:
    """The saturation of frame (H, W, 3) uint8 RGB times a factor."""
    cv2 = opencv()
    hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
    hsv[..., 1] = linear(hsv[..., 1], factor, 0)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def turn_hue(frame: np.ndarray, steps: int) -> np.ndarray:
    """The hue of frame (H, W, 3) uint8 RGB turned by some steps of 2 degrees."""
    cv2 = opencv()
    hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
    # OpenCV stores 360 degrees as 0..179; int, because uint8 would wrap at 256
    hsv[..., 0] = (hsv[..., 0].astype(int) + steps) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def linear(array: np.ndarray, factor: float, offset: float) -> np.ndarray:
    """uint8 array -> array * factor + offset, clipped and truncated to uint8."""
    return np.clip(array.astype(np.float32) * factor + offset, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Photometric:
    """Random brightness, contrast, saturation and hue.

    Each frame draws its own, as published; with `shared` all frames of a clip share one draw.
    """

    shared: bool = False

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        drawn = draw_distortion(rng)
        frames = [distort(clip.frames[0], drawn)]
        for frame in clip.frames[1:]:
            if not self.shared:
                drawn = draw_distortion(rng)
            frames.append(distort(frame, drawn))
        return clip._replace(frames=frames)
