"""Checkpoints: files that survive a crash, and weights that fit the network or are refused."""

from .contents import network_of, weights_of
from .loading import Report, load_weights
from .reading import read, read_latest, resolve
from .saving import previous, save

__all__ = [
    "Report",
    "load_weights",
    "network_of",
    "previous",
    "read",
    "read_latest",
    "resolve",
    "save",
    "weights_of",
]
