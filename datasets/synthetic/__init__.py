"""The built-in data set: street videos rendered from a seed, with exact labels and optical flow."""

from .video import LABELS, SyntheticVideo, labels_of, videos, videos_of
from .world import CLASSES, PALETTE

__all__ = ["CLASSES", "LABELS", "PALETTE", "SyntheticVideo", "labels_of", "videos", "videos_of"]
