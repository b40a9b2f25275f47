"""What a row of the tables of methods, backbones and data sets says."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .option import Group


def no_offsets(args: Namespace) -> tuple[int, ...]:
    return ()


def fits_all(backbone: Backbone) -> str | None:
    return None


@dataclass(frozen=True)
class Method:
    """A method: its network, its own options, and defaults of options that others have too.

    what: one line of help. network: "module:Class" of the network.
    groups: its own options; a group may stand in several rows.
    defaults: by dest. published: further defaults by (backbone, data set), where it was
        published on both.
    offsets: the past frames that a read uses, oldest first, in frame steps: (-3, -2, -1).
    derived: further values that follow from the options and that the network is built with.
    refusals: why options cannot go together. unfit: why a backbone cannot serve.
    """

    name: str
    what: str
    network: str
    groups: tuple[Group, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)
    published: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    offsets: Callable[[Namespace], tuple[int, ...]] = no_offsets
    derived: dict[str, Callable[[Namespace], Any]] = field(default_factory=dict)
    refusals: tuple[Callable[[Namespace], str | None], ...] = ()
    unfit: Callable[[Backbone], str | None] = fits_all


@dataclass(frozen=True)
class Backbone:
    """A backbone: its network, its own options and defaults.

    stage_strides: strides of the maps that its encoder gives, where it gives four.
    auxiliary: whether it has an auxiliary head for training.
    """

    name: str
    what: str
    network: str
    groups: tuple[Group, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)
    stage_strides: tuple[int, ...] = ()
    auxiliary: bool = False


@dataclass(frozen=True)
class Dataset:
    """A data set: the module that lists its videos, its splits, its own options and defaults.

    variable: the environment variable that stands for --data-root; None where it has no files.
    """

    name: str
    what: str
    module: str
    splits: tuple[str, ...]
    groups: tuple[Group, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)
    variable: str | None = None
