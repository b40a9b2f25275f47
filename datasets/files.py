"""Videos that lie on the disk as one image file per frame, and the reading of such files.

A data set on disk only lists paths (camvid.py, cityscapes.py, folder.py); FileVideo reads them.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from .labels import IGNORE

SUFFIXES = (".png", ".jpg", ".jpeg")

# what Pillow raises for a file that is empty, cut short or no image at all
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def natural_key(path: Path) -> list:
    """Sorts frame2 before frame10."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if part.isdecimal() else part for part in parts]


def list_images(folder: Path) -> dict[str, Path]:
    """The images in `folder` by stem, in natural order.

    ValueError where two files share a stem: a.png, a.jpg.
    """
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=natural_key):
        # a Mac leaves a hidden ._1.png beside 1.png
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in images:
            raise ValueError(
                f"{images[path.stem]} and {path.name} are one frame twice: remove one of them"
            )
        images[path.stem] = path
    return images


def open_image(path: Path, decode: bool = True) -> Image.Image:
    """The decoded image, or its header alone.

    FileNotFoundError where there is no such file, ValueError where it is no image.
    """
    try:
        with Image.open(path) as image:
            if decode:
                image.load()
            return image
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist") from error
    except UNREADABLE as error:
        raise ValueError(
            f"{path} cannot be read as an image ({error}): is the file complete?"
        ) from error


def image_size(path: Path) -> tuple[int, int]:
    """(H, W), from the header alone."""
    image = open_image(path, decode=False)
    return image.height, image.width


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of any 8- or 16-bit image; alpha is dropped.

    The EXIF orientation is not applied: labels carry none, and the two must stay aligned.
    """
    image = open_image(path)
    if has_deep_pixels(image):
        raise ValueError(f"{path} has more than 16 bits a channel: save it with 8")
    if image.mode.startswith("I"):
        # 16-bit grey: the high byte, which is what Pillow itself takes of 16-bit RGB
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.array(image.convert("RGB"))


def has_deep_pixels(image: Image.Image) -> bool:
    """Whether a pixel does not fit 16 bits."""
    if image.mode == "F":
        return True
    # mode I has 32 bits, but Pillow also uses it for files of 16
    return image.mode == "I" and bool((np.asarray(image) >> 16).any())


def read_label(path: Path) -> np.ndarray:
    """(H, W) uint8: the class ids of a grey or palette image. ValueError where it holds none."""
    image = open_image(path)
    # the pixels of a palette image are the ids, its colours are for people
    if image.mode not in ("L", "P") and not image.mode.startswith("I"):
        raise ValueError(
            f"the label {path} has mode {image.mode}, expected one class id a pixel (8-bit grey or "
            "palette): turn its colours into class ids"
        )
    ids = np.asarray(image)
    if ids.max(initial=0) > IGNORE or ids.min(initial=0) < 0:
        raise ValueError(
            f"the label {path} holds the id {ids.max()}, expected 0 to {IGNORE}: is it an instance "
            "map?"
        )
    return ids.astype(np.uint8)


@dataclass(frozen=True, eq=False)
class FileVideo:
    """A video of image files (protocol: clip.Video).

    frames and labels run in parallel; a frame without a label has None. remap: a table of 256 ids
    that is applied to labels when they are read; the new ids must be below num_classes, or 255.
    gaps: the number of places where the list skips frames, so that an offset of one step reaches
    further back than a step.
    """

    name: str
    frames: Sequence[Path]
    labels: Sequence[Path | None]
    fps: float | None = None
    remap: np.ndarray | None = None
    num_classes: int = field(kw_only=True)
    gaps: int = field(default=0, kw_only=True)

    def __post_init__(self):
        if not self.frames or len(self.frames) != len(self.labels):
            raise ValueError(
                f"video {self.name} has {len(self.frames)} frames and {len(self.labels)} labels, "
                "expected at least one frame and a label or None for each"
            )
        if self.remap is not None and self.remap.shape != (256,):
            raise ValueError(f"a label table has 256 entries, got {self.remap.shape}")

    def __len__(self) -> int:
        return len(self.frames)

    @cached_property
    def labelled(self) -> tuple[int, ...]:
        """Indices of the frames that have a label."""
        return tuple(i for i, label in enumerate(self.labels) if label is not None)

    def frame_name(self, index: int) -> str:
        return self.frames[index].stem

    def frame(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return read_rgb(self.frames[index])

    def label(self, index: int) -> np.ndarray:
        """(H, W) uint8 class ids, 255 = ignore.

        ValueError: the frame has no label, one of another size, or one with an unknown id.
        """
        path = self.labels[index]
        if path is None:
            raise ValueError(f"frame {index} of video {self.name} has no label")
        raw = read_label(path)
        require_size(path, raw.shape, self.frames[index])
        label = raw
        if self.remap is not None:
            label = self.remap[raw]
        wrong = (label >= self.num_classes) & (label != IGNORE)
        if wrong.any():
            # the id as it is in the file, where the user will look for it
            raise ValueError(
                f"the label {path} holds the id {raw[wrong].max()}, which is none of the "
                f"{self.num_classes} classes nor {IGNORE} (ignore): check the label set or map "
                "the id"
            )
        return label

    def flow(self, index: int, other: int) -> np.ndarray | None:
        """None: files carry no optical flow."""
        return None


def require_size(label: Path, size: tuple[int, int], frame: Path) -> None:
    """ValueError where a label of size (H, W) lies on another grid than its frame."""
    height, width = image_size(frame)
    if size == (height, width):
        return
    hint = ""
    if size == (width, height):
        hint = " (a rotation by EXIF is not applied to frames that have labels)"
    raise ValueError(
        f"the label {label} is {size[0]}x{size[1]} (HxW), but its frame {frame} is "
        f"{height}x{width}: give both one size{hint}"
    )
