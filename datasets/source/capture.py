"""What OpenCV decodes: cameras and streams, and video files where PyAV is missing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import numpy as np

from ..opencv import opencv
from .base import DEFAULT_FPS, Entry, Source, plausible_fps
from .names import printable

TIMEOUT_MS = 10_000  # of opening a stream, and of waiting for its next frame


class CaptureSource(Source):
    """The frames of an opened cv2.VideoCapture, until it gives no more."""

    def __init__(self, spec: str, kind: str, capture, *, fps: float | None, **options):
        """fps: frames a second, None to take what the capture states."""
        says = capture.get(opencv().CAP_PROP_FPS)
        stated = says if plausible_fps(says) else None
        super().__init__(spec, kind, fps=fps, stated=stated, **options)
        if self.assumed_rate:
            self.notes.append(
                f"{printable(spec)} says {says:g} frames a second: {DEFAULT_FPS:g} assumed"
            )
        self._capture = capture
        self._seen = 0  # frames grabbed so far, over all connections

    def _grab_all(self) -> Iterator[Entry]:
        """The frames until the capture ends or `stop` is called."""
        # grab takes the next frame, retrieve converts it: skipped frames save the second part
        while not self._stopping.is_set() and self._capture.grab():
            self._seen += 1
            yield Entry(None, self._retrieve, self._clock())

    def _clock(self) -> float | None:
        """Seconds of the frame grabbed last, None to take the rate."""
        return None

    def _retrieve(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB of the frame grabbed last. ValueError if it cannot be decoded."""
        cv2 = opencv()
        decoded, image = self._capture.retrieve()
        if not decoded:
            raise ValueError(
                f"a frame of {printable(self.spec)} cannot be decoded: is the video damaged?"
            )
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def close(self) -> None:
        self.stop()
        self._capture.release()


def open_capture(target: str | int):
    """cv2.VideoCapture of a path, an address or a camera index, or None if it does not open.

    OpenCV's and FFmpeg's own messages are switched off: our errors and notes say what matters of
    them. OPENCV_FFMPEG_LOGLEVEL, if set, is left as it is.
    """
    # Given a name that is no UTF-8, OpenCV crashes. Python reads such a byte as a lone surrogate.
    if isinstance(target, str) and re.search("[\ud800-\udfff]", target):
        return None
    # read when FFmpeg is first used; -8 is its AV_LOG_QUIET
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2 = opencv()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    if isinstance(target, int):
        capture = cv2.VideoCapture(target)
    else:
        capture = cv2.VideoCapture(target, cv2.CAP_FFMPEG, _time_limits(target))
    if _usable(capture):
        return capture
    capture.release()
    return None


def frame_count(capture) -> int | None:
    """How many frames the container states, None where it states no possible number."""
    count = capture.get(opencv().CAP_PROP_FRAME_COUNT)
    # what has no end states 0, a negative or a huge number
    if not 0 < count < 1e9:
        return None
    return round(count)


def _time_limits(target: str) -> list[int]:
    """OpenCV parameters for an address in the network; a file needs none."""
    if "://" not in target:
        return []
    cv2 = opencv()
    opening = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS]
    reading = [cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS]
    return opening + reading


def _usable(capture) -> bool:
    """Whether it opened, and as a video."""
    if not capture.isOpened():
        return False
    # FFmpeg would draw a text file as a video of a terminal
    terminal = int.from_bytes(b"ansi", "little")
    return capture.get(opencv().CAP_PROP_FOURCC) != terminal
