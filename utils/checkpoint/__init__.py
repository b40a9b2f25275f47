"""Checkpoints: files that survive a crash, and weights that fit the network or are refused."""

from .files import previous, read, read_latest, save
from .loading import Report, load_weights, network_of, weights_of

__all__ = [
    "Report",
    "load_weights",
    "network_of",
    "previous",
    "read",
    "read_latest",
    "save",
    "weights_of",
]
