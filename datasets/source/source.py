"""Frames without labels, from wherever they come: files, folders, cameras, streams, a pipe.

    spec                                kind        frames
    clip.mp4                            video       until it ends; early ends are noted
    frames                              folder      its images (source_names.IMAGES), naturally sorted: 2 before 10
    'frames/*.png' (quoted), 'a/**/*'   glob        the images among its matches, naturally sorted
    picture.jpg                         image       one
    0, /dev/video0                      camera      live
    rtsp:// rtmp:// http:// https://    stream      live, reconnects; a file behind http is read as a video
    -                                   stdin       PPM (P6) images one after another, as this writes them:

    ffmpeg -i in.mp4 -f image2pipe -c:v ppm - | python main.py --inference --source - ...

Images are turned as their EXIF says, videos as their container says. Images and PPM may change size on the
way; within one video OpenCV scales all frames to the size of the first.
"""

from __future__ import annotations

import math
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..opencv import opencv
from .images import read_image
from .names import camera_index, images_in, number_repeats, printable, source_kind, source_name
from .ppm import read_ppm

DEFAULT_FPS = 25.0  # of what has no frame rate of its own, or an impossible one
BACKOFF = (1, 2, 4, 8, 16)  # seconds before each attempt to reconnect
STABLE = 60.0  # seconds after which a connection counts as good and attempts count anew
TIMEOUT_MS = 10_000  # of opening a stream, and of waiting for its next frame


class Frame(NamedTuple):
    image: np.ndarray  # (H, W, 3) uint8 RGB
    name: str  # for files made of it: the stem of an image, 000042 in a video
    index: int  # among the source's own frames, those that the step skips included
    work: np.ndarray | None = (
        None  # the image at working size, where it was brought to one ahead (ReadAhead)
    )


