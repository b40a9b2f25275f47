"""--extra-data: further labelled data that a training learns from."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import NamedTuple

from .jobs import TRAINING
from .option import FREE, Group, Option
from .tables import DATASETS
from .types import path, scale

FORM = "NAME:ROOT[:WEIGHT[:MAP]]"
NAMES = tuple(name for name, row in DATASETS.items() if row.variable)


class ExtraData(NamedTuple):
    """One further data set, as words name it."""

    dataset: str
    root: str
    weight: float | None = None  # clips of it for each clip of --dataset; None: all of them once
    class_map: str | None = None

    @property
    def module(self) -> str:
        """The module that reads it."""
        return DATASETS[self.dataset].module

    def __str__(self) -> str:
        """The words again."""
        fields = ["" if field is None else str(field) for field in self]
        return ":".join(fields).rstrip(":")


def extra_data(text: str) -> ExtraData:
    """NAME:ROOT[:WEIGHT[:MAP]], the weight left empty where only a map is given."""
    fields = text.split(":")
    if not 2 <= len(fields) <= 4 or not all(fields[:2]):
        raise ArgumentTypeError(f"expected {FORM}, got {text!r}")
    name, root, weight, class_map = [*fields, "", ""][:4]
    if name not in NAMES:
        raise ArgumentTypeError(
            f"expected {FORM} with NAME one of {', '.join(NAMES)}, got {name!r} in {text!r}"
        )
    return ExtraData(name, path(root), weight_of(weight, text), path(class_map) or None)


def weight_of(text: str, whole: str) -> float | None:
    if not text:
        return None
    try:
        return scale(text)
    except (ValueError, ArgumentTypeError) as error:
        raise ArgumentTypeError(
            f"expected a positive number as WEIGHT of {FORM}, got {text!r} in {whole!r}"
        ) from error


MIXING = Group(
    "training: further data",
    (
        Option(
            "--extra-data",
            f"train on this labelled data too ({', '.join(NAMES)}; its train split): WEIGHT clips "
            "of it for each clip of --dataset (default: all of them once an epoch); MAP, as "
            "--class-map, says what its classes become. Several may be named",
            type=extra_data,
            nargs="+",
            default=[],
            metavar=FORM,
            # As of --data-root, the number of clips is compared instead.
            resume=FREE,
            per_machine=True,
        ),
    ),
    jobs=TRAINING,
)
