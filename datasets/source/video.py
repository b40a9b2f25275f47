"""Videos with an end: a file on disk, or a file behind http."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from .base import DEFAULT_FPS, Entry, Source
from .capture import CaptureSource, frame_count, open_capture
from .decoding import Clock, Decoder, open_container, pyav
from .display import display_matrix, displayed, square_pixels
from .names import printable
from .whole import cut_short

NO_PYAV = (
    "PyAV cannot be imported (pip install av), OpenCV decodes {}: a damaged packet may end it, "
    "and mirrored or stretched pictures are shown as they are stored"
)


def open_video(spec: str, kind: str, **options) -> Source:
    """A video file. ValueError where it cannot be read."""
    # an absolute path, because FFmpeg would take "a:b.mp4" for a protocol
    return open_ended(spec, kind, os.path.abspath(Path(spec).expanduser()), **options)


def open_ended(spec: str, kind: str, target: str, **options) -> Source:
    """A video file by its path or address. ValueError where it cannot be read."""
    source = VideoSource
    opened = None
    if pyav() is None:
        source = CapturedVideo
        opened = open_capture(target)
    else:
        container = open_container(target)
        if container is not None:
            opened = Decoder(container)
    if opened is None:
        raise ValueError(
            f"{printable(spec)} cannot be read as a video: it is damaged, cut short or of an "
            "unknown codec"
        )
    return source(spec, kind, opened, target=target, **options)


class VideoSource(Source):
    """The frames of a video file, until it ends. Frames that are missing get a note."""

    def __init__(
        self, spec: str, kind: str, decoder: Decoder, *, target: str, fps: float | None, **options
    ):
        """fps: frames a second instead of what the file and its time stamps say."""
        super().__init__(spec, kind, fps=fps, stated=decoder.rate, count=decoder.count, **options)
        self._target = target
        self._decoder = decoder
        self._clock = Clock(decoder.rate or DEFAULT_FPS)
        self._reformatter = pyav().video.reformatter.VideoReformatter()
        # (width, height) before turning; within one video all frames are brought to the first's
        self._size: tuple[int, int] | None = None
        if self.assumed_rate:
            self.notes.append(
                f"{printable(spec)} says {decoder.stated_rates()[0]:g} frames a second: "
                f"{DEFAULT_FPS:g} assumed"
            )

    def _entries(self) -> Iterator[Entry]:
        """ValueError where not even one frame comes."""
        for frame in self._decoder.frames():
            if self._stopping.is_set():
                return
            time = self._clock.time(self._decoder.stamp(frame))
            yield Entry(None, partial(self._picture, frame), time)
        # a video that we stopped ourselves is not short
        if not self._stopping.is_set():
            self._check_end()

    def _picture(self, frame) -> np.ndarray:
        """av.VideoFrame -> (H, W, 3) uint8 RGB, as players show it."""
        if self._size is None:
            aspect = self._decoder.stream.sample_aspect_ratio
            self._size = square_pixels(frame.width, aspect), frame.height
        width, height = self._size
        rgb = self._reformatter.reformat(
            frame, width, height, format="rgb24", interpolation="BICUBIC"
        )
        return displayed(rgb.to_ndarray(), display_matrix(frame))

    def _check_end(self) -> None:
        spec = printable(self.spec)
        decoder = self._decoder
        if self._size is None:
            raise ValueError(f"{spec} gives no frame: it is damaged, cut short or no video")
        if decoder.lost:
            frames = "1 frame" if decoder.lost == 1 else f"{decoder.lost} frames"
            self.notes.append(f"{spec}: {frames} could not be decoded")
        # The stated count alone proves nothing: stream copies and many containers state a wrong
        # one, and where it is computed, a variable rate makes it wrong.
        if decoder.broken or cut_short(self._target):
            note_of_end(self, decoder.read, decoder.count)

    def close(self) -> None:
        self.stop()
        self._decoder.close()


class CapturedVideo(CaptureSource):
    """The frames of a video file as OpenCV gives them, for where PyAV is missing."""

    def __init__(self, spec: str, kind: str, capture, *, target: str, **options):
        self._count = frame_count(capture)
        super().__init__(spec, kind, capture, count=self._count, **options)
        self.notes.append(NO_PYAV.format(printable(spec)))

    def _entries(self) -> Iterator[Entry]:
        """ValueError where not even one frame comes."""
        yield from self._grab_all()
        # a video that we stopped ourselves is not short
        if self._stopping.is_set():
            return
        if self._seen == 0:
            raise ValueError(
                f"{printable(self.spec)} gives no frame: it is damaged, cut short or no video"
            )
        note_of_end(self, self._seen, self._count)


def note_of_end(source: Source, seen: int, count: int | None) -> None:
    """Note that a video has fewer frames than it states, if it has."""
    if count is not None and seen < count:
        source.notes.append(f"{printable(source.spec)} ended after {seen} of {count} frames")
