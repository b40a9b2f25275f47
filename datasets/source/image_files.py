"""Images on disk as a source: a folder, a glob or one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from .base import Entry, Source
from .images import page_count, read_image
from .names import Skip, images_in, number_repeats, read_all


def open_image(spec: str, kind: str, **options) -> Source:
    """One image file as a source, with all of its pages."""
    path = Path(spec).expanduser()
    return ImageSource(spec, kind, [path], count=page_count(path), **options)


def open_images(spec: str, kind: str, skip: Skip = read_all, **options) -> Source:
    """The images of a folder or glob. FileNotFoundError where there are none."""
    paths = images_in(spec, kind, skip)
    # As if each had one page: opening thousands of files ahead would take long.
    return ImageSource(spec, kind, paths, count=len(paths), **options)


class ImageSource(Source):
    """Image files in the given order. Each frame has its own size and is named by its file.

    The pages of a TIFF, and the frames of an animated WebP, PNG or AVIF, are frames too.
    """

    def __init__(self, spec: str, kind: str, paths: Sequence[Path], *, count: int, **options):
        super().__init__(spec, kind, count=count, **options)
        self.paths = list(paths)

    def _entries(self) -> Iterator[Entry]:
        # a glob may match a/1.png and b/1.png: their outputs must not overwrite each other
        names = number_repeats([path.stem for path in self.paths])
        for name, path in zip(names, self.paths, strict=True):
            if self._stopping.is_set():
                return
            pages = page_count(path)
            if pages == 1:
                yield Entry(name, partial(read_image, path))
                continue
            for page in range(pages):
                yield Entry(f"{name}_page{page + 1:03d}", partial(read_image, path, page))
