"""Videos that inference writes; and `probe`, which says what is in a video.

Nothing is found half-written under its final name: a video grows as NAME.partial.mp4 and is renamed
once it is closed and found readable. The writer closes when its `with` is left, by an error or by
Ctrl-C as well: what was written until then is kept. SIGTERM ends a Python process without leaving
anything; utils/run/stopping.py turns it into a request.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np

from .encoders import Mpeg4Encoder, encoder, opencv

SPACE_CHECK_EVERY = 8  # frames
# bytes that must stay free: the index of an mp4 is written when it is closed
SPACE_RESERVE = 16 << 20


class VideoWriter:
    """An mp4 of frames in their order; the file opens with the first frame and takes its size.

    An odd side is made even by repeating its last row or column, as many players need; frames
    larger than the encoder takes are scaled down. When the size of the frames changes, a new file
    begins: NAME.mp4, NAME_2.mp4, ... `paths` lists the files that are finished, `notes` what the
    user should know. OSError where frames do not arrive on the disk, RuntimeError where the video
    cannot be opened.
    """

    def __init__(self, path: Path | str, fps: float):
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise ValueError(f"videos are written as .mp4, got {self.path}")
        if not (math.isfinite(fps) and 0 < fps < 1000):
            raise ValueError(f"frames a second must be above 0 and below 1000, got {fps}")
        self.fps = fps
        self.paths: list[Path] = []
        self.notes: list[str] = []
        self._encoder_class = encoder()
        if self._encoder_class is Mpeg4Encoder:
            self.notes.append(
                f"{self.path.name} is written as {Mpeg4Encoder.NAME} at a constant rate, which "
                "many players do not show: PyAV with libx264 is missing (pip install av)"
            )
        self._encoder = None
        self._size: tuple[int, int] | None = None
        self._begin = 0.0  # time of the first frame of the file that is open
        self._parts = 0
        self._written = 0
        self._scaled = False
        self._closed = False

    def write(self, image: np.ndarray, time: float | None = None) -> None:
        """image (H, W, 3) uint8 RGB; time: seconds at which it is shown, rising, None: at `fps`."""
        if self._closed:
            raise ValueError(f"{self.path} is closed: no frame can be added")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                f"a video takes frames (H, W, 3) of uint8, got {image.shape} of {image.dtype}"
            )
        if self._size != image.shape[:2]:
            self._finish()
        if self._written % SPACE_CHECK_EVERY == 0:
            self._check_space()
        if time is None:
            time = self._begin + self._written / self.fps
        size = image.shape[:2]
        image = self._playable(image)
        if self._encoder is None:
            self._open(image, size)
            self._begin = time
        try:
            self._encoder.write(image, time - self._begin)
        # FFmpeg's errors are of both kinds
        except (OSError, ValueError, RuntimeError) as error:
            raise OSError(
                errno.EIO, f"a frame cannot be written to {self._partial}: is the disk full?"
            ) from error
        self._written += 1

    def _playable(self, image: np.ndarray) -> np.ndarray:
        """The image with sides that are even and not longer than the encoder takes."""
        height, width = image.shape[:2]
        scale = min(
            self._encoder_class.MAX_SIDE / max(height, width),
            math.sqrt(self._encoder_class.MAX_PIXELS / (height * width)),
        )
        if scale < 1:
            # down, so that rounding does not lead beyond the limit again
            new_height = max(int(height * scale), 1)
            new_width = max(int(width * scale), 1)
            if not self._scaled:
                self.notes.append(
                    f"{self.path.name}: frames of {height}x{width} (HxW) are scaled to "
                    f"{new_height}x{new_width}, {self._encoder_class.NAME} takes no larger ones"
                )
                self._scaled = True
            cv2 = opencv()
            image = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)
            height, width = image.shape[:2]
        return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")

    def close(self) -> None:
        """Finish the file; OSError if not all frames are in it."""
        self._closed = True
        self._finish()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    @property
    def _target(self) -> Path:
        return (
            self.path
            if self._parts <= 1
            else self.path.with_stem(f"{self.path.stem}_{self._parts}")
        )

    @property
    def _partial(self) -> Path:
        return self._target.with_stem(f"{self._target.stem}.partial")

    def _open(self, image: np.ndarray, size: tuple[int, int]) -> None:
        """image: the first frame as it is encoded; size: (H, W) as it was given."""
        self._parts += 1
        height, width = image.shape[:2]
        try:
            self._encoder = self._encoder_class(self._partial, height, width, self.fps)
        # FFmpeg's errors are of all these kinds
        except (OSError, ValueError, RuntimeError) as error:
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)
            raise RuntimeError(
                f"no mp4 of {height}x{width} (HxW) at {self.fps:g} frames a second can be opened "
                f"as {self._partial} ({error}): the folder must be writable"
            ) from error
        self._size = size

    def _check_space(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.path.parent).free
        if free < SPACE_RESERVE:
            raise OSError(
                errno.ENOSPC,
                f"{free >> 20} MiB are left on the disk of {self.path.parent}, a video needs "
                f"at least {SPACE_RESERVE >> 20} MiB: free some space",
            )

    def _finish(self) -> None:
        """Close the file that is open, if any, and give it its name once it proves readable."""
        if self._encoder is None:
            return
        open_encoder = self._encoder
        written = self._written
        self._encoder = None
        self._size = None
        self._written = 0
        self._begin = 0.0
        # what is wrong shows in the file, which is looked at next
        with suppress(OSError, ValueError, RuntimeError):
            open_encoder.close()
        if not written:
            self._partial.unlink(missing_ok=True)
            return
        found = _frames_by_header(self._partial)
        if not found:
            self._partial.unlink(missing_ok=True)
            raise OSError(
                errno.EIO,
                f"{self._target} was lost: it could not be finished after {written} frames, "
                "is the disk full?",
            )
        self._partial.replace(self._target)
        self.paths.append(self._target)
        if found < written:
            raise OSError(
                errno.EIO, f"{self._target} holds {found} of {written} frames: is the disk full?"
            )


def probe(path: Path | str) -> dict:
    """Decode a whole video -> {"frames": n, "fps": frames a second, "size": (H, W)}; ValueError if
    it has none."""
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no video {path}")
    cv2 = opencv()
    capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
    try:
        frames = 0
        while capture.grab():
            frames += 1
        if not frames:
            raise ValueError(f"{path} gives no frame: it is damaged, cut short or no video")
        height, width = (
            round(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
        )
        return {"frames": frames, "fps": capture.get(cv2.CAP_PROP_FPS), "size": (height, width)}
    finally:
        capture.release()


def _frames_by_header(path: Path) -> int:
    """How many frames the index of an mp4 lists; 0 if it cannot be opened. It is written last, so
    it is there only if the rest is."""
    cv2 = opencv()
    capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
    try:
        return max(round(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) if capture.isOpened() else 0
    finally:
        capture.release()
