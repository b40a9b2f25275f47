"""The interface of all sources: a source gives its frames once, in order, every `step`-th of them.

A kind of source is a small class with `_entries`: for each frame of the source an Entry, that is
its name and a function that decodes it. The step, `stop` and `close` are the same for all kinds.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from .names import printable, source_name

DEFAULT_FPS = 25.0  # frames a second of a source that states none, or an impossible number


class Frame(NamedTuple):
    """One decoded frame of a source."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    name: str  # for files made of it: the stem of an image, 000042 in a video
    index: int  # among all frames of the source, also those that the step skips
    # (h, w, 3) uint8 RGB, the image at working size; only where ReadAhead has resized it
    work: np.ndarray | None = None
    time: float | None = None  # seconds since the first frame of the source, where it has a clock


class Entry(NamedTuple):
    """One frame of a source before it is decoded."""

    name: str | None  # None: the frame is named by its index
    decode: Callable[[], np.ndarray]  # -> (H, W, 3) uint8 RGB
    time: float | None = None  # seconds since the first frame, None where nothing tells


class Source:
    """Frames of one source, once, in order, every `step`-th of them.

    name: for files made of the source. fps: frames a second after the step. assumed_rate: neither
    the source nor the user has stated a rate. length: how many frames will come, where known (for a
    video it is the number in the header, which may be wrong). notes: messages for the user; more
    may come while reading. live: frames come in real time; those that nobody reads are lost. began:
    of a live source, the monotonic clock's time of its first frame. A subclass implements
    `_entries`.
    """

    def __init__(
        self,
        spec: str,
        kind: str,
        *,
        step: int,
        fps: float | None = None,
        stated: float | None = None,
        count: int | None = None,
    ):
        """fps: the frame rate that the user gives, which also says when a frame is shown; stated:
        that of the source; count: its number of frames. All before the step, None where unknown.
        """
        self.spec = spec
        self.kind = kind
        self.name = source_name(spec)
        self.step = step
        self.live = False
        self.notes: list[str] = []
        self.began: float | None = None
        self.fps = (fps or stated or DEFAULT_FPS) / step
        self.assumed_rate = not (fps or stated)
        self._given_fps = fps
        self.length = None
        if count is not None:
            self.length = math.ceil(count / step)
        # set by another thread while this one waits in `_entries`
        self._stopping = threading.Event()
        self._started = False

    def _entries(self) -> Iterator[Entry]:
        """Every frame of the source. `decode` is called before the next entry is asked for, if at
        all: the frames that the step skips are not decoded."""
        raise NotImplementedError(f"{type(self).__name__} has no _entries")

    def __iter__(self) -> Iterator[Frame]:
        """RuntimeError where the source was already read or closed."""
        if self._started or self._stopping.is_set():
            raise RuntimeError(f"{printable(self.spec)} was already read or closed: open it again")
        self._started = True
        for index, entry in enumerate(self._entries()):
            if index % self.step == 0:
                name = entry.name or f"{index:06d}"
                yield Frame(entry.decode(), name, index, time=self._time(index, entry.time))

    def _time(self, index: int, time: float | None) -> float | None:
        """Seconds of a frame: a rate that the user gives goes before time stamps."""
        # when a live frame came is a fact, which no rate can change
        if self._given_fps and not self.live:
            return index / self._given_fps
        return time

    def stop(self) -> None:
        """Ask a waiting read to end soon. No other method may be called while a thread iterates."""
        self._stopping.set()

    def close(self) -> None:
        """Stop, and release what the source holds."""
        self.stop()

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.close()


def plausible_fps(fps: float) -> bool:
    """Whether a number can be a frame rate.

    Containers without a rate state 0, nan, or the ticks of their clock: 1000, 90000.
    """
    return math.isfinite(fps) and 0 < fps < 1000
