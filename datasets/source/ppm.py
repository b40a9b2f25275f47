"""PPM (P6) images one after another, as ffmpeg -f image2pipe -c:v ppm writes them.

P6 WIDTH HEIGHT MAXIMUM     white space between the words and one behind them; # begins a comment
R G B R G B ...             row by row, a byte a value; two, high byte first, if MAXIMUM > 255
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from .images import MAX_PIXELS, scale_to_8

HOW = "ffmpeg -i in.mp4 -f image2pipe -c:v ppm -"
MAX_WORD = 16  # bytes of a word in a header

Fill = Callable[[memoryview], int]


def read_ppm(fill: Fill) -> Callable[[], np.ndarray] | None:
    """A function that decodes the next image to (H, W, 3) uint8 RGB, or None at the end.

    fill: reads until its buffer is full or nothing more comes -> bytes read. EOFError: the end came
    inside the image; ValueError: it is no P6 image, or too large.
    """
    words = _header(fill)
    if not words[0]:
        return None
    if not words[-1]:
        raise EOFError
    width, height, maximum = _numbers(words)
    data = np.empty((height, width, 3), _value_type(maximum))
    # the bytes of the array itself, so that they are read without a copy
    if fill(memoryview(data.reshape(-1).view(np.uint8))) < data.nbytes:
        raise EOFError
    return partial(scale_to_8, data, maximum)


def _header(fill: Fill) -> list[bytes]:
    """The four words of a P6 header, or the first word alone where it is not P6."""
    words = [_word(fill)]
    if words[0] == b"P6":
        words += [_word(fill) for _ in range(3)]
    return words


def _numbers(words: list[bytes]) -> tuple[int, int, int]:
    """Width, height and maximum of a header. ValueError where they are no possible ones."""
    numbers = [int(word) for word in words[1:] if word.isdigit()]
    if len(numbers) == 3:
        width, height, maximum = numbers
        if width * height > MAX_PIXELS:
            raise ValueError(
                f"standard input carries an image of {height}x{width} (HxW), more than the "
                f"{MAX_PIXELS // 10**6} million pixels that are read: make it smaller, "
                f"or pipe images as {HOW}"
            )
        if 0 < maximum < 65536 and width * height:
            return width, height, maximum
    raise ValueError(
        f"standard input must carry PPM (P6) images, got {b' '.join(words)!r}: pipe them with {HOW}"
    )


def _value_type(maximum: int) -> str:
    """The NumPy type of one value: a byte, or two with the high byte first."""
    if maximum < 256:
        return "u1"
    return ">u2"


def _word(fill: Fill) -> bytes:
    """The next word of a header, at most MAX_WORD bytes of it, with the one white space behind it.

    b"" at the end of the data; EOFError where the data ends inside the word.
    """
    word = b""
    byte = bytearray(1)
    in_comment = False
    while len(word) < MAX_WORD:
        if not fill(memoryview(byte)):
            if word:
                raise EOFError
            break
        # the newline ends the comment and counts as white space itself
        in_comment = byte != b"\n" if in_comment else byte == b"#"
        if in_comment:
            continue
        if word and byte.isspace():
            break
        word += byte.strip()
    return word
