"""Which entry of a file of weights is which of the model: read by every table that may fit, the best one wins.

A table has name, rename(keys) and must_hold(key): `model.key_maps()` gives those of published files, OwnNames is ours.
Nothing half fits: an entry that a table does not know, another shape, a part of a part are reasons to refuse a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

AUXILIARY = re.compile(r"(?:.*\.)?(?:aux|auxiliary_head)\..+")  # heads that only training uses
UNCOUNTED = "num_batches_tracked"  # files of old torch versions lack it


class OwnNames:
    """The table of our own checkpoints: a part of the model that is in the file at all must be there whole."""

    name = "our names"

    def __init__(self, targets: dict[str, Tensor], weights: dict[str, Tensor]):
        self.targets = targets
        self.parts = {key.split(".")[0] for key in weights}

    def rename(self, keys) -> SimpleNamespace:
        return SimpleNamespace(ours={key: key for key in keys}, unused=(), unexpected=())

    def must_hold(self, key: str) -> bool:
        return key.split(".")[0] in self.parts and not AUXILIARY.fullmatch(key)


@dataclass
class Fit:
    """A file read by one table."""

    name: str
    tensors: dict[str, Tensor] = field(default_factory=dict)  # our names
    unused: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    shapes: list[tuple[str, tuple, tuple]] = field(
        default_factory=list
    )  # published name, of the file, of the model

    @property
    def good(self) -> bool:
        return bool(self.tensors) and not (self.unexpected or self.missing or self.shapes)


def fit_by(
    key_map, targets: dict[str, Tensor], weights: dict[str, Tensor], outputs: int | None
) -> Fit:
    """Read `weights` by `key_map`, a KeyMap or OwnNames, without judging. outputs: ours, if they may be new."""
    has_auxiliary = any(map(AUXILIARY.fullmatch, targets))
    renamed = key_map.rename(weights)
    fit = Fit(key_map.name, unused=list(renamed.unused), unexpected=list(renamed.unexpected))
    for name, key in renamed.ours.items():
        if name not in targets:
            (
                fit.unused if AUXILIARY.fullmatch(name) and not has_auxiliary else fit.unexpected
            ).append(key)
        elif outputs and differ_in_outputs(targets[name].shape, weights[key].shape, outputs):
            fit.unused.append(key)
        elif targets[name].shape != weights[key].shape:
            fit.shapes.append((key, tuple(weights[key].shape), tuple(targets[name].shape)))
        else:
            fit.tensors[name] = weights[key]
    fit.missing = [
        name
        for name in targets
        if name not in renamed.ours and not name.endswith(UNCOUNTED) and key_map.must_hold(name)
    ]
    return fit


def differ_in_outputs(ours: torch.Size, theirs: torch.Size, outputs: int) -> bool:
    """Whether two shapes differ in one dimension alone, which is that of our outputs."""
    differing = [side for side, other in zip(ours, theirs, strict=False) if side != other]
    return len(ours) == len(theirs) and differing == [outputs]


def best_fit(
    model: nn.Module,
    targets: dict[str, Tensor],
    weights: dict[str, Tensor],
    path: Path,
    outputs: int | None,
) -> Fit:
    """The first table of those that fit without a remainder and match most; ValueError if there is none."""
    tables = [OwnNames(targets, weights), *(model.key_maps() if hasattr(model, "key_maps") else ())]
    fits = (fit_by(table, targets, weights, outputs) for table in tables)
    best = max(fits, key=lambda fit: (fit.good, len(fit.tensors)))
    if best.good:
        return best
    raise ValueError(f"{path} does not fit the model: {problems(best, len(weights))}")


def problems(fit: Fit, size: int) -> str:
    """What keeps a file of `size` entries from being loaded, and what to do: one line."""
    shapes = [f"{key} is {list(theirs)}, not {list(ours)}" for key, theirs, ours in fit.shapes]
    found = [
        some(items, what)
        for items, what in (
            (shapes, " of another shape"),
            (fit.missing, " missing"),
            (fit.unexpected, " unknown to the model"),
        )
        if items
    ]
    outputs = {
        (theirs[0], ours[0]) for _, theirs, ours in fit.shapes if len(theirs) == len(ours) == 1
    }
    advice = "is it of another --backbone, --method or option?"
    if len(outputs) == 1 and not fit.unexpected and not fit.missing:
        theirs, ours = outputs.pop()
        advice = (
            f"it has {theirs} outputs (classes), the model {ours}: choose the data set it was trained for, or "
            "start from it with --training --new-classes"
        )
    elif fit.missing and not fit.unexpected and not fit.shapes:
        advice = "it is incomplete: get the whole file"
    return f"of its {size} entries, read as {fit.name}, {', '.join(found)}; {advice}"


def some(names: list | tuple, what: str = "") -> str:
    """ "3 what (a, b, ...)": how many, and the first few."""
    return f"{len(names)}{what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
