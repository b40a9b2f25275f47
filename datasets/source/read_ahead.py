"""Reads a source on a thread of its own, while the network labels the frames before."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from .base import Frame, Source
from .names import printable


class ReadAhead:
    """Decodes a source on a background thread, `depth` frames ahead; iterate it like the source.

    latest: of a live source, keep only the newest frame (`dropped` counts the others), so that a
    slow consumer is one frame late and not a queue of them. mean_latency, max_latency: seconds from
    a frame's arrival to its delivery. resize: brings each image (H, W, 3) to working size, as
    `frame.work`. An error of either is raised where its frame would have come.
    Closing ends the thread and closes the source, however many frames were read.
    """

    def __init__(
        self,
        source: Source,
        depth: int = 4,
        *,
        latest: bool = False,
        resize: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        """ValueError: a depth below 1, or `latest` of a source that is not live."""
        if depth < 1:
            raise ValueError(f"reading ahead needs a depth of at least 1, got {depth}")
        if latest and not source.live:
            raise ValueError(
                f"only live sources may drop frames; {printable(source.spec)} is a {source.kind}"
            )
        self.source = source
        self.latest = latest
        self.resize = resize
        self.dropped = 0
        self.max_latency = 0.0
        self._latency_sum = 0.0
        self._delivered = 0
        self._depth = 1 if latest else depth
        # the frames and the three states below change only while this is held
        self._change = threading.Condition()
        self._frames: deque[tuple[Frame, float]] = deque()  # with the time of their arrival
        self._stopped = False  # by `close`
        self._ended = False  # the thread has read its last frame
        self._error: Exception | None = None
        # a daemon, so that a program that forgets to close can still end
        self._thread = threading.Thread(
            target=self._work, name=f"read ahead {source.name}", daemon=True
        )
        self._thread.start()

    def _work(self) -> None:
        """The background thread: decode, resize and queue frames until the end or `close`."""
        try:
            for frame in self.source:
                arrival = self._arrival(frame)
                if self.resize:
                    frame = frame._replace(work=self.resize(frame.image))
                if not self._put(frame, arrival):
                    break
        except Exception as error:
            # any error at all: the consumer gets it from __next__
            self._error = error
        with self._change:
            self._ended = True
            self._change.notify_all()

    def _arrival(self, frame: Frame) -> float:
        """When a frame came, in seconds of the monotonic clock."""
        if self.source.began is None or frame.time is None:
            return time.monotonic()
        # before it was decoded
        return self.source.began + frame.time

    def _put(self, frame: Frame, arrival: float) -> bool:
        """Queue a frame as soon as there is room -> False where closed meanwhile."""
        with self._change:
            if self.latest:
                self.dropped += len(self._frames)
                self._frames.clear()
            self._change.wait_for(lambda: self._stopped or len(self._frames) < self._depth)
            if self._stopped:
                return False
            self._frames.append((frame, arrival))
            self._change.notify_all()
            return True

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        with self._change:
            self._change.wait_for(lambda: self._frames or self._ended)
            if self._frames:
                # there is room for another frame now
                self._change.notify_all()
                frame, arrival = self._frames.popleft()
                self._measure(time.monotonic() - arrival)
                return frame
        if self._error is None:
            raise StopIteration
        # raised once; asked again, the source is at its end
        error = self._error
        self._error = None
        raise error

    def _measure(self, latency: float) -> None:
        self._delivered += 1
        self._latency_sum += latency
        self.max_latency = max(self.max_latency, latency)

    @property
    def mean_latency(self) -> float:
        """Seconds; 0 where no frame was delivered."""
        return self._latency_sum / max(self._delivered, 1)

    def close(self) -> None:
        """End the thread and close the source. May be called more than once."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        # the thread may be waiting for a camera or a pipe instead of for room
        self.source.stop()
        self._thread.join()
        self._frames.clear()
        self.source.close()

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.close()
