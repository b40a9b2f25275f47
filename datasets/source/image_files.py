"""Images on disk as a source: a folder, a glob or one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from .base import Entry, Source
from .images import read_image
from .names import images_in, number_repeats


def open_image(spec: str, kind: str, **options) -> Source:
    """One image file as a source."""
    return ImageSource(spec, kind, [Path(spec).expanduser()], **options)


def open_images(spec: str, kind: str, **options) -> Source:
    """The images of a folder or glob. FileNotFoundError where there are none."""
    return ImageSource(spec, kind, images_in(spec, kind), **options)


class ImageSource(Source):
    """Image files in the given order. Each frame has its own size and is named by its file."""

    def __init__(self, spec: str, kind: str, paths: Sequence[Path], **options):
        super().__init__(spec, kind, count=len(paths), **options)
        self.paths = list(paths)

    def _entries(self) -> Iterator[Entry]:
        # a glob may match a/1.png and b/1.png: their outputs must not overwrite each other
        names = number_repeats([path.stem for path in self.paths])
        for name, path in zip(names, self.paths, strict=True):
            if self._stopping.is_set():
                return
            yield Entry(name, partial(read_image, path))
