"""Frames without labels: video files, folders of images, cameras, streams, pipes."""

from .source import Frame, Source, open_source

__all__ = ["Frame", "Source", "open_source"]
