"""The label sets that the tool knows by name, data sets without a reader of their own included."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module

from .labels import LabelSet, plain

# Data sets whose classes do not depend on their files
MODULES = ("cityscapes", "camvid", "synthetic", "vspw")

# The 7 groups that the lite edition of the India Driving Dataset is labelled with, by its ids
GROUPS = LabelSet.of(
    {
        "drivable": (128, 64, 128),
        "non-drivable": (244, 35, 232),
        "living things": (220, 20, 60),
        "vehicles": (0, 0, 142),
        "roadside objects": (220, 190, 40),
        "far objects": (107, 142, 35),
        "sky": (70, 130, 180),
    }
)


def known_sets() -> tuple[LabelSet, ...]:
    """All of them. Modules of data sets are imported on demand."""
    modules = (import_module(f".{name}", __package__) for name in MODULES)
    return (*(module.LABELS for module in modules), GROUPS)


def known_set(names: Collection[str], *, part: bool = False) -> LabelSet | None:
    """The label set that has exactly these names, in whatever order and spelling.

    part: it may have more.
    """
    wanted = {plain(name) for name in names}
    for labels in known_sets():
        existing = {plain(name) for name in labels.names}
        if existing == wanted or (part and wanted < existing):
            return labels
    return None
