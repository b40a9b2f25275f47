"""Label maps as pictures: colours, overlays, error maps, strips with titles, legends, PNG files.

A picture is an array (H, W, 3) uint8, RGB; a palette (K, 3) uint8, the colour of class k in row k;
label maps are integers (H, W), 255 = no label. Pixels without a colour of their own (255, ids
beyond the palette) are black.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..files import write_bytes

IGNORE = 255
# error map; pixels without a label are black
RIGHT = (70, 70, 70)
WRONG = (255, 96, 64)
# behind and in titles and legends
BAND = (24, 24, 24)
TEXT = (235, 235, 235)
GAP = 4  # pixels between the pictures of a strip


def as_picture(frame: Tensor) -> np.ndarray:
    """frame (3, H, W) in [0, 1] -> (H, W, 3) uint8; values outside are clamped."""
    if frame.ndim != 3 or frame.shape[0] != 3 or not frame.is_floating_point():
        raise ValueError(
            f"a frame is a float tensor (3, H, W), got {frame.dtype} {tuple(frame.shape)}"
        )
    levels = frame.detach().clamp(0, 1).mul(255).round().byte()
    # Rounded where the frame is: a quarter of the bytes cross from a GPU.
    return levels.permute(1, 2, 0).contiguous().cpu().numpy()


def without_ignore(prediction: np.ndarray, classes: int) -> np.ndarray:
    """prediction (H, W) uint8 -> the same with 255 where a network has chosen "ignore".

    That output is one beyond the classes: as an id in a file it would look like one more class.
    """
    return np.where(prediction < classes, prediction, np.uint8(IGNORE))


def only(labels: np.ndarray, shown: Sequence[int]) -> np.ndarray:
    """labels (H, W) uint8 -> the same with 255 where a class is not shown."""
    table = np.full(256, IGNORE, np.uint8)
    table[list(shown)] = shown
    return table[labels]


def colourise(labels, palette) -> np.ndarray:
    """labels (H, W), palette (K, 3) -> (H, W, 3) uint8."""
    colours = colour_table(palette)
    ids = _ids(labels)
    if ids.size % 2:
        return colours.take(ids, axis=0)
    # Two neighbouring pixels are one number of 16 bits: half as many lookups.
    pairs = np.ascontiguousarray(ids).reshape(-1).view(np.uint16)
    return pair_table(colours.tobytes()).take(pairs, axis=0).reshape(*ids.shape, 3)


@lru_cache(maxsize=8)
def pair_table(colours: bytes) -> np.ndarray:
    """A colour_table as bytes -> (65536, 6) uint8: the colours of two neighbouring pixels."""
    pairs = np.arange(65536, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    return np.frombuffer(colours, np.uint8).reshape(-1, 3)[pairs].reshape(-1, 6)


def overlay(frame: np.ndarray, labels, palette, alpha: float = 0.5) -> np.ndarray:
    """frame (H, W, 3) uint8 with the classes' colours laid over it; `alpha` is their weight.

    Where a pixel has no colour the frame stays as it is.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be 0 (the frame) to 1 (the labels), got {alpha}")
    labels = _ids(labels)
    _check_picture(frame, labels.shape)
    # In whole numbers of 1/256: sums stay below 2^16 (255 * 256 + 128), and 128 rounds.
    weight = round(256 * alpha)
    frame_weights = np.full((256, 1), 256, np.uint16)
    frame_weights[: min(len(palette), IGNORE)] = 256 - weight
    colours = colour_table(palette).astype(np.uint16) * weight + 128
    mixed = frame * frame_weights.take(labels, axis=0) + colours.take(labels, axis=0)
    return (mixed >> 8).astype(np.uint8)


def error_map(labels, predictions) -> np.ndarray:
    """(H, W, 3): grey where the prediction is right, red where wrong, black without a label."""
    labels = _ids(labels)
    predictions = _ids(predictions)
    if labels.shape != predictions.shape:
        raise ValueError(
            f"labels {labels.shape} and predictions {predictions.shape} must have one size"
        )
    # 0: right, 1: wrong, 2: no label.
    kind = np.where(labels == IGNORE, np.uint8(2), labels != predictions)
    return np.array([RIGHT, WRONG, (0, 0, 0)], np.uint8).take(kind, axis=0)


def comparison(frame: np.ndarray, labels, predictions, palette) -> np.ndarray:
    """One strip: input, label, prediction, errors; all of one size."""
    _check_picture(frame, _ids(labels).shape)
    return side_by_side(
        frame,
        colourise(labels, palette),
        colourise(predictions, palette),
        error_map(labels, predictions),
        titles=("input", "label", "prediction", "errors"),
    )


