"""Decoding and resizing ahead: a source read on a thread of its own, while the network labels what came before."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from .names import printable
from .source import Frame, Source


class ReadAhead:
    """Decodes a source on a background thread, `depth` frames ahead; iterate it like the source.

    latest: of a live source, keep the newest frame alone (`dropped` counts the others), so that a slow consumer
    lags by one frame and not by a queue. resize: brings each image (H, W, 3) to working size, as `frame.work`. An error
    of either is raised where it would have come. Closing ends the thread and closes the source, however far the
    consumer came.
    """

    def __init__(
        self,
        source: Source,
        depth: int = 4,
        *,
        latest: bool = False,
        resize: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        if depth < 1:
            raise ValueError(f"reading ahead needs a depth of at least 1, got {depth}")
        if latest and not source.live:
            raise ValueError(
                f"only live sources may drop frames; {printable(source.spec)} is a {source.kind}"
            )
        self.source, self.latest, self.dropped, self.resize = source, latest, 0, resize
        self._frames: deque[Frame] = deque()
        self._depth = 1 if latest else depth
        self._change = threading.Condition()
        self._stopped = self._ended = False
        self._error: Exception | None = None
        self._thread = threading.Thread(
            target=self._work, name=f"read ahead {source.name}", daemon=True
        )
        self._thread.start()

    def _work(self) -> None:
        try:
            for frame in self.source:
                if self.resize:
                    frame = frame._replace(work=self.resize(frame.image))
                with self._change:
                    if self.latest:
                        self.dropped += len(self._frames)
                        self._frames.clear()
                    self._change.wait_for(lambda: self._stopped or len(self._frames) < self._depth)
                    if self._stopped:
                        break
                    self._frames.append(frame)
                    self._change.notify_all()
        except Exception as error:  # the consumer's to handle, whatever it is
            self._error = error
        with self._change:
            self._ended = True
            self._change.notify_all()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        with self._change:
            self._change.wait_for(lambda: self._frames or self._ended)
            if self._frames:
                self._change.notify_all()
                return self._frames.popleft()
        error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        with self._change:
            self._stopped = True
            self._change.notify_all()
        self.source.stop()
        self._thread.join()
        self._frames.clear()
        self.source.close()

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.close()
