"""Frames without labels, from wherever they come: files, folders, cameras, streams, a pipe.

    spec                                kind        frames
    clip.mp4                            video       until it ends; early ends are noted
    frames                              folder      its images (IMAGES), naturally sorted: 2.png before 10.png
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

import glob
import math
import os
import re
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .files import UNREADABLE, natural_key

IMAGES = ("png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp", "ppm")
VIDEOS = ("mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "ts", "mts", "m2ts", "wmv", "flv", "ogv", "3gp")
STREAMS = ("rtsp", "rtmp", "http", "https")
FORMS = ("a source is a video or image file, a folder of images, a quoted glob ('frames/*.png'), a camera index (0), "
         "a stream (rtsp:// rtmp:// http:// https://) or - for PPM images on standard input")
DEFAULT_FPS = 25.0          # of what has no frame rate of its own, or an impossible one
BACKOFF = (1, 2, 4, 8, 16)  # seconds before each attempt to reconnect
STABLE = 60.0               # seconds after which a connection counts as good and attempts count anew
TIMEOUT_MS = 10_000         # of opening a stream, and of waiting for its next frame
MAX_PIXELS = 1 << 28        # of a PPM image: its header is not to be trusted with our memory


class Frame(NamedTuple):
    image: np.ndarray       # (H, W, 3) uint8 RGB
    name: str               # for files made of it: the stem of an image, 000042 in a video
    index: int              # among the source's own frames, those that the step skips included


class Source:
    """Frames of one source, once, in order, every `step`-th of them.

    fps: frames a second after the step; length: how many frames will come, where known (for a video as its
    header counts, which may be wrong); notes: what the user should hear (more come while reading); live: frames
    are lost rather than late. A subclass gives `_entries`: per frame of the source its name or None, and a
    function that decodes it, called for the frames that the step keeps.
    """

    def __init__(self, spec: str, kind: str, *, step: int, fps: float | None = None, count: int | None = None):
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
        for name, path in zip(_number_repeats([path.stem for path in self.paths]), self.paths, strict=True):
            if self._stopping.is_set():
                return
            yield name, partial(read_image, path)


class VideoSource(Source):
    """A video with an end: a file, or a file behind http."""

    def __init__(self, spec: str, kind: str, capture, *, step: int, fps: float | None):
        import cv2
        count, own_fps = (capture.get(key) for key in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
        count = round(count) if 0 < count < 1e9 else None
        super().__init__(spec, kind, step=step, fps=fps or (own_fps if plausible_fps(own_fps) else None), count=count)
        if not fps and not plausible_fps(own_fps):
            self.notes.append(f"{printable(spec)} says {own_fps:g} frames a second: {DEFAULT_FPS:g} assumed")
        self._capture, self._count = capture, count

    def _entries(self):
        seen = 0
        while not self._stopping.is_set() and self._capture.grab():
            seen += 1
            yield None, self._retrieve
        if self._stopping.is_set():
            return
        if seen == 0:
            raise ValueError(f"{printable(self.spec)} gives no frame: it is damaged, cut short or no video")
        if self._count is not None and seen < self._count:
            self.notes.append(f"{printable(self.spec)} ended after {seen} of {self._count} frames")

    def _retrieve(self) -> np.ndarray:
        import cv2
        decoded, image = self._capture.retrieve()
        if not decoded:
            raise ValueError(f"a frame of {printable(self.spec)} cannot be decoded: is the video damaged?")
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
            raise RuntimeError(f"{self.kind} {printable(self.spec)} gives no frame: is something else using it?")

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
                self.notes.append(f"{spec} dropped after {seen} frames, reconnected (attempt {attempt + 1})")
                return attempt + 1
        if not self._stopping.is_set():
            self.notes.append(f"{spec} dropped after {seen} frames and gave no more in {len(BACKOFF)} attempts")
        return None


class PipeSource(Source):
    """PPM (P6) images one after another from a file descriptor; waiting for bytes ends with `stop`."""

    def __init__(self, spec: str, descriptor: int, **options):
        super().__init__(spec, "stdin", **options)
        self._descriptor = descriptor

    def _entries(self):
        seen = 0
        try:
            while (decode := self._next_image()) is not None:
                seen += 1
                yield None, decode
        except EOFError:
            if seen and not self._stopping.is_set():
                self.notes.append(f"standard input ended inside image {seen + 1}: {seen} came whole")
        if seen == 0 and not self._stopping.is_set():
            raise ValueError("standard input ended before its first PPM image was whole: did the writer fail?")

    def _next_image(self) -> Callable[[], np.ndarray] | None:
        """What decodes the next image, or None at the end; EOFError where the pipe ends inside it."""
        tokens = [self._token()]
        if not tokens[0]:
            return None
        if tokens[0] == b"P6":
            tokens += [self._token() for _ in range(3)]
        if not tokens[-1]:
            raise EOFError
        numbers = [int(token) for token in tokens[1:] if token.isdigit()]
        width, height, maximum = numbers if len(numbers) == 3 else (0, 0, 0)
        if not (0 < maximum < 65536 and 0 < width * height <= MAX_PIXELS):
            raise ValueError(f"standard input must carry PPM (P6) images, got {b' '.join(tokens)!r}: pipe them with "
                             "ffmpeg -i in.mp4 -f image2pipe -c:v ppm -")
        data = np.empty((height, width, 3), np.uint8 if maximum < 256 else ">u2")
        if self._fill(memoryview(data.reshape(-1).view(np.uint8))) < data.nbytes:
            raise EOFError
        return partial(scale_to_8, data, maximum)

    def _token(self) -> bytes:
        """The next word of a header (16 bytes of it) and the one white space behind it; b"" at the end."""
        token, byte, comment = b"", bytearray(1), False
        while len(token) < 16:
            if not self._fill(memoryview(byte)):
                if token:
                    raise EOFError
                break
            comment = byte != b"\n" if comment else byte == b"#"
            if token and byte.isspace() and not comment:
                break
            token += b"" if comment else byte.strip()
        return token

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


class ReadAhead:
    """Decodes a source on a background thread, `depth` frames ahead; iterate it like the source.

    latest: of a live source, keep the newest frame alone (`dropped` counts the others), so that a slow consumer
    lags by one frame and not by a queue. An error of the source is raised where it would have come. Closing ends
    the thread and closes the source, however far the consumer came.
    """

    def __init__(self, source: Source, depth: int = 4, *, latest: bool = False):
        if depth < 1:
            raise ValueError(f"reading ahead needs a depth of at least 1, got {depth}")
        if latest and not source.live:
            raise ValueError(f"only live sources may drop frames; {printable(source.spec)} is a {source.kind}")
        self.source, self.latest, self.dropped = source, latest, 0
        self._frames: deque[Frame] = deque()
        self._depth = 1 if latest else depth
        self._change = threading.Condition()
        self._stopped = self._ended = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name=f"read ahead {source.name}", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            for frame in self.source:
                with self._change:
                    if self.latest:
                        self.dropped += len(self._frames)
                        self._frames.clear()
                    self._change.wait_for(lambda: self._stopped or len(self._frames) < self._depth)
                    if self._stopped:
                        break
                    self._frames.append(frame)
                    self._change.notify_all()
        except Exception as error:      # the consumer's to handle, whatever it is
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
        return ImageSource(spec, kind, [path] if kind == "image" else _images(spec, kind), **options)
    capture = _capture(os.path.abspath(path))       # absolute: FFmpeg would take "a:b.mp4" for a protocol
    if capture is None:
        raise ValueError(f"{spec} cannot be read as a video: it is damaged, cut short or of an unknown codec")
    return VideoSource(spec, kind, capture, **options)


def source_kind(spec: str) -> str:
    """stdin, camera, stream, folder, image, video or glob; a file named like a camera is asked for as ./0."""
    scheme = spec.partition("://")[0].lower() if "://" in spec else None
    if spec == "-":
        return "stdin"
    if _camera_index(spec) is not None:
        return "camera"
    if scheme in STREAMS:
        return "stream"
    path = Path(spec).expanduser()
    if spec and os.path.exists(path):
        return "folder" if path.is_dir() else "image" if _is(path, IMAGES) else "video"
    if scheme is None and glob.has_magic(spec):
        return "glob"
    raise FileNotFoundError(f"there is no {printable(spec) or 'source with an empty name'}: {FORMS}")


def expand_sources(specs: Sequence[str]) -> list[str]:
    """One spec per source, each once: videos and folders that a glob matches become sources of their own, and so do
    the videos of a folder without images; the images that a glob matches stay one source."""
    found: dict[str, str] = {}
    for spec in specs:
        kind = source_kind(spec)
        parts = _parts(spec, kind) if kind in ("folder", "glob") else [spec]
        for part in parts:
            found.setdefault(os.path.abspath(part) if os.path.exists(part) else part, part)
    return list(found.values())


def unique_names(specs: Sequence[str]) -> list[str]:
    """A name for the outputs of each source: a/clip.mp4, b/clip.mp4 -> clip, clip_2. To be called with all sources,
    before ranks share them."""
    return _number_repeats([source_name(spec) for spec in specs])


def source_name(spec: str) -> str:
    """A stem that is safe in file names: solidWhiteRight, camera0, stdin, rtsp_host_path (without passwords)."""
    if spec == "-":
        return "stdin"
    if _camera_index(spec) is not None:
        return f"camera{_camera_index(spec)}"
    scheme, separator, address = printable(spec).partition("://")
    if separator and scheme.lower() in STREAMS:
        name = f"{scheme}_{re.split('[?#]', address)[0]}"
    else:
        path = Path(os.path.abspath(Path(spec).expanduser()))
        if not os.path.exists(path):    # of a glob, the folder in front of its first wildcard
            path = next((folder for folder in (path, *path.parents) if not glob.has_magic(str(folder))), path)
        name = path.name if os.path.isdir(path) else path.stem
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:100] or "source"


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as EXIF says, transparency on black, 16 bits scaled to 8; ValueError if damaged."""
    from PIL import Image, ImageOps
    try:
        with Image.open(path) as image:
            return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as an image ({error}): is it damaged or cut short?") from error


