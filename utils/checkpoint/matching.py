"""Matches the entries of a file of weights with those of the model.

A file is read by every key table that may apply; the table that matches most entries counts.
A table has `name`, `joined(weights)`, `rename(keys)` and `must_hold(key)`: `model.key_maps()` gives
the tables of published files, `OwnNames` is that of our checkpoints. A file is refused unless it
fits as a whole: no entry that the table does not know, no other shape, nothing missing that it
should hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from .contents import namings_of

AUXILIARY = re.compile(r"(?:.*\.)?(?:aux|auxiliary_head)\..+")  # heads that only training uses
FROZEN = re.compile(r"(?:.*\.)?frozen\.")  # networks that our checkpoints do not hold
UNCOUNTED = "num_batches_tracked"  # files of old torch versions lack it


class OwnNames:
    """The table of our checkpoints: a file holds a part of the model whole or not at all."""

    name = "our names"

    def __init__(self, weights: dict[str, Tensor]):
        self.parts = {_part(key) for key in weights}

    def joined(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every entry of ours is one of the file."""
        return weights

    def rename(self, keys: Iterable[str]) -> SimpleNamespace:
        """Every key stays as it is; the answer has the fields of a key table's."""
        return SimpleNamespace(ours={key: key for key in keys}, unused=(), unexpected=())

    def must_hold(self, key: str) -> bool:
        """Whether a file without `key` is incomplete."""
        if AUXILIARY.fullmatch(key) or FROZEN.match(key):
            return False
        return _part(key) in self.parts


def _part(key: str) -> str:
    """The top-level module that an entry belongs to, such as "backbone"."""
    return key.split(".")[0]


@dataclass
class Match:
    """The entries of a file, read by one key table."""

    name: str  # of the table
    tensors: dict[str, Tensor] = field(default_factory=dict)  # by our name
    unused: list[str] = field(default_factory=list)  # published names, as below
    unexpected: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # our names
    # (published name, shape in the file, shape in the model)
    shapes: list[tuple[str, tuple, tuple]] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether something can be loaded and nothing is wrong."""
        return bool(self.tensors) and not (self.unexpected or self.missing or self.shapes)


def match_weights(
    model: nn.Module,
    targets: dict[str, Tensor],
    weights: dict[str, Tensor],
    path: Path,
    outputs: int | None,
) -> Match:
    """The best match of the file at `path`: one that fits, with most entries.

    targets: the model's entries; weights: the file's; outputs: see `match_by`. Raises ValueError
    where no table fits.
    """
    published = model.key_maps() if hasattr(model, "key_maps") else []
    matches = (
        match_by(table, targets, naming, outputs)
        for naming in namings_of(weights)
        for table in (OwnNames(naming), *published)
    )
    # Of equals max takes the first, so our names win over published ones.
    best = max(matches, key=lambda match: (match.fits, len(match.tensors)))
    if not best.fits:
        raise ValueError(f"{path} does not fit the model: {problems(best, len(weights))}")
    return best


def match_by(
    table, targets: dict[str, Tensor], weights: dict[str, Tensor], outputs: int | None
) -> Match:
    """Read `weights` by `table` (a KeyMap or OwnNames) and note what fits and what does not.

    outputs: how many the model has, where the file may be for another number of classes: entries
    that differ in that number alone are left out. None: such entries are of a wrong shape.
    """
    has_auxiliary = any(map(AUXILIARY.fullmatch, targets))
    weights = table.joined(weights)
    renamed = table.rename(weights)
    match = Match(table.name, unused=list(renamed.unused), unexpected=list(renamed.unexpected))
    for name, key in renamed.ours.items():
        if name in targets:
            _match_entry(match, name, key, targets[name], weights[key], outputs=outputs)
        # A model without auxiliary heads may leave those of the file out.
        elif AUXILIARY.fullmatch(name) and not has_auxiliary:
            match.unused.append(key)
        else:
            match.unexpected.append(key)
    absent = (name for name in targets if name not in renamed.ours)
    match.missing = [
        name for name in absent if not name.endswith(UNCOUNTED) and table.must_hold(name)
    ]
    return match


def _match_entry(
    match: Match, name: str, key: str, target: Tensor, tensor: Tensor, *, outputs: int | None
) -> None:
    """Add `tensor`, published as `key`, to the match where its shape allows."""
    if target.shape == tensor.shape:
        match.tensors[name] = tensor
    elif outputs and differ_in_outputs(target.shape, tensor.shape, outputs):
        match.unused.append(key)
    else:
        match.shapes.append((key, tuple(tensor.shape), tuple(target.shape)))


def differ_in_outputs(ours: torch.Size, theirs: torch.Size, outputs: int) -> bool:
    """Whether two shapes differ in one dimension alone, and ours has `outputs` there."""
    differing = [size for size, other in zip(ours, theirs, strict=False) if size != other]
    return len(ours) == len(theirs) and differing == [outputs]


def problems(match: Match, size: int) -> str:
    """What keeps a file of `size` entries from being loaded, and what to do: one line."""
    shapes = [f"{key} is {list(theirs)}, not {list(ours)}" for key, theirs, ours in match.shapes]
    found = {
        " of another shape": shapes,
        " missing": match.missing,
        " unknown to the model": match.unexpected,
    }
    listed = ", ".join(abbreviate(items, what) for what, items in found.items() if items)
    return f"of its {size} entries, read as {match.name}, {listed}; {_advice(match)}"


def _advice(match: Match) -> str:
    # The numbers of outputs (theirs, ours) are the sizes of biases, which have one dimension.
    outputs = {
        (theirs[0], ours[0]) for _, theirs, ours in match.shapes if len(theirs) == len(ours) == 1
    }
    if len(outputs) == 1 and not match.unexpected and not match.missing:
        theirs, ours = outputs.pop()
        return (
            f"it has {theirs} outputs (classes), the model {ours}: choose the data set it was "
            "trained for, or start from it with --training --new-classes"
        )
    if match.missing and not match.unexpected and not match.shapes:
        return "it is incomplete: get the whole file"
    return "is it of another --backbone, --method or option?"


def abbreviate(names: Sequence[str], what: str = "") -> str:
    """The number of `names`, `what` they are, and the first three: "4 missing (a, b, c, ...)"."""
    first = ", ".join(names[:3])
    if len(names) > 3:
        first += ", ..."
    return f"{len(names)}{what} ({first})"
