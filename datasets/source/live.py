"""Cameras and streams: sources without an end, which are opened again when they drop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .base import Entry, Source
from .capture import CaptureSource, frame_count, open_capture
from .names import camera_index, printable
from .video import open_ended

BACKOFF = (1, 2, 4, 8, 16)  # seconds before each attempt to reconnect
STABLE = 60.0  # seconds after which a connection counts as good and attempts count anew


def open_camera(spec: str, kind: str, **options) -> Source:
    """A camera by its index. RuntimeError where it cannot be opened."""
    reopen = partial(open_capture, camera_index(spec))
    capture = reopen()
    if capture is None:
        raise RuntimeError(
            f"camera {spec} cannot be opened: is it connected, and free of other programs?"
        )
    return LiveSource(spec, kind, capture, reopen, **options)


def open_stream(spec: str, kind: str, **options) -> Source:
    """A stream by its address. RuntimeError where it cannot be opened."""
    reopen = partial(open_capture, spec)
    capture = reopen()
    if capture is None:
        raise RuntimeError(
            f"stream {printable(spec)} cannot be opened: is the address right, and does it answer?"
        )
    if frame_count(capture) is not None:
        # a file behind http has an end: reconnecting would play it from the start again
        capture.release()
        return open_ended(spec, kind, spec, **options)
    return LiveSource(spec, kind, capture, reopen, **options)


class LiveSource(CaptureSource):
    """A camera or a stream. When it drops it is opened again, len(BACKOFF) times at most.

    The time of a frame is that of its arrival: what cameras state as their rate is often wrong.
    """

    def __init__(self, spec: str, kind: str, capture, reopen: Callable[[], Any], **options):
        """reopen: opens the source once more -> a new capture, or None."""
        super().__init__(spec, kind, capture, **options)
        self.live = True
        self._reopen = reopen

    def _entries(self) -> Iterator[Entry]:
        """RuntimeError where not even one frame comes."""
        attempts: int | None = 0
        while attempts is not None:
            since = time.monotonic()
            yield from self._grab_all()
            if time.monotonic() - since > STABLE:
                attempts = 0
            attempts = self._reconnect(attempts)
        if self._seen == 0 and not self._stopping.is_set():
            raise RuntimeError(
                f"{self.kind} {printable(self.spec)} gives no frame: is something else using it?"
            )

    def _clock(self) -> float:
        """Seconds between the arrival of the first frame and of this one."""
        now = time.monotonic()
        if self.began is None:
            self.began = now
        return now - self.began

    def _reconnect(self, attempts: int) -> int | None:
        """Open again after `attempts` tries -> tries so far, or None where stopped or given up."""
        dropped = f"{printable(self.spec)} dropped after {self._seen} frames"
        for attempt in range(attempts, len(BACKOFF)):
            # a camera can only be opened again once it is free
            self._capture.release()
            # waits for that long, or until `stop` is called
            if self._stopping.wait(BACKOFF[attempt]):
                return None
            capture = self._reopen()
            if capture is not None:
                self._capture = capture
                self.notes.append(f"{dropped}, reconnected (attempt {attempt + 1})")
                return attempt + 1
        if not self._stopping.is_set():
            self.notes.append(f"{dropped} and gave no more in {len(BACKOFF)} attempts")
        return None