def _to_rgb(image) -> np.ndarray:
    """PIL image of any mode -> (H, W, 3) uint8."""
    from PIL import Image
    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers, whose range is not known")
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"its values {grey.min()} to {grey.max()} do not fit 16 bits")
        return np.repeat(scale_to_8(grey, 65535)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def scale_to_8(values: np.ndarray, maximum: int) -> np.ndarray:
    """Integers 0..maximum -> uint8 0..255, rounded."""
    if maximum == 255:
        return values
    return ((values.astype(np.uint32) * 255 + maximum // 2) // maximum).clip(0, 255).astype(np.uint8)


def plausible_fps(fps: float) -> bool:
    """Containers without a rate say 0, nan, or the ticks of their clock: 1000, 90000."""
    return math.isfinite(fps) and 0 < fps < 1000


def printable(spec: str) -> str:
    """The spec without the user and password of a stream."""
    return re.sub(r"(?<=://)[^/?#]*@", "", spec)


def _number_repeats(names: Sequence[str]) -> list[str]:
    """Names made different: the second `a` becomes a_2. Case does not make a difference on every disk."""
    taken: set[str] = set()
    last: dict[str, int] = {}       # the number given to this name before, so that many repeats take no search
    result = []
    for name in names:
        new, number = name, last.get(name, 1)
        while new.lower() in taken:
            number += 1
            new = f"{name}_{number}"
        taken.add(new.lower())
        last[name] = number
        result.append(new)
    return result


def _camera_index(spec: str) -> int | None:
    match = re.fullmatch(r"(?:/dev/video)?(\d{1,2})", spec, re.ASCII)
    return int(match[1]) if match else None


def _is(path: Path, suffixes: Sequence[str]) -> bool:
    return path.suffix.lower()[1:] in suffixes


def _inside(spec: str, kind: str) -> list[Path]:
    """What a folder holds or a glob matches, naturally sorted, without hidden files (a Mac leaves ._1.png by 1.png)."""
    path = Path(spec).expanduser()
    found = path.iterdir() if kind == "folder" else map(Path, glob.glob(str(path), recursive=True))
    inside = sorted((entry for entry in found if not entry.name.startswith(".")), key=_order)
    if not inside:
        raise FileNotFoundError(f"{spec} is empty: {FORMS}" if kind == "folder" else f"nothing matches {spec}: {FORMS}")
    return inside


def _order(path: Path) -> tuple:
    """Natural order folder by folder; 1.png and 01.png in an order that does not depend on the disk."""
    return [natural_key(Path(part)) for part in path.parts], str(path)


def _images(spec: str, kind: str) -> list[Path]:
    """The images of a folder or glob; FileNotFoundError where there are none."""
    inside = _inside(spec, kind)
    images = [entry for entry in inside if _is(entry, IMAGES) and entry.is_file()]
    if not images:
        raise FileNotFoundError(f"there is no image ({' '.join(IMAGES)}) among the {len(inside)} entries of {spec}")
    return images


def _parts(spec: str, kind: str) -> list[str]:
    """The sources that a folder or glob stands for (see expand_sources)."""
    inside = _inside(spec, kind)
    videos = [str(entry) for entry in inside if _is(entry, VIDEOS)]
    if any(_is(entry, IMAGES) for entry in inside):
        return [spec] if kind == "folder" else [spec, *videos]
    folders = [str(entry) for entry in inside if kind == "glob" and entry.is_dir()
               and any(_is(image, IMAGES) for image in entry.iterdir())]
    return videos + folders or [spec]


def _standard_input() -> int:
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise ValueError("source - reads PPM images from standard input, and nothing is piped into it: "
                         "ffmpeg -i in.mp4 -f image2pipe -c:v ppm - | ...")
    return sys.stdin.fileno()


def _open_live(spec: str, kind: str, options: dict) -> Source:
    import cv2
    reopen = partial(_capture, _camera_index(spec) if kind == "camera" else spec)
    capture = reopen()
    if capture is None and kind == "camera":
        raise RuntimeError(f"camera {spec} cannot be opened: is it connected, and free of other programs?")
    if capture is None:
        raise RuntimeError(f"stream {printable(spec)} cannot be opened: is the address right, and does it answer?")
    if kind == "stream" and 0 < capture.get(cv2.CAP_PROP_FRAME_COUNT) < 1e9:
        return VideoSource(spec, kind, capture, **options)      # it has an end: reconnecting would begin it again
    return LiveSource(spec, kind, capture, reopen, **options)


def _capture(target: str | int):
    """cv2.VideoCapture of a path, an address or a camera, or None if it does not open. Without OpenCV's own messages:
    what matters of them is in our errors and notes (OPENCV_FFMPEG_LOGLEVEL, if set, is left as it is)."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")       # AV_LOG_QUIET; read when FFmpeg is first used
    import cv2
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    if isinstance(target, int):
        capture = cv2.VideoCapture(target)
    else:
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS]
        capture = cv2.VideoCapture(target, cv2.CAP_FFMPEG, limits if "://" in target else [])
    # FFmpeg would draw a text file as a video of a terminal
    if not capture.isOpened() or capture.get(cv2.CAP_PROP_FOURCC) == int.from_bytes(b"ansi", "little"):
        capture.release()
        return None
    return capture
