"""Decodes a video packet by packet with PyAV: a damaged packet costs its frame, not the rest."""

from __future__ import annotations

from collections.abc import Iterator

from .base import plausible_fps

TIMEOUT = 10.0  # seconds to open an address, and to wait for its next packet
READ_ERRORS = 16  # in a row, after which a file is taken to be over
BACKWARD = 1.0  # seconds that time stamps must jump back to count as begun anew
OUT_OF_ORDER = 0.001  # seconds by which a frame that comes late follows the one before it
# One packet of these is one frame, unless fields are interlaced: a packet of others may be hidden.
ONE_TO_ONE = ("h264", "hevc", "mjpeg")


def pyav():
    """The module av without messages on stderr, or None where it cannot be imported."""
    try:
        import av
    # OSError: a library that it needs does not fit this system
    except (ImportError, OSError):
        return None
    av.logging.set_level(av.logging.PANIC)
    return av


def open_container(target: str):
    """An av.InputContainer with a video in it, or None where there is none."""
    av = pyav()
    timeout = TIMEOUT if "://" in target else None
    try:
        # titles in an unknown encoding are no reason to refuse a video
        container = av.open(target, timeout=timeout, metadata_errors="replace")
    except (OSError, ValueError, RuntimeError):
        # FFmpeg's errors are all of these
        return None
    stream = container.streams.best("video")
    # FFmpeg would draw a text file as a video of a terminal
    if stream is None or stream.codec_context is None or stream.codec_context.name == "ansi":
        container.close()
        return None
    return container


class Decoder:
    """The frames of an opened container, in the order in which they are shown.

    rate: frames a second, None where no possible one is stated. count: how many frames the
    container states, None where it does not. lost: frames that could not be decoded so far. broken:
    reading ended by an error, not by the end of the file.
    """

    def __init__(self, container):
        self.container = container
        self.stream = container.streams.best("video")
        # Several frames at once would be faster on many cores. But a damaged packet near the end
        # then takes the sound frames with it that wait behind it.
        self.stream.thread_type = "SLICE"
        self.rate = next(filter(plausible_fps, self.stated_rates()), None)
        self.count = self._count()
        self.broken = False
        self._errors = 0
        self._packets = 0  # that should give a frame
        self._frames = 0
        self._interlaced = False
        self._one_to_one = self.stream.codec_context.name in ONE_TO_ONE
        self._partial = False  # the packet that came last is not whole and gave no frame

    def stated_rates(self) -> list[float]:
        """Frames a second as the container says and as FFmpeg guesses, 0 where they do not."""
        return [float(rate or 0) for rate in (self.stream.average_rate, self.stream.guessed_rate)]

    @property
    def read(self) -> int:
        """Frames that came or could not be decoded."""
        return max(self._packets, self._frames)

    @property
    def lost(self) -> int:
        """Frames that could not be decoded. A lost key frame costs others that raise no error."""
        if not self._errors or self._interlaced or not self._one_to_one:
            return self._errors
        return max(self._errors, self._packets - self._frames)

    def frames(self) -> Iterator:
        """av.VideoFrame after av.VideoFrame, as packets complete them."""
        counting = False
        for packet in self._demux():
            frames = self._decode(packet)
            damaged = frames is None
            # What a cut leaves before the first key frame was never meant to be shown. Some codecs
            # call it an error; the others know it from a damaged key frame.
            counting = counting or packet.is_keyframe or (damaged and self._one_to_one)
            if counting and packet.size and not packet.is_discard:
                self._packets += 1
                self._errors += damaged
                self._partial = damaged and packet.is_corrupt
            for frame in frames or ():
                self._frames += 1
                self._interlaced = self._interlaced or frame.interlaced_frame
                yield frame
        if self._partial:
            # where a file was cut, which is told as such
            self._packets -= 1
            self._errors -= 1

    def stamp(self, frame) -> float | None:
        """When a frame is shown, in seconds of the container's clock, None where none is stated."""
        # AVI states in which order frames are decoded, not when they are shown
        stamp = frame.dts if frame.pts is None else frame.pts
        if stamp is None:
            return None
        # not frame.time: frames that are held back to the end do not know their time base
        return float(stamp * self.stream.time_base)

    def close(self) -> None:
        self.container.close()

    def _demux(self) -> Iterator:
        """Packets of the video, then an empty one, which asks for frames that are held back."""
        av = pyav()
        failures = 0
        while True:
            try:
                for packet in self.container.demux(self.stream):
                    failures = 0
                    yield packet
                return
            except (av.error.FFmpegError, OSError):
                # behind damage within a container there may be more
                failures += 1
                if failures == READ_ERRORS:
                    break
        self.broken = True
        yield av.Packet()

    def _decode(self, packet) -> list | None:
        """Frames that a packet completes, None where it is damaged."""
        av = pyav()
        try:
            return self.stream.codec_context.decode(packet if packet.size else None)
        except EOFError:
            # asked for held back frames twice
            return []
        except av.error.FFmpegError:
            return None

    def _count(self) -> int | None:
        # 0: not stated, as in Matroska
        if self.stream.frames > 0:
            return self.stream.frames
        seconds = self._seconds()
        if seconds is None or self.rate is None:
            return None
        return round(seconds * self.rate) or None

    def _seconds(self) -> float | None:
        """How long the container says that it lasts."""
        if self.stream.duration:
            return float(self.stream.duration * self.stream.time_base)
        if self.container.duration:
            return self.container.duration / 1e6
        return None


class Clock:
    """Time stamps of a video as seconds since its first frame, always rising."""

    def __init__(self, rate: float):
        """rate: frames a second where stamps do not tell."""
        self._step = 1 / rate
        self._shift = 0.0
        self._stamp: float | None = None
        self._time: float | None = None

    def time(self, stamp: float | None) -> float:
        """Seconds of a frame whose stamp is so many seconds, None where it has none."""
        if self._time is None:
            time = 0.0
            self._shift = -(stamp or 0.0)
        else:
            time = self._next(stamp)
        self._stamp = stamp
        self._time = time
        return time

    def _next(self, stamp: float | None) -> float:
        regular = self._time + self._step
        if stamp is None:
            return regular
        time = stamp + self._shift
        # All stamps are one, or they begin anew, as in files that were joined.
        if stamp == self._stamp or self._time - time > BACKWARD:
            self._shift += regular - time
            return regular
        if time > self._time:
            return time
        return self._time + OUT_OF_ORDER
