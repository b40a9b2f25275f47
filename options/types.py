"""Types of options: text -> value. What is wrong is said by what was expected and what came."""

from __future__ import annotations

import os
from argparse import ArgumentTypeError

LARGEST = 2**31 - 1
WORKERS = 256  # loader processes per rank, at most: thousands would take all memory of a machine


def path(text: str) -> str:
    """A path, with ~ as the home folder where no shell has seen it."""
    return os.path.expanduser(text)


def whole(text: str, least: int) -> int:
    """A whole number from `least` on that fits into 31 bits."""
    value = int(text)
    if value < least:
        raise ArgumentTypeError(f"expected a whole number of at least {least}, got {text}")
    if value > LARGEST:
        raise ArgumentTypeError(
            f"expected a whole number of at least {least}, below 2^31, got {text}"
        )
    return value


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return whole(text, 1)


def natural(text: str) -> int:
    """A whole number from 0 on."""
    return whole(text, 0)


def negative(text: str) -> int:
    """An offset into the past: a whole number below 0."""
    value = int(text)
    if value >= 0:
        raise ArgumentTypeError(f"expected a whole number below 0, got {text}")
    return -whole(text.removeprefix("-"), 1)


# Generators take more, but a number that fits everywhere spares surprises.
def seed(text: str) -> int:
    """A whole number that random generators take."""
    value = int(text)
    if not 0 <= value <= LARGEST:
        raise ArgumentTypeError(f"expected a whole number from 0 to {LARGEST}, got {text}")
    return value


def frame_rate(text: str) -> float:
    """Frames a second."""
    value = float(text)
    if not 0 < value < 1000:
        raise ArgumentTypeError(f"expected frames a second above 0 and below 1000, got {text}")
    return value


def workers(text: str) -> int:
    """A number of loader processes."""
    if int(text) > WORKERS:
        raise ArgumentTypeError(f"{text} would start as many processes: {WORKERS} at most")
    return whole(text, 0)


def odd(text: str) -> int:
    """The side of a window that has a centre."""
    value = int(text)
    if value < 1 or value % 2 == 0:
        nearest = max(value, 0) + 1
        raise ArgumentTypeError(f"expected an odd number from 1 on, got {text}: take {nearest}")
    return value


# The published spelling of "by default" is -1.
def window(text: str) -> int:
    """Frames of a clip: -1 for "as many as fill the memory", or at least two."""
    value = int(text)
    if value != -1 and not 2 <= value <= LARGEST:
        raise ArgumentTypeError(
            f"expected -1, or the labelled frame and one before it at least (2), got {text}"
        )
    return value


def milliseconds(text: str) -> float:
    """A time of 0 or more."""
    value = float(text)
    if not 0 <= value < 1e6:
        raise ArgumentTypeError(f"expected milliseconds from 0 to below 1e6, got {text}")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return value


def rate(text: str) -> float:
    """A finite number that is not negative."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"expected a number of at least 0, got {text}")
    return value


def scale(text: str) -> float:
    """A factor: finite and positive."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"expected a positive number (above 0), got {text}")
    return value


# An option that takes a size, as keyword arguments of Option.
SIZE = {"nargs": 2, "type": positive, "metavar": ("H", "W")}
