"""The rows of the methods: each module here has one, named ROW. A new file is a new method."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from ..rows import Method


def method_rows() -> tuple[Method, ...]:
    """The rows of all modules in this folder, by name."""
    # By name: the order of a folder differs from disk to disk.
    names = sorted(module.name for module in iter_modules(__path__))
    return tuple(import_module(f"{__name__}.{name}").ROW for name in names)
