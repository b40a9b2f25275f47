"""PPM (P6) images one after another, as ffmpeg -f image2pipe -c:v ppm writes them.

P6 WIDTH HEIGHT MAXIMUM     white space between the words and one behind them; # begins a comment
R G B R G B ...             row by row, a byte a value, or two (high byte first) where MAXIMUM is above 255
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from .images import scale_to_8

MAX_PIXELS = 1 << 28  # of an image: its header is not to be trusted with our memory


def read_ppm(fill: Callable[[memoryview], int]) -> Callable[[], np.ndarray] | None:
    """What decodes the next image to (H, W, 3) uint8 RGB, or None at the end.

    fill: reads until its buffer is full or nothing more comes -> bytes read. EOFError: the end came inside the
    image; ValueError: it is no P6 image, or too large.
    """
    tokens = [_token(fill)]
    if not tokens[0]:
        return None
    if tokens[0] == b"P6":
        tokens += [_token(fill) for _ in range(3)]
    if not tokens[-1]:
        raise EOFError
    numbers = [int(token) for token in tokens[1:] if token.isdigit()]
    width, height, maximum = numbers if len(numbers) == 3 else (0, 0, 0)
    if not (0 < maximum < 65536 and 0 < width * height <= MAX_PIXELS):
        raise ValueError(
            f"standard input must carry PPM (P6) images, got {b' '.join(tokens)!r}: pipe them with "
            "ffmpeg -i in.mp4 -f image2pipe -c:v ppm -"
        )
    data = np.empty((height, width, 3), np.uint8 if maximum < 256 else ">u2")
    if fill(memoryview(data.reshape(-1).view(np.uint8))) < data.nbytes:
        raise EOFError
    return partial(scale_to_8, data, maximum)


def _token(fill: Callable[[memoryview], int]) -> bytes:
    """The next word of a header (16 bytes of it) and the one white space behind it; b"" at the end."""
    token, byte, comment = b"", bytearray(1), False
    while len(token) < 16:
        if not fill(memoryview(byte)):
            if token:
                raise EOFError
            break
        comment = byte != b"\n" if comment else byte == b"#"
        if token and byte.isspace() and not comment:
            break
        token += b"" if comment else byte.strip()
    return token
