"""Checkpoints: files that survive a crash, and weights that fit the network or are refused."""

from .contents import classes_of, network_of, palette_of, weights_of, work_size_of
from .loading import Report, load_weights
from .publishing import save_published
from .reading import read, read_latest, resolve
from .saving import previous, save

__all__ = [
    "Report",
    "classes_of",
    "load_weights",
    "network_of",
    "palette_of",
    "previous",
    "read",
    "read_latest",
    "resolve",
    "save",
    "save_published",
    "weights_of",
    "work_size_of",
]
