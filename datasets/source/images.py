"""Images of any kind as 8-bit RGB, the way a viewer shows them.

Data sets read their images by datasets/files.py instead, which keeps frames aligned with labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..files import UNREADABLE
from .foreign import foreign_kind

BLACK = (0, 0, 0, 255)  # RGBA
# Formats whose further pages are frames. Those of a JPEG are previews of the same picture.
SEQUENCES = ("TIFF", "WEBP", "PNG", "GIF", "AVIF")


def page_count(path: Path) -> int:
    """How many frames an image file holds; 1 where it cannot be read, which reading will tell."""
    try:
        with Image.open(path) as image:
            if image.format not in SEQUENCES:
                return 1
            return getattr(image, "n_frames", 1)
    except UNREADABLE:
        return 1


def read_image(path: Path, page: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as EXIF says, transparency on black, 16 bits scaled to 8.

    page: of a file that holds several. FileNotFoundError where there is no such file; ValueError
    where it is damaged, too large, or no image.
    """
    try:
        with Image.open(path) as image:
            if page:
                image.seek(page)
            return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        # an OSError too, but not a damaged file
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * Image.MAX_IMAGE_PIXELS // 10**6
        raise ValueError(
            f"{path} has more than the {limit} million pixels that are read: make it smaller"
        ) from error
    except UNREADABLE as error:
        kind = foreign_kind(path)
        if kind:
            raise ValueError(f"{path} is {kind}, whatever its name says") from error
        raise ValueError(
            f"{path} cannot be read as an image ({error}): is it damaged or cut short?"
        ) from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    """PIL image of any mode -> (H, W, 3) uint8."""
    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers, whose range is not known")
    # I, I;16, I;16B, ...: grey of more than 8 bits
    if image.mode.startswith("I"):
        return _grey_to_rgb(np.asarray(image))
    if image.has_transparency_data:
        background = Image.new("RGBA", image.size, BLACK)
        image = Image.alpha_composite(background, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    """(H, W) integers of 16 bits -> (H, W, 3) uint8."""
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError(f"its values {grey.min()} to {grey.max()} do not fit 16 bits")
    grey = scale_to_8(grey, 65535)
    return np.repeat(grey[..., None], 3, axis=2)  # (H, W, 3)


def scale_to_8(values: np.ndarray, maximum: int) -> np.ndarray:
    """Integers 0..maximum -> uint8 0..255, rounded."""
    if maximum == 255:
        return values
    # 65535 * 255 needs more than 16 bits; adding half of the divisor rounds to nearest
    scaled = (values.astype(np.uint32) * 255 + maximum // 2) // maximum
    # a PPM may hold values above its own maximum
    return scaled.clip(0, 255).astype(np.uint8)
