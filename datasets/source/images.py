"""Images of any kind as 8-bit RGB, the way a viewer shows them (data sets read theirs, with labels, by files.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..files import UNREADABLE


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as EXIF says, transparency on black, 16 bits scaled to 8; ValueError if damaged."""
    try:
        with Image.open(path) as image:
            return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise ValueError(
            f"{path} cannot be read as an image ({error}): is it damaged or cut short?"
        ) from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    """PIL image of any mode -> (H, W, 3) uint8."""
    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers, whose range is not known")
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"its values {grey.min()} to {grey.max()} do not fit 16 bits")
        return np.repeat(scale_to_8(grey, 65535)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = Image.alpha_composite(
            Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA")
        )
    return np.array(image.convert("RGB"))


def scale_to_8(values: np.ndarray, maximum: int) -> np.ndarray:
    """Integers 0..maximum -> uint8 0..255, rounded."""
    if maximum == 255:
        return values
    return (
        ((values.astype(np.uint32) * 255 + maximum // 2) // maximum).clip(0, 255).astype(np.uint8)
    )
