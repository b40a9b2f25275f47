"""Weights are loaded whole or not at all, under our names or those of a published file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .contents import choice_of, classes_of, palette_of, weights_of, work_size_of
from .matching import AUXILIARY, UNCOUNTED, Match, abbreviate, match_weights
from .reading import read, resolve


@dataclass(frozen=True)
class Report:
    """What `load_weights` did."""

    files: tuple[str, ...]
    maps: tuple[str, ...]  # per file: the name of the key table that it was read by
    loaded: int  # entries of the model that came from a file
    new: tuple[str, ...]  # entries of the model that are in no file
    unused: tuple[str, ...]  # entries of the files that are known and not used
    classes: tuple[str, ...] = ()  # that the weights were trained for, where a file says so
    palette: tuple[tuple[int, int, int], ...] = ()  # (R, G, B) of these, where the file says so
    work_size: tuple[int, int] | None = None  # (H, W) that it was trained to label at
    choices: tuple[str, ...] = ()  # per file: which of several weights were taken, or ""

    def __str__(self) -> str:
        choices = self.choices or ("",) * len(self.files)
        read_as = [
            f"{name}, {choice}" if choice else name
            for name, choice in zip(self.maps, choices, strict=True)
        ]
        pairs = zip(self.files, read_as, strict=True)
        sources = ", ".join(f"{file} ({words})" for file, words in pairs)
        total = self.loaded + len(self.new)
        text = f"loaded {self.loaded} of {total} entries from {sources}"
        if self.new:
            text += f"; new: {abbreviate(self.new)}"
        if self.unused:
            text += f"; not used: {abbreviate(self.unused)}"
        return text


def load_weights(
    model: nn.Module,
    paths: str | Path | list[str | Path],
    *,
    complete: bool = False,
    new_classes: bool = False,
    leave: Collection[str] = (),
) -> Report:
    """Load the model from one or more files; of an entry that several files hold, the last counts.

    Frozen networks within it (models.parts.frozen) are filled as well, from files of their own.
    A folder means its best weights (`resolve`). Each file is read under our names if they fit, else
    by the table of `model.key_maps()` that fits best. ValueError, with the model unchanged, for an
    entry that the table does not know, for another shape and for a file that lacks part of what it
    should hold.

    complete: an entry of the model that is in no file is an error too, except in auxiliary heads,
    which only training uses. Otherwise such entries are reported as new.
    new_classes: layers whose outputs differ in number from the model's (other classes) are not
    loaded; the model's own stay and are reported as new.
    leave: entries that keep the model's own values whatever the files hold, reported as new too.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    paths = [resolve(path) for path in paths]
    contents = [read(path) for path in paths]
    weights = [weights_of(content, path) for content, path in zip(contents, paths, strict=True)]
    # All files are matched before the model changes: a file that is refused leaves it as it was.
    matches = _matches(model, weights, paths, new_classes=new_classes)
    loaded = {name: tensor for match in matches for name, tensor in match.tensors.items()}
    loaded = {name: tensor for name, tensor in loaded.items() if name not in leave}
    separate = separate_entries(model)
    targets = model.state_dict() | separate
    new = tuple(name for name in targets if name not in loaded)
    if complete:
        optional = separate.keys() - separate_entries(model, needed=True).keys()
        _require_complete([name for name in new if name not in optional], paths)
    _copy(loaded, targets)
    return Report(
        files=tuple(map(str, paths)),
        maps=tuple(match.name for match in matches),
        loaded=len(loaded),
        new=new,
        unused=tuple(key for match in matches for key in match.unused),
        classes=classes_of(contents),
        palette=palette_of(contents),
        work_size=work_size_of(contents),
        choices=tuple(map(choice_of, contents)),
    )


def _matches(
    model: nn.Module,
    weights: Sequence[dict[str, Tensor]],
    paths: Sequence[Path],
    *,
    new_classes: bool,
) -> list[Match]:
    """Which entry of each file goes where; the model becomes the variant that the files are of.

    ValueError for a file that does not fit; the model is the variant that it was.
    """
    own_keys = set(model.state_dict())
    for entries in weights:
        follow_keys(model, entries)
    targets = model.state_dict() | separate_entries(model)
    # Those of the layers: an "ignore" output that is constant has no weights.
    outputs = model.backbone.num_outputs if new_classes else None
    try:
        return [
            match_weights(model, targets, entries, path, outputs)
            for entries, path in zip(weights, paths, strict=True)
        ]
    except ValueError:
        follow_keys(model, own_keys)
        raise


def follow_keys(model: nn.Module, keys: Collection[str]) -> None:
    """Make the model the variant that such keys are of, where it has variants."""
    if hasattr(model, "follow_keys"):
        model.follow_keys(keys)


def separate_entries(model: nn.Module, *, needed: bool = False) -> dict[str, Tensor]:
    """Entries of frozen networks, which no state dict of the model holds, by name.

    needed: only of those that mean nothing without a file.
    """
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if hasattr(module, "separate_entries") and (module.needs_weights or not needed):
            found |= module.separate_entries(f"{name}." if name else "")
    return found


def _require_complete(new: Iterable[str], paths: list[Path]) -> None:
    """Raise ValueError if entries of the model that inference needs are in no file."""
    needed = [
        name for name in new if not name.endswith(UNCOUNTED) and not AUXILIARY.fullmatch(name)
    ]
    if needed:
        files = ", ".join(map(str, paths)) or "no file"
        raise ValueError(
            f"{files}: the model is not complete without {abbreviate(needed)}; give the weights of "
            "the whole network, not of a part of it or of another --method"
        )


@torch.no_grad()
def _copy(loaded: dict[str, Tensor], targets: dict[str, Tensor]) -> None:
    for name, tensor in loaded.items():
        # copy_ casts: published files may be in half precision.
        targets[name].copy_(tensor)
