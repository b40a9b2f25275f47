"""Standard input as a source: PPM (P6) images one after another, as ffmpeg writes them.

ffmpeg -i in.mp4 -f image2pipe -c:v ppm - | python main.py --inference --source - ...
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator

from .base import Entry, Source
from .ppm import read_ppm

POLL = 0.1  # seconds after which a read that waits looks whether `stop` was called


def open_pipe(spec: str, kind: str, **options) -> Source:
    """What is piped into standard input. ValueError where that is a terminal or closed."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise ValueError(
            "source - reads PPM images from standard input, and nothing is piped into it: "
            "ffmpeg -i in.mp4 -f image2pipe -c:v ppm - | ..."
        )
    return PipeSource(spec, kind, sys.stdin.fileno(), **options)


class PipeSource(Source):
    """PPM images from a file descriptor, each of its own size; `stop` ends a wait for bytes."""

    def __init__(self, spec: str, kind: str, descriptor: int, **options):
        super().__init__(spec, kind, **options)
        self._descriptor = descriptor

    def _entries(self) -> Iterator[Entry]:
        """ValueError where the data is no PPM, or where not even one whole image comes."""
        seen = 0
        try:
            while (decode := read_ppm(self._fill)) is not None:
                seen += 1
                yield Entry(None, decode)
        except EOFError:
            # if we stopped ourselves, an image cut short is no news
            if seen and not self._stopping.is_set():
                self.notes.append(
                    f"standard input ended inside image {seen + 1}: {seen} came whole"
                )
        if seen == 0 and not self._stopping.is_set():
            raise ValueError(
                "standard input ended before its first PPM image was whole: did the writer fail?"
            )

    def _fill(self, buffer: memoryview) -> int:
        """Read until the buffer is full, the pipe ends or `stop` is called -> bytes read."""
        filled = 0
        while filled < len(buffer) and not self._stopping.is_set():
            readable, _, _ = select.select([self._descriptor], [], [], POLL)
            if not readable:
                continue
            read = os.readv(self._descriptor, [buffer[filled:]])
            if read == 0:
                break
            filled += read
        return filled
