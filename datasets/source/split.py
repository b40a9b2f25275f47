"""The videos of a data set's split as sources: labelled whole, whether they have labels or not."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ..clip import Video
from .base import Entry, Source


class SplitSource(Source):
    """All frames of one video of a data set, named as the data set names them."""

    def __init__(self, video: Video, *, step: int, fps: float | None = None):
        super().__init__(
            video.name, "split", step=step, fps=fps, stated=video.fps, count=len(video)
        )
        self.name = video.name
        self.video = video

    def _entries(self) -> Iterator[Entry]:
        for index in range(len(self.video)):
            if self._stopping.is_set():
                return
            yield Entry(self.video.frame_name(index), partial(self.video.frame, index))
