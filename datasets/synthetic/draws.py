"""Random draws that several parts of the synthetic world share.

A video is a function of its seed: adding, removing or reordering a draw changes what is drawn after
it from the same generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from numpy.random import Generator

T = TypeVar("T")


def pick(rng: Generator, table: Sequence[tuple[T, float]]) -> T:
    """One item of a table of (item, probability)."""
    probabilities = [probability for _, probability in table]
    index = rng.choice(len(table), p=probabilities)
    return table[index][0]


def places(rng: Generator, low: float, high: float, end: float) -> Iterator[float]:
    """Positions z along a street up to `end`, `low` to `high` metres apart.

    Each distance is drawn when the next position is asked for, so after the draws of the caller.
    """
    # the first may lie behind the camera's start, which is at 0
    z = -8 + rng.uniform(0, high)
    while z < end:
        yield z
        z += rng.uniform(low, high)
