"""Frames without labels: video files, folders of images, cameras, streams, pipes.

opening.py opens a source by its spec; base.py is what all sources have in common; image_files.py,
video.py, live.py and pipe.py are the kinds; read_ahead.py decodes on a thread of its own.
"""

from .base import Frame, Source
from .opening import open_source

__all__ = ["Frame", "Source", "open_source"]
