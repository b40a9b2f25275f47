"""OpenCV, imported where it is used: reading files, flips and crops work without it."""

from __future__ import annotations


def opencv():
    """The module cv2, computing in the calling thread. RuntimeError where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise RuntimeError(
            "this needs OpenCV: pip install opencv-python-headless (or choose --interpolation pil "
            "and --photometric none, without rotation and blur, and data that is not rendered)"
        ) from error
    # Its own thread pool does not survive the fork of loader workers: the first call in a worker
    # would wait for ever.
    cv2.setNumThreads(0)
    return cv2
