"""Images on disk as a source: a folder, a glob or one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from .base import Entry, Source
from .images import Pages, contents_of, first_duration, read_image
from .names import Skip, images_in, number_repeats, printable, read_all, safe_stem, unused


def open_image(spec: str, kind: str, **options) -> Source:
    """One image file as a source, with all of its pages."""
    path = Path(spec).expanduser()
    count = contents_of(path).pages
    if count > 1:
        duration = first_duration(path)
        options["stated"] = duration and 1 / duration
    return ImageSource(spec, kind, [path], count=count, **options)


def open_images(spec: str, kind: str, skip: Skip = read_all, **options) -> Source:
    """The images of a folder or glob. FileNotFoundError where there are none."""
    paths = images_in(spec, kind, skip)
    # As if each had one page: opening thousands of files ahead would take long.
    return ImageSource(spec, kind, paths, count=len(paths), **options)


class ImageSource(Source):
    """Image files in the given order. Each frame has its own size and is named by its file.

    The pages of a TIFF, and the frames of an animated GIF, WebP, PNG or AVIF, are frames too. They
    have times where they are the whole source.
    """

    def __init__(self, spec: str, kind: str, paths: Sequence[Path], *, count: int, **options):
        super().__init__(spec, kind, count=count, **options)
        self.paths = list(paths)

    def _entries(self) -> Iterator[Entry]:
        # a glob may match a/1.png and b/1.png: their outputs must not overwrite each other
        names = number_repeats([safe_stem(path) for path in self.paths])
        partly: list[str] = []
        taken = {name.lower() for name in names}
        for name, path in zip(names, self.paths, strict=True):
            if self._stopping.is_set():
                return
            contents = contents_of(path)
            if contents.more:
                partly.append(path.name)
            if contents.pages == 1:
                yield Entry(name, partial(read_image, path))
            else:
                yield from self._page_entries(name, path, taken)
        if partly:
            self.notes.append(
                f"{printable(self.spec)}: of {len(partly)} files only the first picture is "
                f"labelled ({printable(partly[0])} is the first): previews in a JPEG, and PPM "
                "images in a row (pipe these into --source -), are left out"
            )

    def _page_entries(self, name: str, path: Path, taken: set[str]) -> Iterator[Entry]:
        """The pages of one file. taken: names of frames in lower case; theirs are added."""
        with Pages(path) as pages:
            time = None
            # among other files it is not known when the first page is shown
            if self.kind == "image" and pages.seconds(0) is not None:
                time = 0.0
            for index in range(len(pages)):
                if self._stopping.is_set():
                    return
                if time is not None and index:
                    time += pages.seconds(index - 1)
                page = unused(f"{name}_page{index + 1:03d}", taken)
                yield Entry(page, partial(pages.read, index), time)