def side_by_side(*images: np.ndarray, titles: Sequence[str] = ()) -> np.ndarray:
    """Pictures of one height in a row, each below its title if there are titles."""
    if not images or (titles and len(titles) != len(images)):
        raise ValueError(
            f"got {len(images)} pictures and {len(titles)} titles: give a title to each picture, "
            f"or none"
        )
    for image in images:
        _check_picture(image, (images[0].shape[0], image.shape[1]))
    if titles:
        images = [
            np.concatenate([_title(title, image.shape[1]), image])
            for title, image in zip(titles, images, strict=True)
        ]
    # A gap before each picture; the one before the first is cut off again.
    gap = np.full((images[0].shape[0], GAP, 3), BAND, np.uint8)
    row = [part for image in images for part in (gap, image)]
    return np.concatenate(row[1:], axis=1)


def legend(names: Sequence[str], palette, width: int = 960) -> np.ndarray:
    """(h, width, 3): a swatch and a name per class, in as many columns as fit; h follows."""
    colours = [tuple(int(value) for value in colour) for colour in np.asarray(palette)]
    if not names or len(names) != len(colours):
        raise ValueError(
            f"got {len(names)} names and {len(colours)} colours: a legend needs one colour per name"
        )
    font = _font(16)
    margin = 8
    swatch = 20
    line = 28
    cell = 3 * margin + swatch + max(int(np.ceil(font.getlength(name))) for name in names)
    columns = max(width // cell, 1)
    image = Image.new("RGB", (width, -(-len(names) // columns) * line + margin), BAND)
    draw = ImageDraw.Draw(image)
    for index, (name, colour) in enumerate(zip(names, colours, strict=True)):
        x = index % columns * cell + margin
        y = index // columns * line + margin
        draw.rectangle((x, y, x + swatch - 1, y + swatch - 1), fill=colour, outline=TEXT)
        draw.text((x + swatch + margin, y + swatch / 2), name, fill=TEXT, font=font, anchor="lm")
    return np.array(image)


def legend_of(labels, shown: Sequence[int] | None = None) -> np.ndarray:
    """The legend of a label set: of its classes `shown` in their order, None: of all."""
    ids = range(len(labels.names)) if shown is None else shown
    return legend([labels.names[k] for k in ids], [labels.palette[k] for k in ids])


def save_png(path: Path, image: np.ndarray) -> None:
    """Write a picture (H, W, 3), or grey values (H, W), uint8; the file appears as a whole."""
    image = np.asarray(image)
    has_colours = image.ndim == 3 and image.shape[2] == 3
    if image.dtype != np.uint8 or not (image.ndim == 2 or has_colours):
        raise ValueError(
            f"a picture is uint8 of shape (H, W, 3) or (H, W), got {image.dtype} {image.shape}"
        )
    _save(path, Image.fromarray(image))


def colour_table(palette) -> np.ndarray:
    """palette (K, 3) -> (256, 3) uint8: the colour of every id, black where there is none."""
    palette = np.asarray(palette)
    if palette.ndim != 2 or palette.shape[1] != 3 or len(palette) > 256:
        raise ValueError(f"a palette is (K, 3) with at most 256 colours, got {palette.shape}")
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    table[IGNORE] = 0  # even where a palette has 256 colours: 255 is no class
    return table


def _array(labels) -> np.ndarray:
    """A label map, tensor or array, as an array (H, W) of integers."""
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(f"a label map is (H, W) of integers, got {labels.dtype} {labels.shape}")
    return labels


def _ids(labels) -> np.ndarray:
    """A label map as uint8; ids that do not fit have no colour: 255."""
    labels = _array(labels)
    if labels.dtype == np.uint8:
        return labels
    return np.where((labels < 0) | (labels > 255), IGNORE, labels).astype(np.uint8)


def _check_picture(image: np.ndarray, size: tuple[int, int]) -> None:
    if image.dtype != np.uint8 or image.shape != (*size, 3):
        raise ValueError(
            f"expected a picture of {(*size, 3)} uint8, got {image.shape} {image.dtype}: "
            "resize or convert it first"
        )


def _save(path: Path, image: Image.Image) -> None:
    data = io.BytesIO()
    image.save(data, "png")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data.getvalue())


@lru_cache
def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)


def fit_font(text: str, size: int, width: int) -> ImageFont.ImageFont:
    """A font in which the text is no wider than `width` pixels, `size` pixels high at most."""
    while size > 6 and _font(size).getlength(text) > width:
        size -= 1
    return _font(size)


@lru_cache
def _title(text: str, width: int) -> np.ndarray:
    """A band (h, width, 3) with the text in its middle.

    Kept, because every frame of a video has the same titles.
    """
    size = min(max(width // 30, 11), 40)
    image = Image.new("RGB", (width, 2 * size), BAND)
    ImageDraw.Draw(image).text((width / 2, size), text, fill=TEXT, font=_font(size), anchor="mm")
    return np.asarray(image)
