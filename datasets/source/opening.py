"""Opens whatever a spec names; one function for each kind of source.

    spec                                kind        frames
    clip.mp4                            video       until it ends; early ends are noted
    frames                              folder      its images (names.IMAGES), 2 before 10
    'frames/*.png' (quoted), 'a/**/*'   glob        the images among its matches, 2 before 10
    picture.jpg                         image       one, or all pages of a TIFF, WebP, PNG or AVIF
    0, /dev/video0                      camera      live, reconnects
    rtsp:// rtmp:// http:// https://    stream      live, reconnects; a file behind http: a video
    -                                   stdin       PPM (P6) images one after another (pipe.py)

Images are turned as their EXIF says; videos are turned, mirrored and stretched as their container
says. Images and PPM may change size on the way; within one video all frames are scaled to the size
of the first.

A frame's time: time stamps in a video, arrival in a live source, index / fps where fps is given,
else None.
"""

from __future__ import annotations

from collections.abc import Callable

from .base import Source, plausible_fps
from .image_files import open_image, open_images
from .live import open_camera, open_stream
from .names import LISTINGS, Skip, read_all, source_kind
from .pipe import open_pipe
from .video import open_video

# kind of one file, device or address -> what opens it, as opener(spec, kind, step=..., fps=...)
OPENERS: dict[str, Callable[..., Source]] = {
    "video": open_video,
    "image": open_image,
    "camera": open_camera,
    "stream": open_stream,
    "stdin": open_pipe,
}


def open_source(
    spec: str, *, step: int = 1, fps: float | None = None, skip: Skip = read_all
) -> Source:
    """Open whatever `spec` names (see the top of this file).

    step: give every step-th frame. fps: frames a second of the source before the step, instead of
    what it and its time stamps say. skip: which files of a folder or glob are left out.
    FileNotFoundError: no such file, or no images in it; ValueError: damaged, of no kind that is
    read, or an impossible step or fps; RuntimeError: no such camera or stream.
    """
    if step < 1:
        raise ValueError(f"the frame step must be at least 1, got {step}")
    if fps is not None and not plausible_fps(fps):
        raise ValueError(f"frames a second must be above 0 and below 1000, got {fps}")
    kind = source_kind(spec)
    if kind in LISTINGS:
        return open_images(spec, kind, skip, step=step, fps=fps)
    return OPENERS[kind](spec, kind, step=step, fps=fps)
