"""Images of any kind as 8-bit RGB, the way a viewer shows them.

Data sets read their images by datasets/files.py instead, which keeps frames aligned with labels.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from ..files import UNREADABLE
from .foreign import foreign_kind
from .names import printable

BLACK = (0, 0, 0, 255)  # RGBA
# of an image: a damaged header must not make us allocate all memory
MAX_PIXELS = 300_000_000
# Pillow refuses twice this number; it would warn of sizes between the two, which are read
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Formats whose further pages are frames. Those of a JPEG are previews of the same picture.
ANIMATIONS = ("WEBP", "PNG", "GIF", "AVIF")
SEQUENCES = ("TIFF", *ANIMATIONS)
# milliseconds: a frame that asks for less than the first is shown as long as the second
MIN_DURATION = 11
DEFAULT_DURATION = 100
# what Pillow raises on top where it trusts the fields of a damaged file
DAMAGED = (*UNREADABLE, TypeError, LookupError, ArithmeticError)
# tag of a TIFF's page, and its bits
NEW_SUBFILE_TYPE = 254
REDUCED = 1
MASK = 4


class Contents(NamedTuple):
    """What an image file holds."""

    pages: int  # that are frames
    more: bool  # whether pictures follow that are not read


def contents_of(path: Path) -> Contents:
    """By the header alone; of a file that cannot be read one page, so that reading it tells."""
    try:
        with Image.open(path) as image:
            return Contents(len(_pages(image)), _has_more(image, path))
    except DAMAGED:
        return Contents(1, False)


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as EXIF says, transparency on black, 16 bits scaled to 8.

    Of several pages the first. FileNotFoundError where there is no such file, PermissionError where
    it may not be read; ValueError where it is damaged, too large, or no image.
    """
    with Pages(path) as pages:
        return pages.read(0)


class Pages:
    """The pages of an image file in their order.

    The file stays open, because a page of an animation builds on the one before: to begin anew for
    each page would take the square of their number.
    """

    def __init__(self, path: Path):
        """Errors as `read_image`."""
        self.path = path
        with _told(path):
            self._image = Image.open(path)
            self._numbers = _pages(self._image)

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB. Errors as `read_image`; they name the page if there are several."""
        with self._at(index):
            return _to_rgb(ImageOps.exif_transpose(self._image))

    def seconds(self, index: int) -> float | None:
        """How long a page is shown; None where the file is no animation. Errors as `read`."""
        if self._image.format not in ANIMATIONS:
            return None
        with self._at(index):
            # some formats tell it with the pixels
            self._image.load()
        milliseconds = self._image.info.get("duration", 0)
        if milliseconds < MIN_DURATION:
            milliseconds = DEFAULT_DURATION
        return milliseconds / 1000

    @contextmanager
    def _at(self, index: int) -> Iterator[None]:
        """The page is at hand; errors name it if there are several."""
        place = ""
        if len(self) > 1:
            place = f"page {index + 1} of {len(self)}"
        with _told(self.path, place):
            if self._image.tell() != self._numbers[index]:
                self._image.seek(self._numbers[index])
            yield

    def __enter__(self) -> Pages:
        return self

    def __exit__(self, *error) -> None:
        self._image.close()


def first_duration(path: Path) -> float | None:
    """Seconds for which an animation shows its first frame, None where there is none to tell."""
    try:
        with Pages(path) as pages:
            return pages.seconds(0)
    except (OSError, ValueError):
        # told when the frame is read as one
        return None


def _pages(image: Image.Image) -> list[int]:
    """Numbers of the pages that are frames."""
    if image.format not in SEQUENCES:
        return [0]
    pages = range(getattr(image, "n_frames", 1))
    if image.format != "TIFF" or len(pages) == 1:
        return list(pages)
    # of a picture that is stored in several sizes only the largest is a frame
    frames = [page for page in pages if not _is_reduced(image, page)]
    image.seek(0)
    return frames or [0]


def _has_more(image: Image.Image, path: Path) -> bool:
    """Whether further pictures follow the one that is read: previews, depth, images in a row."""
    if image.format == "MPO":
        return image.n_frames > 1
    if image.format != "PPM" or image.mode != "RGB" or image.tile[0][0] != "raw":
        return False
    # 8 bits a value; an image in a row with others begins with a header of at least as many bytes
    end = image.tile[0][2] + image.width * image.height * 3
    return path.stat().st_size > end + len(b"P6 1 1 255 ")


def _is_reduced(image: Image.Image, page: int) -> bool:
    """Whether a page of a TIFF is a preview or a mask of another page."""
    image.seek(page)
    return bool(image.tag_v2.get(NEW_SUBFILE_TYPE, 0) & (REDUCED | MASK))


@contextmanager
def _told(path: Path, place: str = "") -> Iterator[None]:
    """Errors of Pillow in words that name the file. place: which part of it, "" for all of it."""
    name = printable(str(path))
    try:
        yield
    except FileNotFoundError as error:
        # an OSError too, but not a damaged file
        raise FileNotFoundError(
            f"there is no {name}: was it moved, or is it a link to what was?"
        ) from error
    except PermissionError as error:
        raise PermissionError(f"{name} may not be read: change its permissions") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} has {_too_many(error)}: make it smaller") from error
    except DAMAGED as error:
        kind = foreign_kind(path)
        if kind:
            raise ValueError(f"{name} is {kind}, whatever its name says") from error
        # Pillow's words name the file again
        reason = re.sub(r" (?:image )?file '.*'", "", str(error)) or type(error).__name__
        reason = ": ".join(filter(None, (place, reason)))
        raise ValueError(
            f"{name} cannot be read as an image ({reason}): is it damaged or cut short?"
        ) from error


def _too_many(error: Image.DecompressionBombError) -> str:
    """How many pixels an image has, and how many are read."""
    limit = f"{2 * Image.MAX_IMAGE_PIXELS / 1e6:g} million"
    # "Image size (N pixels) exceeds limit of ..."
    stated = re.search(r"\d+", str(error))
    if not stated:
        return f"more than the {limit} pixels that are read"
    return f"{int(stated[0]) / 1e6:.1f} million pixels, more than the {limit} that are read"


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
