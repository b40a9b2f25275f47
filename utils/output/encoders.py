"""What turns frames into an mp4: H.264 by PyAV, or MPEG-4 part 2 by OpenCV where PyAV is missing.

Both have write(image, time), close(), and MAX_SIDE and MAX_PIXELS, which a frame must not exceed.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np

TICKS = 90_000  # of the clock of a video in a second; common frame rates are whole numbers of them


class H264Encoder:
    """H.264 in an mp4 whose index comes first, as browsers, phones and slides play it.

    A frame is shown from its time until that of the next one; the last for 1 / fps.
    """

    NAME = "H.264"
    MAX_SIDE = 8192
    MAX_PIXELS = 8192 * 4320  # level 6.2, the highest

    def __init__(self, path: Path, height: int, width: int, fps: float):
        """height, width: even. OSError or RuntimeError where the file cannot be opened."""
        av = pyav()
        rate = Fraction(fps).limit_denominator(10_000)
        self._duration = max(round(TICKS / fps), 1)
        self._last = -1
        # "file:", because FFmpeg would take "a:b.mp4" for a protocol
        self._container = av.open(
            f"file:{os.path.abspath(path)}",
            "w",
            format="mp4",
            options={"movflags": "+faststart", "video_track_timescale": str(TICKS)},
        )
        self._stream = self._container.add_stream("libx264", rate=rate, options=_x264_options())
        self._stream.width = width
        self._stream.height = height
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)
        _name_colours(self._stream.codec_context)
        # else the file would be opened with the first packet, some frames later
        self._container.start_encoding()
        self._reformatter = av.video.reformatter.VideoReformatter()

    def write(self, image: np.ndarray, time: float) -> None:
        """image (H, W, 3) uint8 RGB; time: seconds since the first frame of this file."""
        av = pyav()
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = self._reformatter.reformat(rgb, format="yuv420p")
        # two frames of one moment: the later one is shown for a tick at least
        self._last = max(round(time * TICKS), self._last + 1)
        frame.pts = self._last
        frame.time_base = Fraction(1, TICKS)
        # only that of the last frame is read
        frame.duration = self._duration
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """OSError where the rest cannot be written."""
        try:
            self._container.mux(self._stream.encode())
        finally:
            self._container.close()


class Mpeg4Encoder:
    """MPEG-4 part 2 (mp4v) at a constant rate: OpenCV takes no times."""

    NAME = "MPEG-4 part 2 (mp4v)"
    MAX_SIDE = 8190
    MAX_PIXELS = 8190 * 8190

    def __init__(self, path: Path, height: int, width: int, fps: float):
        """height, width: even. RuntimeError where the file cannot be opened."""
        cv2 = opencv()
        # FFmpeg would take "a:b.mp4" for a protocol
        name = os.path.abspath(path)
        code = cv2.VideoWriter_fourcc(*"mp4v")
        size = (width, height)
        self._writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, code, _codec_fps(fps), size)
        if not self._writer.isOpened():
            raise RuntimeError("OpenCV cannot open it")

    def write(self, image: np.ndarray, time: float) -> None:
        """image (H, W, 3) uint8 RGB. OSError where it cannot be written."""
        cv2 = opencv()
        # OpenCV 4 returns None
        if self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR)) is False:
            raise OSError("OpenCV cannot write it")

    def close(self) -> None:
        self._writer.release()


def encoder() -> type[H264Encoder] | type[Mpeg4Encoder]:
    """The encoder to write with here."""
    av = pyav()
    # an FFmpeg of the system may come without it
    if av is not None and "libx264" in av.codecs_available:
        return H264Encoder
    return Mpeg4Encoder


def pyav():
    """The module av without messages on stderr, or None where it cannot be imported."""
    try:
        import av
    # OSError: a library that it needs does not fit this system
    except (ImportError, OSError):
        return None
    av.logging.set_level(av.logging.PANIC)
    return av


def opencv():
    """cv2 without messages of its own on stderr: what matters of them is in our errors."""
    # read when FFmpeg is first used; -8 is its AV_LOG_QUIET
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def _x264_options() -> dict[str, str]:
    """Without B frames, times in the file are just those that were given. With a fixed number of
    threads, every machine writes the same bytes, and few frames wait in memory."""
    return {"crf": "20", "preset": "veryfast", "bf": "0", "threads": "4"}


def _name_colours(codec) -> None:
    """Say how RGB was converted. Players would guess BT.709 for large pictures."""
    codec.colorspace = 6  # BT.601, as swscale converts and OpenCV reads
    codec.color_range = 1  # 16 to 235
    codec.color_primaries = 1  # BT.709, which are those of sRGB
    codec.color_trc = 1


def _codec_fps(fps: float) -> float:
    """The nearest rate MPEG-4 can hold: OpenCV writes it as n / 10^k, and n may have 16 bits."""
    if fps < 65:
        return round(fps, 3)
    if fps < 655:
        return round(fps, 2)
    return round(fps, 1)
