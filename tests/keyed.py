"""A method with key frames that the command line knows: the toy of tests/toys.py as `single`."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

import options
from options import acting
from options.keyframes import KEYS
from options.rows import Method


def offsets(args) -> tuple[int, ...]:
    return tuple(range(-args.key_interval, 0))


@contextmanager
def keyed_method():
    """`--method single` is a toy that has the options of key frames."""
    row = Method("single", "a toy", "toys:KeyFrames", groups=(KEYS,), offsets=offsets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(options.METHODS, "single", row)
        forget()
        yield
    forget()


def forget() -> None:
    """The tables that were derived from other rows."""
    acting.all_groups.cache_clear()
    acting.all_options.cache_clear()