class Source:
    """Frames of one source, once, in order, every `step`-th of them.

    fps: frames a second after the step; length: how many frames will come, where known (for a video as its
    header counts, which may be wrong); notes: what the user should hear (more come while reading); live: frames
    are lost rather than late. A subclass gives `_entries`: per frame of the source its name or None, and a
    function that decodes it, called for the frames that the step keeps.
    """

    def __init__(
        self, spec: str, kind: str, *, step: int, fps: float | None = None, count: int | None = None
    ):
        """fps, count: rate and number of frames before the step."""
        self.spec, self.kind, self.name, self.step = spec, kind, source_name(spec), step
        self.live = False
        self.notes: list[str] = []
        self.fps = (DEFAULT_FPS if fps is None else fps) / step
        self.length = None if count is None else -(-count // step)
        self._stopping = threading.Event()
        self._started = False

    def _entries(self) -> Iterator[tuple[str | None, Callable[[], np.ndarray]]]:
        raise NotImplementedError(f"{type(self).__name__} has no _entries")

    def __iter__(self) -> Iterator[Frame]:
        if self._started or self._stopping.is_set():
            raise RuntimeError(f"{printable(self.spec)} was already read or closed: open it again")
        self._started = True
        for index, (name, decode) in enumerate(self._entries()):
            if index % self.step == 0:
                yield Frame(decode(), f"{index:06d}" if name is None else name, index)

    def stop(self) -> None:
        """Ask a read that waits to end soon; the one method to call while another thread iterates."""
        self._stopping.set()

    def close(self) -> None:
        self.stop()

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.close()


class ImageSource(Source):
    """Images on disk: a folder, a glob or one file."""

    def __init__(self, spec: str, kind: str, paths: Sequence[Path], **options):
        super().__init__(spec, kind, count=len(paths), **options)
        self.paths = list(paths)

    def _entries(self):
        for name, path in zip(
            number_repeats([path.stem for path in self.paths]), self.paths, strict=True
        ):
            if self._stopping.is_set():
                return
            yield name, partial(read_image, path)


class VideoSource(Source):
    """A video with an end: a file, or a file behind http."""

    def __init__(self, spec: str, kind: str, capture, *, step: int, fps: float | None):
        cv2 = opencv()
        count, own_fps = (capture.get(key) for key in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
        count = round(count) if 0 < count < 1e9 else None
        super().__init__(
            spec,
            kind,
            step=step,
            fps=fps or (own_fps if plausible_fps(own_fps) else None),
            count=count,
        )
        if not fps and not plausible_fps(own_fps):
            self.notes.append(
                f"{printable(spec)} says {own_fps:g} frames a second: {DEFAULT_FPS:g} assumed"
            )
        self._capture, self._count = capture, count

    def _entries(self):
        seen = 0
        while not self._stopping.is_set() and self._capture.grab():
            seen += 1
            yield None, self._retrieve
        if self._stopping.is_set():
            return
        if seen == 0:
            raise ValueError(
                f"{printable(self.spec)} gives no frame: it is damaged, cut short or no video"
            )
        if self._count is not None and seen < self._count:
            self.notes.append(f"{printable(self.spec)} ended after {seen} of {self._count} frames")

    def _retrieve(self) -> np.ndarray:
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


class LiveSource(VideoSource):
    """A camera or a stream: it has no end, and when it drops it is opened again, len(BACKOFF) times at most."""

    def __init__(self, spec: str, kind: str, capture, reopen: Callable[[], Any], **options):
        super().__init__(spec, kind, capture, **options)
        self.live, self.length, self._reopen = True, None, reopen

    def _entries(self):
        seen, attempts = 0, 0
        while True:
            since = time.monotonic()
            while not self._stopping.is_set() and self._capture.grab():
                seen += 1
                yield None, self._retrieve
            attempts = 0 if time.monotonic() - since > STABLE else attempts
            attempts = self._reconnect(attempts, seen)
            if attempts is None:
                break
        if seen == 0 and not self._stopping.is_set():
            raise RuntimeError(
                f"{self.kind} {printable(self.spec)} gives no frame: is something else using it?"
            )

    def _reconnect(self, attempts: int, seen: int) -> int | None:
        """Open again after `attempts` tries -> tries so far, or None where stopped or given up."""
        spec = printable(self.spec)
        for attempt in range(attempts, len(BACKOFF)):
            self._capture.release()
            if self._stopping.wait(BACKOFF[attempt]):
                return None
            capture = self._reopen()
            if capture is not None:
                self._capture = capture
                self.notes.append(
                    f"{spec} dropped after {seen} frames, reconnected (attempt {attempt + 1})"
                )
                return attempt + 1
        if not self._stopping.is_set():
            self.notes.append(
                f"{spec} dropped after {seen} frames and gave no more in {len(BACKOFF)} attempts"
            )
        return None


class PipeSource(Source):
    """PPM (P6) images one after another from a file descriptor; waiting for bytes ends with `stop`."""

    def __init__(self, spec: str, descriptor: int, **options):
        super().__init__(spec, "stdin", **options)
        self._descriptor = descriptor

    def _entries(self):
        seen = 0
        try:
            while (decode := read_ppm(self._fill)) is not None:
                seen += 1
                yield None, decode
        except EOFError:
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
            if select.select([self._descriptor], [], [], 0.1)[0]:
                read = os.readv(self._descriptor, [buffer[filled:]])
                if read == 0:
                    break
                filled += read
        return filled


def open_source(spec: str, *, step: int = 1, fps: float | None = None) -> Source:
    """Open whatever `spec` names (see the top of this file).

    step: every step-th frame; fps: frames a second of the source (before the step), instead of what it says itself.
    FileNotFoundError: no such file, or no images in it; ValueError: damaged; RuntimeError: no such camera or stream.
    """
    if step < 1:
        raise ValueError(f"the frame step must be at least 1, got {step}")
    if fps is not None and not plausible_fps(fps):
        raise ValueError(f"frames a second must be above 0 and below 1000, got {fps}")
    kind, options = source_kind(spec), {"step": step, "fps": fps}
    if kind == "stdin":
        return PipeSource(spec, _standard_input(), **options)
    if kind in ("camera", "stream"):
        return _open_live(spec, kind, options)
    path = Path(spec).expanduser()
    if kind in ("folder", "glob", "image"):
        return ImageSource(
            spec, kind, [path] if kind == "image" else images_in(spec, kind), **options
        )
    capture = _capture(
        os.path.abspath(path)
    )  # absolute: FFmpeg would take "a:b.mp4" for a protocol
    if capture is None:
        raise ValueError(
            f"{spec} cannot be read as a video: it is damaged, cut short or of an unknown codec"
        )
    return VideoSource(spec, kind, capture, **options)


def plausible_fps(fps: float) -> bool:
    """Containers without a rate say 0, nan, or the ticks of their clock: 1000, 90000."""
    return math.isfinite(fps) and 0 < fps < 1000


def _standard_input() -> int:
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise ValueError(
            "source - reads PPM images from standard input, and nothing is piped into it: "
            "ffmpeg -i in.mp4 -f image2pipe -c:v ppm - | ..."
        )
    return sys.stdin.fileno()


def _open_live(spec: str, kind: str, options: dict) -> Source:
    cv2 = opencv()
    reopen = partial(_capture, camera_index(spec) if kind == "camera" else spec)
    capture = reopen()
    if capture is None and kind == "camera":
        raise RuntimeError(
            f"camera {spec} cannot be opened: is it connected, and free of other programs?"
        )
    if capture is None:
        raise RuntimeError(
            f"stream {printable(spec)} cannot be opened: is the address right, and does it answer?"
        )
    if kind == "stream" and 0 < capture.get(cv2.CAP_PROP_FRAME_COUNT) < 1e9:
        return VideoSource(
            spec, kind, capture, **options
        )  # it has an end: reconnecting would begin it again
    return LiveSource(spec, kind, capture, reopen, **options)


def _capture(target: str | int):
    """cv2.VideoCapture of a path, an address or a camera, or None if it does not open. Without OpenCV's own messages:
    what matters of them is in our errors and notes (OPENCV_FFMPEG_LOGLEVEL, if set, is left as it is)."""
    os.environ.setdefault(
        "OPENCV_FFMPEG_LOGLEVEL", "-8"
    )  # AV_LOG_QUIET; read when FFmpeg is first used
    cv2 = opencv()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    if isinstance(target, int):
        capture = cv2.VideoCapture(target)
    else:
        limits = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            TIMEOUT_MS,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            TIMEOUT_MS,
        ]
        capture = cv2.VideoCapture(target, cv2.CAP_FFMPEG, limits if "://" in target else [])
    # FFmpeg would draw a text file as a video of a terminal
    if not capture.isOpened() or capture.get(cv2.CAP_PROP_FOURCC) == int.from_bytes(
        b"ansi", "little"
    ):
        capture.release()
        return None
    return capture
