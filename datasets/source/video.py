"""Videos with an end: a file on disk, or a file behind http."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .base import Entry, Source
from .capture import CaptureSource, frame_count, open_capture
from .names import printable


def open_video(spec: str, kind: str, **options) -> Source:
    """A video file. ValueError where it cannot be read."""
    # an absolute path, because FFmpeg would take "a:b.mp4" for a protocol
    capture = open_capture(os.path.abspath(Path(spec).expanduser()))
    if capture is None:
        raise ValueError(
            f"{spec} cannot be read as a video: it is damaged, cut short or of an unknown codec"
        )
    return VideoSource(spec, kind, capture, **options)


class VideoSource(CaptureSource):
    """The frames of a video file, until it ends. A video that ends early gets a note."""

    def __init__(self, spec: str, kind: str, capture, **options):
        self._count = frame_count(capture)
        super().__init__(spec, kind, capture, count=self._count, **options)

    def _entries(self) -> Iterator[Entry]:
        """ValueError where not even one frame comes."""
        yield from self._grab_all()
        # a video that we stopped ourselves is not short
        if not self._stopping.is_set():
            self._check_end()

    def _check_end(self) -> None:
        spec = printable(self.spec)
        if self._seen == 0:
            raise ValueError(f"{spec} gives no frame: it is damaged, cut short or no video")
        if self._count is not None and self._seen < self._count:
            self.notes.append(f"{spec} ended after {self._seen} of {self._count} frames")
