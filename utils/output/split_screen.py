"""Two runs in one picture, divided by a slanted line that moves slowly to and fro.

    lower left      another run: its label PNGs are read frame by frame
    upper right     this run

As in the demonstration of ETC (Liu et al., ECCV 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .pictures import BAND, TEXT, fit_font, only, overlay

PERIOD = 16.0  # seconds from the middle to the right, to the left and back
REACH = 0.25  # of the width, to either side of the middle
SLANT = 0.35  # columns to the right a row further down
LINE = (255, 255, 255)
SHARE = 0.4  # of the width that a caption may take


class OtherLabels:
    """The label PNGs that another inference has left of the same source."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def __len__(self) -> int:
        return sum(not path.name.startswith(".") for path in self.folder.glob("*.png"))

    def read(self, name: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Labels (H, W) of a frame and the palette of their file, if it has one.

        FileNotFoundError: no such frame. ValueError: another size, or no label PNG.
        """
        path = self.folder / f"{name}.png"
        try:
            with Image.open(path) as image:
                labels = np.array(image)
                colours = image.getpalette("RGB")
        except FileNotFoundError:
            raise FileNotFoundError(
                f"--compare-with: {self.folder} has no {name}.png: label both runs with the same "
                "--frame-step, and no fewer frames there"
            ) from None
        except OSError as error:
            raise ValueError(f"--compare-with: {path} cannot be read: {error}") from error
        if labels.dtype != np.uint8 or labels.shape != tuple(size):
            found = "x".join(map(str, labels.shape))
            raise ValueError(
                f"--compare-with: {path} is {found}, the frame {size[0]}x{size[1]} (HxW): label "
                "the same source in both runs"
            )
        return labels, None if colours is None else np.array(colours, np.uint8).reshape(-1, 3)


class SplitScreen:
    """The pictures of one source."""

    def __init__(
        self,
        others: OtherLabels,
        captions: tuple[str, str],
        palette,
        *,
        alpha: float,
        fps: float,
        shown: Sequence[int] | None = None,
    ):
        """captions: of the other run and of this one. shown: the classes that are shown; None: all.

        fps: says how far the line has come in a frame whose time is not known.
        """
        self.others = others
        self.captions = captions
        self.palette = np.asarray(palette, np.uint8)
        self.alpha = alpha
        self.fps = fps
        self.shown = shown
        self.count = 0

    def draw(
        self, image: np.ndarray, name: str, labels: np.ndarray, time: float | None = None
    ) -> np.ndarray:
        """image (H, W, 3) uint8 of the next frame and what this run labels it -> (H, W, 3)."""
        seconds = self.count / self.fps if time is None else time
        self.count += 1
        theirs = self.coloured(image, *self.others.read(name, image.shape[:2]))
        ours = self.coloured(image, labels, self.palette)
        picture = divided(theirs, ours, seconds)
        caption(picture, self.captions[0], lower_left=True)
        caption(picture, self.captions[1], lower_left=False)
        return picture

    def coloured(self, image: np.ndarray, labels: np.ndarray, palette) -> np.ndarray:
        """The picture of one side. The other run may have classes, and colours, of its own."""
        if palette is None:
            palette = self.palette
        known = np.array_equal(palette[: len(self.palette)], self.palette)
        if self.shown is not None and known:
            labels = only(labels, self.shown)
        return overlay(image, labels, palette, self.alpha)


def border(height: int, width: int, seconds: float) -> np.ndarray:
    """(H,): the column of the line in each row, fractional."""
    middle = width * (0.5 + REACH * math.sin(2 * math.pi * seconds / PERIOD))
    return middle + SLANT * (np.arange(height) - (height - 1) / 2)


def divided(left: np.ndarray, right: np.ndarray, seconds: float) -> np.ndarray:
    """Two pictures (H, W, 3) -> one, and the line between them."""
    height, width = left.shape[:2]
    # (H, W): how far a pixel lies to the right of the line
    beyond = np.arange(width) - border(height, width, seconds)[:, None]
    picture = np.where((beyond < 0)[..., None], left, right)
    picture[np.abs(beyond) <= max(width / 400, 1)] = LINE
    return picture


def caption(picture: np.ndarray, text: str, *, lower_left: bool) -> None:
    """Write into the lower left or the upper right corner of a picture (H, W, 3), in place."""
    height, width = picture.shape[:2]
    box = caption_box(text, height, width)
    tall, wide = box.shape[:2]
    margin = max(width // 80, 2)
    top, left = height - margin - tall, margin
    if not lower_left:
        top, left = margin, width - margin - wide
    # A picture of a few pixels has no room.
    if min(top, left) >= 0:
        picture[top : top + tall, left : left + wide] = box


@lru_cache
def caption_box(text: str, height: int, width: int) -> np.ndarray:
    """(h, w, 3) uint8: the text on a dark ground, for a picture of this size."""
    size = min(max(min(width // 36, height // 18), 11), 48)
    font = fit_font(text, size, int(SHARE * width))
    wide = math.ceil(font.getlength(text)) + size
    box = Image.new("RGB", (wide, round(1.6 * size)), BAND)
    ImageDraw.Draw(box).text((size / 2, box.height / 2), text, fill=TEXT, font=font, anchor="lm")
    return np.asarray(box)
