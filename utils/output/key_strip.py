"""A strip below a video: which of the last frames were key frames, and why the last one was or was
not."""

from __future__ import annotations

from collections import deque

import numpy as np
from PIL import Image, ImageDraw

from ..keyframes import Decision
from .pictures import BAND, TEXT, fit_font

FRAMES = 120  # of the past that are shown
KEY = (255, 196, 0)
CUT = (255, 96, 64)
OTHER = (90, 90, 90)


class KeyStrip:
    """Remembers the last frames of one video; the newest one is at the right."""

    def __init__(self):
        self.past: deque[Decision] = deque(maxlen=FRAMES)

    def below(self, image: np.ndarray, decision: Decision) -> np.ndarray:
        """image (H, W, 3) uint8 of the next frame -> (H + h, W, 3) with the strip below it."""
        self.past.append(decision)
        return np.concatenate([image, self.draw(image.shape[1])])

    def draw(self, width: int) -> np.ndarray:
        """(h, width, 3) uint8: ticks, and a line of text below them; h follows from the width."""
        size = min(max(width // 40, 10), 32)  # of the text, in pixels
        ticks = 2 * size
        strip = Image.new("RGB", (width, ticks + 2 * size), BAND)
        draw = ImageDraw.Draw(strip)
        # Key frames last: in a narrow strip several frames share a column.
        numbered = sorted(enumerate(reversed(self.past)), key=lambda pair: pair[1].key)
        for back, decision in numbered:
            draw.rectangle(self.tick(back, width, ticks, decision), fill=colour(decision))
        words = text(self.past[-1])
        draw.text(
            (size // 2, ticks + size),
            words,
            fill=TEXT,
            font=fit_font(words, size, width - size),
            anchor="lm",
        )
        return np.asarray(strip)

    @staticmethod
    def tick(back: int, width: int, height: int, decision: Decision) -> tuple[int, ...]:
        """(left, top, right, bottom) of the frame so many frames back: tall for a key frame."""
        left = (FRAMES - 1 - back) * width // FRAMES
        right = (FRAMES - back) * width // FRAMES - 1
        # Where there is room, a pixel is left between two ticks.
        if right - left >= 2:
            right -= 1
        top = 2 if decision.key else height * 3 // 4
        return (left, top, max(right, left), height - 1)


def colour(decision: Decision) -> tuple[int, int, int]:
    if decision.cut:
        return CUT
    return KEY if decision.key else OTHER


def text(decision: Decision) -> str:
    """What the strip says about the last frame."""
    kind = "key frame" if decision.key else "propagated"
    numbers = "  ".join(f"{name} {value:.3g}" for name, value in decision.numbers.items())
    return f"{kind}: {decision.why}   {numbers}".rstrip()
