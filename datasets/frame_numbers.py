"""Where frames are missing, by the numbers in their names.

Digits at the end of a word are a number: frame0001, img_1, aachen_000000_000019_leftImg8bit (8bit
is none). From frame to frame the last number that changes counts.

    0001 0003 0004 0005                 the step is 1: frames are missing before 0003
    a_005 a_010 a_015 a_025             the step is 5: before a_025
    1305031102.175304 ....211214        times, each rise is another one: nothing is known
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

NUMBER = re.compile(r"[0-9]+(?![0-9A-Za-z])")
MANY = 1000  # different rises: they are those of times


def gaps_before(names: Sequence[str]) -> frozenset[int]:
    """Indices of the frames before which frames are missing."""
    rises = [rise_between(*names) for names in pairwise(names)]
    missing = rises_over_gaps(Counter(rises))
    return frozenset(index for index, rise in enumerate(rises, 1) if rise in missing)


def rise_between(before: str, name: str) -> int | None:
    """By how much the number rises from one frame's name to the next; None: no number changes."""
    # A name that occurs twice has a further number at its end: 0001, 0001_2.
    numbers = zip(NUMBER.findall(before), NUMBER.findall(name), strict=False)
    rises = [int(after) - int(first) for first, after in numbers]
    return next((rise for rise in reversed(rises) if rise), None)


def rises_over_gaps(rises: Mapping[int | None, int]) -> frozenset[int]:
    """The rises between neighbours, with how often each occurs -> those across missing frames.

    The most frequent one is the step. Where it is rarer than all others together, the numbers are
    no frame numbers, and nothing is known to be missing.
    """
    known = {rise: count for rise, count in rises.items() if rise is not None}
    # Of those that are equally frequent the smallest: missing frames make a rise larger.
    order = sorted(known, key=lambda rise: (-known[rise], rise))
    step = next((rise for rise in order if rise > 0), None)
    if step is None or 2 * known[step] < sum(known.values()) or len(rises) > MANY:
        return frozenset()
    return frozenset(rise for rise in known if is_over_gap(rise, step))


def is_over_gap(rise: int, step: int) -> bool:
    """Whether frames are missing, or the numbers begin anew."""
    # Times in whole milliseconds are rounded: 33, 67, 100.
    return rise < 0 or 8 * rise > 9 * step
